"""The package as others install it: from a wheel, in any folder, by plain names."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import nas

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, as pip unpacks them."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = WheelBuilder(str(REPOSITORY)).build(directory=str(folder / "wheel"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


# As `python -m nas` runs them, but in one process: another one would import torch again.
TWO_COMMANDS = """
import runpy, sys
statuses = []
for line in ("train --space cifar_small --smoke --steps 1", "retrain as_mlp_tt"):
    sys.argv = ["nas", *line.split()]
    try:
        runpy.run_module("nas", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        statuses.append(f"status {ended.code}")
print(*statuses, sep="\\n")
"""


@pytest.mark.whole
def test_a_wheel_finds_its_spaces_presets_and_recipes_from_any_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def says(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-P", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert nas.__version__ in says("-m", "nas", "--version").stdout
    done = says("-c", TWO_COMMANDS)
    assert done.stdout.splitlines()[-2:] == ["status 0", "status 2"], done.stderr
    assert "python -m nas search --run cifar_small-digits-digits-0-smoke --budget " in done.stdout
    assert (tmp_path / "runs/cifar_small-digits-digits-0-smoke/supernet.pt").exists(), "runs are kept where the command runs"
    assert "Did you mean 'as_mlp_t'" in done.stderr, "the published networks are there"


def test_the_wheel_has_a_console_command_and_every_yaml_file(installed: Path) -> None:
    (entry_points,) = installed.glob("hybrid_nas-*.dist-info/entry_points.txt")
    assert "hybrid-nas = nas.__main__:main" in entry_points.read_text()
    for folder in ("search_spaces", "recipes"):
        ours = {path.relative_to(REPOSITORY / folder) for path in (REPOSITORY / folder).rglob("*.yaml")}
        assert ours and ours == {path.relative_to(installed / "nas" / folder) for path in (installed / "nas" / folder).rglob("*.yaml")}


def test_plain_names() -> None:
    for name in ("load_network", "Architecture", "SearchSpace", "Supernet", "Network"):
        assert getattr(nas, name).__name__ == name and name in dir(nas)
    with pytest.raises(AttributeError, match="Supernett"):
        _ = nas.Supernett  # type: ignore[attr-defined]


@pytest.mark.parametrize(("said", "expected"), [({}, "4000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(said: dict[str, str], expected: str | None) -> None:
    """Set before torch is loaded, which would not look again."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    code = (
        "import sys, os; sys.argv = ['launch.py', '--version']; import launch; status = launch.main();"
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env={**plain, **said}, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == f"{expected} False", done
