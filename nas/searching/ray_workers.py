"""Workers under Ray that evaluate networks beside each other, each built once.

Ray is imported where it is used: it takes 0.4 s and 650 MB, which a search without workers need not pay.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from nas.machine import cores
from nas.networks.architecture import Architecture
from nas.searching.search import Evaluation

EvaluateOne = Callable[[Architecture], Evaluation]

START_SECONDS = 300  # what workers may take to start; Ray itself would wait for ever for what the machine does not have


class _Worker:
    """What runs in a worker's process."""

    def build(self, factory: Callable[[Any], EvaluateOne], payload: Any) -> None:
        # Not in __init__: there an error would reach the driver as a dead actor, without its message.
        self._evaluate = factory(payload)

    def evaluate(self, architecture: Architecture) -> Evaluation:
        return self._evaluate(architecture)


class Workers:
    """Processes that each hold an evaluator; a context manager.

    Args:
        num: how many; at most the machine's cores.
        factory: makes an evaluator of the payload, once in each worker; importable by name, or a `functools.partial` of such.
            It also sets the number of threads: `cores() // num`, at least 1, is what a worker may take.
        payload: handed over once, through Ray's object store (weights as bytes or numpy arrays).
        num_gpus: GPUs, or the fraction of one, that each worker takes.
    """

    def __init__(self, num: int, factory: Callable[[Any], EvaluateOne], payload: Any, *, num_gpus: float = 0.0) -> None:
        self._num, self._num_gpus = num, num_gpus
        self._factory, self._payload = factory, payload
        self._actors: list[Any] = []
        self._running: dict[Any, tuple[int, int]] = {}  # task -> index of its architecture, of its actor

    def __enter__(self) -> Self:
        """Starts Ray on this machine alone, and the workers.

        Raises:
            ValueError: more workers than the machine has cores, or they do not start.
        """
        check_workers(self._num, least=1)
        _start_ray(self._num, _size(self._payload))
        import ray

        try:
            self._payload = ray.put(self._payload)
            self._actors = [self._start() for _ in range(self._num)]
            self._build(self._actors)
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[Evaluation]:
        """Evaluations, lazily and in the order of the architectures, whoever finishes first; one that ends its worker twice has failed.

        Raises:
            Exception: what the evaluator raised.
        """
        import ray

        waiting, died = deque(range(len(architectures))), set()
        results: dict[int, Evaluation] = {}
        self._running = {}
        for wanted in range(len(architectures)):
            while wanted not in results:
                idle = set(range(self._num)) - {busy for _, busy in self._running.values()}
                # One task each, so that who ends a worker is known; a second one in a queue would save 3 ms a task.
                while waiting and idle:
                    index, position = waiting.popleft(), idle.pop()
                    self._running[self._actors[position].evaluate.remote(architectures[index])] = index, position
                (task,), _ = ray.wait(list(self._running), num_returns=1)
                index, position = self._running.pop(task)
                try:
                    results[index] = _get(task)
                except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):  # it died, or Ray ended it for want of memory
                    if index in died:
                        results[index] = Evaluation(failure="ended its worker twice")
                    else:
                        waiting.appendleft(index)
                    died.add(index)
                    ray.kill(self._actors[position])
                    self._actors[position] = self._start()
                    self._build([self._actors[position]])
            yield results.pop(wanted)

    def settle(self) -> None:
        """Waits until no worker is at work, so that a latency can be taken beside none; their results are kept."""
        import ray

        ray.wait(list(self._running), num_returns=len(self._running)) if self._running else None

    def _start(self) -> Any:
        import ray

        # No restarts by Ray: an architecture that always ends its worker would use them up and leave no worker at all.
        return ray.remote(_Worker).options(num_cpus=1, num_gpus=self._num_gpus, max_restarts=0, max_task_retries=0).remote()

    def _build(self, actors: list[Any]) -> None:
        """Waits until the actors have what they evaluate with.

        Raises:
            ValueError: they take too long, or end.
        """
        import ray

        try:
            _get([actor.build.remote(self._factory, self._payload) for actor in actors], START_SECONDS)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            late = isinstance(error, ray.exceptions.GetTimeoutError)
            why = f"not ready within {START_SECONDS:g} s" if late else "ended while they were built, probably for want of memory"
            raise ValueError(f"--workers: {why}: got {self._num} workers; accepted: what cores, GPUs, memory allow. Take fewer.") from None


def gpu_share(num: int, gpus: int) -> float:
    """The GPU, or part of one, that each of so many workers takes, so that all have room: a worker never stands on two GPUs.

    Three workers on two GPUs take a half each; with two thirds the third would wait for ever. Ray rounds to four decimals, so we round down.
    """
    return 10_000 // math.ceil(num / gpus) / 10_000


def check_workers(num: int, least: int = 0) -> None:
    """Refuses more workers than cores, before anything is trained for them.

    Raises:
        ValueError: too many, or fewer than `least`.
    """
    if not least <= num <= cores():
        raise ValueError(f"--workers: one core each is needed: got {num}; accepted: 0 to {cores()} on this machine. Ask for fewer.")


def _get(tasks: Any, seconds: float | None = None) -> Any:
    """The results of tasks; an error in a worker is raised as it was there."""
    import ray

    try:
        return ray.get(tasks, timeout=seconds)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None


def _size(payload: Any) -> int:
    """Bytes of a payload in the object store; arrays are counted, not copied."""
    buffers: list[pickle.PickleBuffer] = []
    return len(pickle.dumps(payload, protocol=5, buffer_callback=buffers.append)) + sum(buffer.raw().nbytes for buffer in buffers)


class LocalRay:
    """Ray on this machine alone, from its first use until the context ends."""

    def __init__(self, num_cpus: int) -> None:
        self._num_cpus, self._running = num_cpus, False

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Starts Ray where that was not done yet: it takes seconds, on a busy machine many."""
        if not self._running:
            self._running = True  # half started, it has to be stopped too
            _start_ray(self._num_cpus, 0)

    def __exit__(self, *_: object) -> None:
        if self._running:
            import ray

            ray.shutdown()


def _start_ray(num_cpus: int, payload_bytes: int) -> None:
    """Starts Ray quietly, for this process alone."""
    with surroundings_kept("RAY_USAGE_STATS_ENABLED", "PYTHONPATH"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what its next versions will do
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no calls to the outside
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # workers import what this process can, wherever it was started
        import ray

        ray.init(
            address="local",  # whatever RAY_ADDRESS says
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=128 * 2**20 + 2 * payload_bytes,
        )


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
