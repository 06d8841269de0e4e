"""Who imports whom: modules import from lower numbers only, and heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = [
    ["nas.architecture", "nas.pareto", "nas.budget", "nas.runs", "nas.progress", "nas.yaml_io", "nas.norms"],
    ["nas.mixers", "nas.data"],
    ["nas.blocks", "nas.train"],
    ["nas.layers"],
    ["nas.space", "nas.network", "nas.cost"],
    ["nas.supernet", "nas.sampling", "nas.presets", "nas.import_weights", "nas.cost.latency"],  # what is timed is a whole network
    ["nas.search"],
    ["nas.optuna_search", "nas.parallel"],
    ["nas.setting", "nas.networks_page"],
    ["nas.jobs", "nas.catalogue"],  # jobs puts the two together
    ["launch"],
]
LEVEL = {"nas": -1} | {module: number for number, modules in enumerate(LEVELS) for module in modules}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted([ROOT / "launch.py", *(ROOT / "nas").rglob("*.py")])
}
# Package -> the only modules that may import it.
ROOMS = {"optuna": {"nas.optuna_search"}, "ray": {"nas.parallel"}}
WITHOUT_TORCH = ["nas.architecture", "nas.pareto", "nas.budget", "nas.yaml_io", "nas.search", "nas.optuna_search"]


def part_of(module: str) -> str:
    """The entry of LEVEL that a module belongs to: itself, or the nearest package above it."""
    while module not in LEVEL:
        assert "." in module, f"{module} has no level: give it one here"
        module = module.rpartition(".")[0]
    return module


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {name if (name := f"{node.module}.{alias.name}") in FILES else str(node.module) for alias in node.names}
    return found


def ours(module: str) -> set[str]:
    return {name for name in imported(FILES[module]) if name.split(".")[0] in ("nas", "launch")}


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_from_lower_numbers_only(module: str) -> None:
    mine = part_of(module)
    assert mine != "nas" or module == "nas", f"{module} has no level: give it one here"
    for name in ours(module):
        theirs = part_of(name)
        lower = LEVEL[theirs] < LEVEL[mine]
        same_package = theirs == mine
        among_the_lowest = LEVEL[theirs] == LEVEL[mine] == 0
        assert lower or same_package or among_the_lowest, f"{module} ({LEVEL[mine]}) imports {name} ({LEVEL[theirs]})"


def test_there_are_no_cycles() -> None:
    left = {module: ours(module) - {module} for module in FILES}
    while free := [module for module, names in left.items() if not names & set(left)]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("package", ROOMS)
def test_heavy_packages_have_one_room(package: str) -> None:
    users = {module for module in FILES if any(name.split(".")[0] == package for name in imported(FILES[module]))}
    assert users <= ROOMS[package]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_these_import_no_torch(module: str) -> None:
    assert not any(name.split(".")[0] in ("torch", "timm", "torchvision") for name in imported(FILES[module]))


def test_nothing_that_these_import_imports_torch() -> None:
    code = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch is imported' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
