"""`python -m lift_trl.cli`."""

import sys

from . import main


sys.exit(main())
