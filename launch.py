"""The command line: search a hybrid network under a budget, retrain the winner.

python launch.py search --budget 4.5GFLOPs
python launch.py retrain runs/best.yaml

Each command is a file in nas/commands/: its options, and what it does.
"""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules are imported ends without a traceback

from nas.commands import main

if __name__ == "__main__":
    sys.exit(main())
