"""Lets tests import the modules beside them (`references`, `tracing`), whichever way pytest imports the tests."""

import gc
import os
import re
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
os.fsync = lambda descriptor: None  # thousands of waits for the disk; no test cuts the power, and who looks at the call puts its own here
gc.set_threshold(10_000)  # of allocations, not 700: a look at all that 3,000 tests and their modules keep takes a quarter of a second

# Files that take longest, in the order in which they are begun: two processes end together where what is left to the end is short. Those with a cluster
# come first: after a Ray of its own with Tune a process's workers on a cluster die before they are built, which no command does.
LONGEST = [
    "ray_cluster",
    "tune_cluster",
    "commands",
    "tune",
    "ranks",
    "finals",
    "optuna_study",
    "fidelity",
    "supernet",
    "wiring",
    "plan",
    "page",
    "study_server",
    "shared_search",
    "ray_workers",
    "no_room",
    "killed",
    "catalogue",
    "mixers",
    "package",
    "import_weights",
    "broken_images",
    "random_input",
    "shipped_files",
]


def pytest_configure(config: pytest.Config) -> None:
    """Hides GPUs from all tests but those marked `gpu`, and from the processes that they start: `--device auto` is a CPU there."""
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device, or -m does not ask for gpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second measured quantity: it takes an entry in the table and a function, and nothing else."""
    from nas.quantities import QUANTITIES, counted

    monkeypatch.setitem(QUANTITIES, "memory_bytes", counted("memory_bytes", "B", "Bytes, made up.", measured=True))
