"""What checkpoints take of a training: the seconds of each, beside those of the command.

    OMP_NUM_THREADS=1 python benchmarks/checkpoints.py train --data cifar10 --space cifar_small --recipe cifar_cpu --budget 5MMACs --steps 3300 --run clocked

Any command that trains in this process; it runs as `launch.py` runs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import launch
import nas.training.loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what follows `launch.py`")
    sys.argv[1:] = parser.parse_args().command
    spent, save, begun = list[float](), nas.training.loop.save_checkpoint, time.monotonic()

    def clocked(*given: Any) -> None:
        before = time.monotonic()
        save(*given)
        spent.append(time.monotonic() - before)

    nas.training.loop.save_checkpoint = clocked
    status = launch.main()
    seconds = time.monotonic() - begun
    print(f"{len(spent)} checkpoints took {sum(spent):.1f} s of {seconds:.0f} s: {sum(spent) / seconds:.1%}")
    sys.exit(status)


if __name__ == "__main__":
    main()
