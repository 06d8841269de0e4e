"""Lets tests import the modules beside them (`references`, `tracing`), whichever way pytest imports the tests."""

import os
import sys
import tempfile
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


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second measured quantity: it takes an entry in the table and a function, and nothing else."""
    from nas.quantities import QUANTITIES, counted

    monkeypatch.setitem(QUANTITIES, "memory_bytes", counted("memory_bytes", "B", "Bytes, made up.", measured=True))
