"""`python -m nas`, and the console command `hybrid-nas`: what launch.py is in a checkout."""

import signal
import sys


def main() -> int:
    """Runs the command that `sys.argv` names; the exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules are imported ends without a traceback
    from nas.commands import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
