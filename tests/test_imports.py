"""Who imports whom: rooms use rooms further up the list only, and heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From what knows nothing of the rest to what knows everything.
ROOMS = [
    "nas",
    "nas.machine",
    "nas.yaml_files",
    "nas.progress",
    "nas.pareto",
    "nas.quantities",
    "nas.networks",
    "nas.cost",
    "nas.data",
    "nas.spaces",
    "nas.published",
    "nas.runs",
    "nas.training",
    "nas.searching",
    "nas.reporting",
    "nas.export",
    "nas.timm_models",
    "nas.commands",
    "nas.__main__",
    "launch",
]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted([ROOT / "launch.py", *(ROOT / "nas").rglob("*.py")])
}
# Package -> the only modules that may import it.
HEAVY = {
    "optuna": {f"nas.searching.{name}" for name in ("optuna_study", "finalist_study", "study_storage", "study_queue", "dashboard")},
    "optuna_dashboard": {"nas.searching.dashboard"},
    "jinja2": {"nas.reporting.page"},
    "ray": {"nas.searching.ray_cluster", "nas.searching.ray_workers", "nas.searching.tune"},
    "datasets": {"nas.data.huggingface"},
    **{
        package: {"nas.networks.onnx_model", "nas.cost.targets", "nas.cost.targets.onnx_runtime", "nas.export.onnx_file"}
        for package in ("onnx", "onnx_ir", "onnxscript", "onnxruntime")
    },
    "matplotlib": {module for module in FILES if module.startswith("nas.reporting.")},
}
WITHOUT_TORCH = [
    "nas",
    "nas.yaml_files",
    "nas.progress",
    "nas.pareto",
    "nas.quantities",
    "nas.networks.mixers",
    "nas.networks.architecture",
    "nas.spaces.schema",
    "nas.searching.proposals",
    "nas.searching.search",
    "nas.searching.winner",
    "nas.searching.optuna_study",
]


def room_of(module: str) -> str:
    """The entry of ROOMS that a module belongs to: itself, or the nearest package above it."""
    while module not in ROOMS:
        assert "." in module, f"{module} has no room: give it one here"
        module = module.rpartition(".")[0]
    return module


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; a name of a package that is a module counts as the module."""
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
def test_rooms_use_rooms_further_up_only(module: str) -> None:
    mine = room_of(module)
    assert mine != "nas" or module == "nas", f"{module} has no room: give it one here"
    for name in ours(module):
        theirs = room_of(name)
        assert theirs == mine or ROOMS.index(theirs) < ROOMS.index(mine), f"{module} imports {name}"


def test_there_are_no_cycles() -> None:
    left = {module: ours(module) - {module} for module in FILES}
    while free := [module for module, names in left.items() if not names & set(left)]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_have_one_room(package: str) -> None:
    users = {module for module in FILES if any(name.split(".")[0] == package for name in imported(FILES[module]))}
    assert users <= HEAVY[package]


def test_training_does_not_know_what_a_supernet_is() -> None:
    assert not any("nas.spaces.supernet" in ours(module) for module in FILES if room_of(module) == "nas.training")


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_these_import_no_torch(module: str) -> None:
    assert not any(name.split(".")[0] in ("torch", "timm", "torchvision") for name in imported(FILES[module]))


def test_nothing_that_these_import_imports_torch() -> None:
    code = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch is imported' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


MOST_PARAMETERS, MOST_LINES = 7, 60


@pytest.mark.parametrize("module", FILES)
def test_long_functions_and_long_signatures_say_why(module: str) -> None:
    """A comment above the function, or on its first line."""
    lines = FILES[module].read_text(encoding="utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parameters = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if each.arg != "self"]
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            above, on = lines[first - 2].strip() if first > 1 else "", lines[node.lineno - 1]
            said = above.startswith("#") or "  # " in on
            length = (node.end_lineno or 0) - node.lineno + 1
            assert said or len(parameters) <= MOST_PARAMETERS, f"{module}.{node.name} takes {len(parameters)} parameters"
            assert said or length <= MOST_LINES, f"{module}.{node.name} fills {length} lines"


def test_help_of_every_command_imports_click_alone() -> None:
    code = "import sys, nas.__main__; print({'torch', 'optuna', 'ray', 'numpy', 'pydantic', 'yaml'} & set(sys.modules) or '')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "\n"
