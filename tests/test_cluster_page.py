"""The page about several devices is a path that can be walked: its commands in their order, on two cores in place of eight GPUs."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from postgres import PASSWORD
from processes import REPOSITORY

from tests.test_guide import photographs

PAGE = (REPOSITORY / "docs/cluster.md").read_text(encoding="utf-8")
SECTIONS = {int(section[0]): section for section in re.split(r"^## (?=\d)", PAGE, flags=re.M)[1:]}
TRAINS = ("train", "search", "retrain", "fidelity", "compare")


def lines_of(section: int) -> list[str]:
    return [line for block in re.findall(r"```bash\n(.*?)```", SECTIONS[section], re.S) for line in block.splitlines()]


class Shell:
    """Runs lines of the page in a folder: with two processes for eight, small images and networks, and ports that are free."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, dict[str, str]()
        (folder / "home").mkdir()
        (folder / "home/password").write_text(PASSWORD)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PGPASSWORD": PASSWORD, "RAY_USAGE_STATS_ENABLED": "0"}
        self._ray_folder = tempfile.mkdtemp(prefix="page", dir="/tmp")  # nobody else's Ray is found; sockets want short paths
        self.environment |= {"RAY_TMPDIR": self._ray_folder, "RAY_AUTH_MODE": "token", "HOME": str(folder / "home")}  # a token of its own
        self._blocking: list[subprocess.Popen[str]] = []

    def here(self, line: str, **more: str) -> str:
        """The line as it is run here."""
        for port in re.findall(r"\b(?:29500|6379|5433)\b", line):
            line = line.replace(port, self.ports.setdefault(port, free_port()))
        replaced = {
            "node1": "127.0.0.1", "--nproc-per-node 8": "--nproc-per-node 2", "--workers 16": "--workers 2", "--workers 8": "--workers 2",
            "--data imagenet": "--data photos", "--networks 12 ": "", "--pwprompt": "--pwfile password", "listen_addresses=*": "listen_addresses=127.0.0.1",
            "ray start": "ray start --block --num-cpus=1 --object-store-memory=80000000", **more,
        }  # fmt: skip
        if not line.startswith("python launch.py plan --images"):
            replaced |= {"--space hybrid": "--space cifar_small"}
            line = line.replace("4.5GFLOPs", more.get("4.5GFLOPs", "5MMACs"))
        for theirs, ours in replaced.items():
            line = line.replace(theirs, ours)
        command = re.search(r"launch\.py (\w+)", line)
        line = line.replace("launch.py", str(REPOSITORY / "launch.py"))
        short = {"compare": " --smoke --device cpu --seeds 1 --random 0", "evaluate": " --device cpu", "plan": " --device cpu"}
        return line + (short.get(command[1], " --smoke --device cpu" if command[1] in TRAINS else "") if command else "")

    def start(self, line: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f"exec {self.here(line, **more)}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, line: str, **more: str) -> str:
        return ended(self.start(line, **more), line)

    def stay(self, line: str) -> None:
        """Starts what goes on for long; it is ended at the end."""
        self._blocking.append(self.start(line))

    def as_who_may_run_a_server(self, line: str) -> None:
        """The server refuses to run as root."""
        other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        home = Path(self._ray_folder) / "home"
        if not home.exists():
            shutil.copytree(self.folder / "home", home)
            Path(self._ray_folder).chmod(0o755)
            if other:
                shutil.chown(home, "nobody", "nogroup")
        with (home.parent / "log").open("a") as log:
            subprocess.run([*other, "bash", "-c", self.here(line)], check=True, cwd=home, stdout=log, stderr=log, env=self.environment)

    def close(self) -> None:
        server = Path(self._ray_folder) / "home/studies/postmaster.pid"
        if server.exists():
            os.kill(int(server.read_text().split()[0]), signal.SIGINT)
        for process in self._blocking:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)
        shutil.rmtree(self._ray_folder, ignore_errors=True)


def ended(process: subprocess.Popen[str], line: str) -> str:
    try:
        said, _ = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, f"{line}\n{said}"
    assert "Traceback" not in said, f"{line}\n{said}"
    return said


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("page"))
    photographs(shell.folder / "photos", ["boat", "cat", "dog"], {"train": 20, "test": 4})
    yield shell
    shell.close()


def test_the_page_has_a_command_for_everything_that_spreads() -> None:
    lines = [line for number in SECTIONS for line in lines_of(number)]
    for words in (
        ("torchrun", "train"),
        ("torchrun", "retrain"),
        ("--ray-address", "search"),
        ("--ray-address", "fidelity"),
        ("--storage", "search"),
    ):
        assert any(all(word in line for word in words) for line in lines), words


