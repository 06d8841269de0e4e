"""The command line: search a hybrid network under a budget, retrain the winner.

python launch.py search --budget 4.5GFLOPs
python launch.py retrain runs/best.yaml

Each command is a file in nas/commands/: its options, and what it does.
"""

import sys

from nas.commands import main

if __name__ == "__main__":
    sys.exit(main())
