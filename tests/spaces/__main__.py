"""`python -m tests.spaces docs/assets`: pictures of the three Spaces for the documentation."""

import sys
from pathlib import Path


if __name__ == "__main__":  # a Space's process runs this file again, too late for the tests' private environment
    from tests.spaces.screenshots import main

    main(Path(sys.argv[1]))
