"""What this machine offers."""

import os


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    # Not everywhere (macOS has no affinity); where it is, a container or `taskset` may allow fewer cores than there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
