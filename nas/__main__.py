"""`python -m nas`, and the console command `hybrid-nas`: what launch.py is in a checkout."""

import sys

from nas.commands import COMMANDS
from nas.commands.command_line import run


def main() -> int:
    """Runs one command; the exit status."""
    return run(COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
