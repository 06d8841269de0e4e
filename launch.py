"""The command line: search a hybrid network under a budget, retrain the winner.

python launch.py search --budget 4.5GFLOPs
python launch.py retrain runs/best.yaml

Each command is a file in nas/commands/: its options, and what it does.
"""

import sys

from nas.commands import COMMANDS
from nas.commands.command_line import run


def main() -> int:
    """Runs one command; the exit status."""
    return run(COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