def test_a_batch_systems_warning_leaves_torchrun_more_time_than_it_gives_its_processes() -> None:
    """And torchrun has the options that the page names."""
    warned, waits = re.search(r"--signal=TERM@(\d+)", SECTIONS[3]), re.search(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", SECTIONS[3])
    assert warned and waits and int(waits[1]) < int(warned[1])
    torchrun = Path(importlib.util.find_spec("torch").origin).with_name("distributed")  # type: ignore[union-attr,arg-type]
    assert "--signals-to-handle" in SECTIONS[2] and '"--signals-to-handle"' in (torchrun / "run.py").read_text()
    assert waits[0].partition("=")[0] in (torchrun / "launcher/api.py").read_text()


def test_the_clouds_file_is_what_ray_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (text,) = re.findall(r"```yaml\n(.*?)```", SECTIONS[4], re.S)
    written = yaml.safe_load(text)
    validate_config(prepare_config(written))
    assert "~/.ray/auth_token" in written["file_mounts"], "without it whoever reaches the cluster may run anything on it"
    assert all(written[f"{who}_start_ray_commands"][-1].startswith("RAY_AUTH_MODE=token ray start ") for who in ("head", "worker"))


def test_the_clouds_commands_have_rays_options() -> None:
    from ray.scripts.scripts import cli

    (block,) = re.findall(r"```sh\n(.*?)```", SECTIONS[4], re.S)
    named = []
    for line in block.splitlines():
        _, name, *words = shlex.split(line)
        cli.commands[name].make_context(name, words)
        named.append(name)
        assert "ray" not in line.partition("'")[2] or "RAY_AUTH_MODE=token" in line, line
    assert named == ["get-auth-token", "up", "exec", "exec", "down"]


@pytest.mark.slow
def test_a_plan_for_images_that_are_not_here(shell: Shell) -> None:
    said = shell.run(*lines_of(1))
    assert "1000 classes" in said and "8: each computes its part" in said


@pytest.mark.slow
def test_several_devices_of_one_machine(shell: Shell) -> None:
    train, search, retrain = lines_of(2)
    assert "on 2 processes, cpu" in shell.run(train)
    assert "Winner: " in shell.run(search)
    assert "test accuracy" in shell.run(retrain).lower()


@pytest.mark.slow
def test_several_machines(shell: Shell) -> None:
    (line,) = lines_of(3)
    two = [shell.start(line, **{"--nproc-per-node 8": "--nproc-per-node 1", "--run big": "--run two"}) for _ in range(2)]
    said = [ended(each, line) for each in two]
    assert sum("The supernet is trained" in each for each in said) == 1, "one of them speaks"


@pytest.mark.slow
def test_workers_on_a_cluster(shell: Shell) -> None:
    token, head, other, search, fidelity, compare, stop = lines_of(4)
    assert stop == "ray stop", "which would end every Ray of this machine: the nodes are ended by themselves"
    if not (shell.folder / "runs/big").exists():  # where this test is run alone
        shell.run(lines_of(2)[0])
    shell.run(token)
    shell.stay(head)
    status, until, nodes = ["ray", "status", f"--address=127.0.0.1:{shell.ports['6379']}"], time.monotonic() + 120, 0
    while nodes < 2:
        asked = subprocess.run(status, env=shell.environment, capture_output=True, text=True)
        nodes = asked.stdout.count(" node_")
        assert time.monotonic() < until, asked
        if nodes and len(shell._blocking) < 2:
            shell.stay(other)
        time.sleep(1)
    assert "Winner: " in shell.run(search, **{"4.5GFLOPs": "4MMACs"})
    shell.run(fidelity)
    shell.run(compare)


@pytest.mark.slow
def test_studies_on_a_server(shell: Shell) -> None:
    *server, search, dashboard = lines_of(5)
    for line in server:
        shell.as_who_may_run_a_server(line)
    first = shell.start(search)
    supernet, until = shell.folder / "runs/shared/run.yaml", time.monotonic() + 300
    while not (supernet.exists() and "supernet_finished" in supernet.read_text()):
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    second = shell.start(search)
    said = [ended(each, search) for each in (first, second)]
    assert "Winner: " in said[0] and PASSWORD not in said[0] + said[1]
    shown = shell.start(f"{dashboard} --port {free_port()}")
    assert shown.stdout is not None
    assert any("Dashboard: http" in line for line in shown.stdout)
    os.killpg(shown.pid, signal.SIGTERM)
    shown.communicate(timeout=60)


@pytest.mark.slow
def test_imagenet_by_the_same_commands(shell: Shell) -> None:
    said = [shell.run(line) for line in lines_of(6)]
    assert "Accuracy: " in said[-1]
