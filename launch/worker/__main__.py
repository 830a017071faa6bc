"""`python -m launch.worker`."""

import sys

from launch.worker import main

if __name__ == "__main__":
    sys.exit(main())
