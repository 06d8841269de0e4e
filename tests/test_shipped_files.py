"""What is shipped is true: spaces and recipes load and run, dependencies say who needs them, the README's commands parse."""

from __future__ import annotations

import json
import math
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from often import often

import launch
from nas.commands import COMMANDS
from nas.training.recipe import read_recipe

ROOT = Path(__file__).parents[1]
PAGES = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md", "docs/code.md")]
SHELL = [
    line.split("  #")[0].strip()
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", page, re.S)
    for line in block.splitlines()
    if line.strip()
]


# The large ones write gigabytes of checkpoint; that their supernets run, test_supernet.py sees at every call.
SPACES = sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))


@pytest.mark.whole
@pytest.mark.parametrize("space", often(SPACES, "cifar".__eq__))
def test_a_shipped_space_runs(space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["launch.py", "train", "--space", space, "--smoke", "--steps", "1"])
    assert launch.main() == 0
    assert "The supernet is trained" in capsys.readouterr().out


RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.whole
@pytest.mark.parametrize("recipe", often(RECIPES, "cifar_cpu".__eq__))
def test_a_shipped_recipe_runs(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Supernet, search and retraining by it, on digits at 32 px: its resolution and length are for its own data."""
    monkeypatch.chdir(tmp_path)
    options = ["--space", "cifar_small", "--recipe", recipe, "--resolution", "32", "--smoke", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["launch.py", "search", "--budget", "2MMACs", *options])
    assert launch.main() == 0
    monkeypatch.setattr(sys, "argv", ["launch.py", "retrain", "runs/best.yaml", "--smoke", "--steps", "2"])
    assert launch.main() == 0
    assert "Test accuracy" in capsys.readouterr().out


def test_imagenets_supernet_has_the_rate_that_its_header_names_for_its_batch() -> None:
    """As suits Adam: by the square root of the batch."""
    recipe = read_recipe(ROOT / "recipes/imagenet.yaml")
    assert recipe.supernet.lr == pytest.approx(recipe.retrain.lr * math.sqrt(recipe.supernet.batch_size / recipe.retrain.batch_size))
    assert recipe.retrain.lr == 1e-3 and recipe.retrain.batch_size == 1024


def test_every_dependency_says_which_file_needs_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in tomllib.loads(text)["project"]["dependencies"]:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        comment = line.partition("#")[2]
        files = re.findall(r"(?:nas|tests)/[\w/]+(?:\.py)?", comment)
        assert files or "schemas" in comment, f"{requirement}: no comment names a file"
        assert all((ROOT / file).exists() for file in files), line


def test_the_readmes_commands_are_the_programs() -> None:
    commands = [shlex.split(line)[2:] for line in SHELL if line.startswith("python launch.py")]
    assert len(commands) >= 4
    known = {command.name: command for command in COMMANDS}
    for words in commands:
        known[words[0]].make_context(words[0], words[1:])  # a mistake would be a UsageError


def test_ci_installs_and_tests_by_the_readmes_commands() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    tests = 'pytest -m "not slow and not gpu"'
    assert tests in SHELL and tests in ci
    assert "pip install -e '.[test]'" in SHELL and "pip install --quiet -e '.[test]'" in ci


def test_the_faults_that_are_planted_can_be() -> None:
    """The list follows the code: what it replaces is there, and so are the tests that should die of it."""
    for fault in json.loads((ROOT / "benchmarks" / "planted_faults.json").read_text(encoding="utf-8")):
        assert fault["old"] in (ROOT / fault["module"]).read_text(encoding="utf-8"), fault["name"]
        assert all((ROOT / "tests" / f"test_{name}.py").is_file() for name in fault["tests"]), fault["name"]


SCRIPTS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "__main__" in path.read_text()]  # the others import `timing`


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_starts(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What a benchmark imports moves now and then, and nobody runs all of them each time. In this process: a new one imports torch anew."""
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(script.parent)  # as `python benchmarks/x.py` does
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("usage: ")
