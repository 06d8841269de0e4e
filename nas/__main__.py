"""`python -m nas`, and the console command `hybrid-nas`: what launch.py is in a checkout."""

import sys

from nas.commands import main

if __name__ == "__main__":
    sys.exit(main())
