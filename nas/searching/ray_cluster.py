"""Ray: started on this machine alone, or a cluster that is there; what room workers have in it; and whether its nodes see what they need.

Ray is imported where it is used: it takes 0.4 s and 650 MB, which a search without workers need not pay.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from nas.machine import cores, program_digest

START_SECONDS = 300  # what workers may take to start; Ray itself would wait for ever for what there is no room for
CONNECT_SECONDS = 15.0  # what a cluster may take to answer
TRIES = 3  # of a start on this machine
LOOK_SECONDS = 120  # what a node may take to start a process that imports this package
TOKEN = "InvalidAuthToken"  # in what a cluster answers


@dataclass(frozen=True)
class Crew:
    """Who works beside each other, and where.

    Attributes:
        num: workers; with 0 this process evaluates, and one worker trains.
        address: of a Ray cluster that this machine is a node of, "auto" or HOST:PORT; "": Ray is started on this machine alone.
    """

    num: int = 0
    address: str = ""

    def check(self, least: int = 0) -> None:
        """Refuses what cannot be, before anything is trained for it.

        Raises:
            ValueError: more workers than this machine has cores, fewer than `least`, an address that Ray's driver cannot join, or one without workers.
        """
        if not self.address and not least <= self.num <= cores():
            raise ValueError(
                f"--workers: one core each is needed: got {self.num}; accepted: {least} to {cores()} on this machine. Ask for fewer."
            )
        if self.address and self.num < 1:
            raise ValueError(f"--ray-address: nobody would work there: got {self.num} workers; accepted: 1 or more. Give --workers.")
        if "://" in self.address:
            raise ValueError(
                f"--ray-address: Ray's client cannot train networks beside each other: got {self.address!r}; accepted: auto or HOST:PORT. Make this "
                "machine a node (ray start --address=HOST:PORT), and start the command here."
            )


class Share(NamedTuple):
    """What each worker takes."""

    cpus: int  # and so many threads
    gpus: float  # a whole one, or a part


Node = tuple[float, float]  # what is on a node: CPUs, GPUs


class RaySession:
    """Ray for a crew, from its first use until the context ends."""

    def __init__(self, crew: Crew) -> None:
        self.crew, self._running = crew, False
        self._shares = dict[bool, Share]()

    def __enter__(self) -> Self:
        return self

    def start(self, payload_bytes: int = 0) -> None:
        """Starts or joins Ray where that was not done yet: it takes seconds, on a busy machine many. On this machine there is then room for a
        payload of so many bytes.

        Raises:
            ValueError: there is no such cluster, or this machine is none of its nodes.
        """
        if not self._running:
            self._running = True  # half started, it has to be stopped too
            _join(self.crew.address) if self.crew.address else _start(payload_bytes)

    def share(self, gpu: bool) -> Share:
        """What each of the crew takes where Ray runs, by what was there when this was asked first; says so where not all have room.

        Raises:
            ValueError: GPUs are wanted, and there is none.
        """
        if gpu in self._shares:
            return self._shares[gpu]
        nodes, num = [*_nodes().values()], max(1, self.crew.num)
        if gpu and not any(gpus >= 1 for _, gpus in nodes):
            raise ValueError(
                f"--ray-address: no GPU in the cluster: got {self.crew.address!r}; accepted: nodes with GPUs, or --device cpu. Add some."
            )
        share = self._shares[gpu] = share_of(num, nodes, gpu, whole=bool(self.crew.address))
        if (fit := room(nodes, share)) < num:
            print(f"Of {num} workers {fit} have room in the cluster now. Others join when it grows.", flush=True)
        return share

    def __exit__(self, *_: object) -> None:
        if self._running:
            import ray

            # A handle that is collected asks for no session, and each Ray numbers its actors anew: none may be left for the next one.
            gc.collect()
            ray.shutdown()


# ---- room ----------------------------------------------------------------------------------------------------------------


def gpu_share(num: int, gpus: int) -> float:
    """The GPU, or part of one, that each of so many workers takes, so that all have room: a worker never stands on two GPUs.

    Three workers on two GPUs take a half each; with two thirds the third would wait for ever. Ray rounds to four decimals, so we round down.
    """
    return 10_000 // math.ceil(num / gpus) / 10_000


def share_of(num: int, nodes: Sequence[Node], gpu: bool, whole: bool = False) -> Share:
    """The largest share with which so many workers have room on these nodes; where there is none, one CPU each.

    With `whole` each takes a whole GPU, and as many as there are GPUs have to have room: who waits for one is what makes a cluster grow.
    """
    gpus, there = 0.0, sum(int(gpus) for _, gpus in nodes)
    if gpu:
        gpus, num = (1.0, min(num, there)) if whole else (gpu_share(num, there), num)
    most = max((int(cpus) for cpus, _ in nodes), default=1)
    return next((share for cpus in range(most, 0, -1) if room(nodes, share := Share(cpus, gpus)) >= num), Share(1, gpus))


def room(nodes: Sequence[Node], share: Share) -> int:
    """How many workers that take so much each find room on these nodes."""
    by_gpus = [int(gpus) * int(1 / share.gpus + 1e-9) if share.gpus else math.inf for _, gpus in nodes]
    return int(sum(min(cpus // share.cpus, most) for (cpus, _), most in zip(nodes, by_gpus, strict=True)))


# ---- what nodes see ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sight:
    """What a worker has to find on its node: the same program, a small file in the run's folder, the folders of the images.

    Attributes:
        file: in the run's folder.
        content: of the file.
        folders: others that must be there; the first is where the command was started.
        program: as `program_digest` gives it.
    """

    file: Path
    content: str
    folders: tuple[Path, ...]
    program: str

    def missing(self) -> str:
        """What is not here as it is where the command was started, in words; "" where all is."""
        if (digest := program_digest()) != self.program:
            return f"another version of this program, {digest} in place of {self.program}"
        with contextlib.suppress(OSError):
            if self.file.read_text() == self.content:
                return next((f"no {folder}" for folder in self.folders if not folder.exists()), "")
        return f"not the same {self.file.parent}"


@contextlib.contextmanager
def sight(folder: Path, *others: Path) -> Iterator[Sight]:
    """Writes a small file into a folder, for as long as the block lasts, by which nodes tell that they see this folder."""
    folder = folder.resolve()
    file, content = folder / f".seen-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    file.write_text(content)
    try:
        yield Sight(file, content, (Path.cwd(), *others), program_digest())
    finally:
        file.unlink(missing_ok=True)


def check_nodes(crew: Crew, folder: Path, *others: Path) -> None:
    """Looks from every node of a cluster at the run's folder and others, before anything is trained; nothing to do on this machine alone.

    Raises:
        ValueError: no such cluster, or a node that lacks something; one line.
    """
    if not crew.address:
        return
    with RaySession(crew) as running, sight(folder, *others) as wanted:
        running.start()
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look: Any = ray.remote(Sight.missing)
        asked = {}
        for node, name in _names().items():
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            asked[look.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(wanted)] = name
        ready, _ = ray.wait([*asked], num_returns=len(asked), timeout=LOOK_SECONDS)
        for task, name in asked.items():
            try:
                found = ray.get(task) if task in ready else f"no answer within {LOOK_SECONDS} s"
            except (ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError, ray.exceptions.TaskUnschedulableError):
                continue  # it left meanwhile
            except ray.exceptions.RayError as error:
                found = f"no process that could look: {str(error).strip().splitlines()[-1]}"
            if found:
                raise ValueError(
                    f"--ray-address: node {name} is not as this one: got {found}; accepted: the same program, {wanted.file.parent} and {Path.cwd()} "
                    "on every node. Share these folders, install the same version there, or take the node away."
                )


# ---- Ray itself ----------------------------------------------------------------------------------------------------------


def _start(payload_bytes: int) -> None:
    """Starts Ray quietly, for this process alone. It gives itself half a minute, which may be short on a busy machine: it is tried again."""
    for left in range(TRIES - 1, -1, -1):
        try:
            with _quietly() as ray, _unheard():
                os.environ["PYTHONPATH"] = os.pathsep.join(
                    filter(None, sys.path)
                )  # workers import what this process can, wherever it was started
                ray.init(
                    address="local",  # whatever RAY_ADDRESS says
                    num_cpus=cores(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=128 * 2**20 + 2 * payload_bytes,
                )
            return
        except Exception as error:  # Ray raises the plain one when its processes take too long
            ray.shutdown()
            cause, home = " ".join(str(error).split()) or type(error).__name__, isinstance(error, OSError) and error.filename
            if home and str(home).startswith(os.path.expanduser("~")):
                raise ValueError(
                    f"--workers: Ray does not start: got '{cause[:200]}'; accepted: a home that can be written. Set HOME to such a folder."
                ) from error
            if not left:
                raise ValueError(
                    f"--workers: Ray does not start: got '{cause[:200]}'; accepted: a machine with cores and memory to spare. Try again when it is less busy."
                ) from error


def _join(address: str) -> None:
    """Joins a cluster that this machine is a node of."""
    try:
        with _quietly() as ray:
            _await_answer(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"--ray-address: no cluster that this machine is a node of: got {address!r} ({cause[:200]}); accepted: auto or HOST:PORT, of a cluster "
            "with this version of Ray and Python. Begin one with: ray start --head; or join one with: ray start --address=HOST:PORT."
        ) from None


def _await_answer(address: str) -> None:
    """Raises a ConnectionError, or another OSError, where no cluster answers in time; Ray itself would try for minutes."""
    from ray._private.services import canonicalize_bootstrap_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # of Cython

    found, answers = str(canonicalize_bootstrap_address(address)), list[str]()
    host, _, port = found.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()

    def ask() -> None:
        try:
            GcsClient(address=found)
            answers.append("")
        except Exception as error:
            answers.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(CONNECT_SECONDS)
    if answers and TOKEN in answers[0]:
        raise ConnectionError("its token is another one, or RAY_AUTH_MODE: give all nodes and this command the same")
    if answers != [""]:
        raise ConnectionError(answers[0] if answers else f"no answer of Ray's within {CONNECT_SECONDS:g} s")


@contextlib.contextmanager
def _quietly() -> Iterator[Any]:
    """Ray's package, without its warnings and calls to the outside."""
    with surroundings_kept("RAY_USAGE_STATS_ENABLED", "PYTHONPATH"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what its next versions will do
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        yield ray


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """What is started in the block never hears the signals that stop this program, as Ray itself sees to with Ctrl-C's. A batch system sends them to
    every process of a command: without Ray, trainings that are to write their checkpoints would be waited for in vain."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _alive() -> list[Mapping[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _nodes() -> dict[str, Node]:
    """By its id, what is on each node that is alive."""
    return {node["NodeID"]: (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in _alive()}


def _names() -> dict[str, str]:
    """By their ids the addresses of nodes that workers may come to."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in _alive() if node["Resources"].get("CPU")}


@contextlib.contextmanager
def surroundings_kept(*names: str) -> Iterator[None]:
    """Puts these environment variables back (where none is named: all), and our signal handlers: Ray installs one for SIGTERM that prints a
    stack trace and exits, and Tune one for SIGUSR1."""
    before = {name: os.environ.get(name) for name in names or os.environ}
    main = threading.current_thread() is threading.main_thread()  # handlers are the main thread's alone, Ray's too
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)} if main else {}
    try:
        yield
    finally:
        for name in names or list(os.environ):
            os.environ.pop(name, None)
        os.environ |= {name: value for name, value in before.items() if value is not None}
        for number, handler in handlers.items():
            signal.signal(number, handler)
