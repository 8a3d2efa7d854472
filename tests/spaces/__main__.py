"""`python -m tests.spaces docs/assets`: pictures of the three Spaces for the documentation."""

import sys
from pathlib import Path

from tests.spaces.screenshots import main


if __name__ == "__main__":
    main(Path(sys.argv[1]))
