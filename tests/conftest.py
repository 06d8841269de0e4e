"""Lets tests import the modules beside them (`references`, `tracing`), whichever way pytest imports the tests."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.machine import let_threads_sleep

sys.path.insert(0, str(Path(__file__).parent))
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes beside each other on two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
let_threads_sleep()  # before any test imports torch, as the command line does
# Before any test imports `datasets`: its cache of the sets that tests write, and no calls to the outside.
_cache = tempfile.TemporaryDirectory(prefix="datasets-cache-")
os.environ |= {"HF_DATASETS_CACHE": _cache.name, "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def forked() -> Iterator[Callable[[str, Path], int]]:
    """Runs a piece of code in another process and a folder: gives its exit status."""
    from processes import forks

    with forks() as run:
        yield run
