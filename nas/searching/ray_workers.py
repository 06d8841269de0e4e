"""Ray's room: workers that evaluate networks beside each other, each built once.

Ray is imported where it is used: it takes 0.4 s and 650 MB, which a search without workers need not pay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from nas.networks.architecture import Architecture

Evaluator = Callable[[Architecture], float]

QUEUED = 2  # tasks handed to a worker at a time: with one it idles between two, 122 against 178 short tasks a second


class _Worker:
    """What runs in a worker's process."""

    def build(self, factory: Callable[[Any], Evaluator], payload: Any) -> None:
        # Not in __init__: there an error would reach the driver as a dead actor, without its message.
        self._evaluator = factory(payload)

    def evaluate(self, architecture: Architecture) -> float:
        return float(self._evaluator(architecture))


class Workers:
    """Processes that each hold an evaluator; a context manager.

    Args:
        num: how many; at most the machine's cores.
        factory: makes an evaluator of the payload, once in each worker; importable by name, or a `functools.partial` of such.
            It also sets the number of threads: `cores() // num`, at least 1, is what a worker may take.
        payload: handed over once, through Ray's object store (weights as bytes or numpy arrays).
        num_gpus: GPUs, or the fraction of one, that each worker takes.
    """

    def __init__(self, num: int, factory: Callable[[Any], Evaluator], payload: Any, *, num_gpus: float = 0.0) -> None:
        self._num, self._num_gpus = num, num_gpus
        self._factory, self._payload = factory, payload
        self._actors: list[Any] = []
        self._queues: list[deque[Any]] = []  # per actor, what was handed to it, oldest first

    def __enter__(self) -> Self:
        """Starts Ray on this machine alone, and the workers.

        Raises:
            ValueError: more workers or GPUs than the machine has; asked of Ray, that would wait for ever.
        """
        check_workers(self._num, least=1)
        _start_ray(self._num, _size(self._payload))
        import ray

        try:
            gpus = ray.cluster_resources().get("GPU", 0)
            if self._num * self._num_gpus > gpus + 1e-6:
                raise ValueError(
                    f"--workers: not enough GPUs: got {self._num} workers with {self._num_gpus:g} each; "
                    f"accepted: {gpus:g} on this machine in all. Ask for fewer, or take --device cpu."
                )
            self._payload = ray.put(self._payload)
            self._actors = [self._start() for _ in range(self._num)]
            self._queues = [deque() for _ in range(self._num)]
            _get([actor.build.remote(self._factory, self._payload) for actor in self._actors])
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def evaluate(self, architectures: Sequence[Architecture]) -> Iterator[float]:
        """Accuracies, lazily and in the order of the architectures, whoever finishes first.

        Raises:
            ValueError: an architecture ended its worker twice.
            Exception: what the evaluator raised.
        """
        import ray

        waiting = deque(enumerate(architectures))
        running: dict[Any, tuple[int, int]] = {}  # task -> index of the architecture, of the actor
        results: dict[int, float] = {}
        deaths: dict[int, int] = {}
        try:
            for wanted in range(len(architectures)):
                while wanted not in results:
                    # The emptiest queue first, so that the last tasks of a generation are spread over the workers.
                    while waiting and len(shortest := min(self._queues, key=len)) < QUEUED:
                        index, architecture = waiting.popleft()
                        position = self._queues.index(shortest)
                        task = self._actors[position].evaluate.remote(architecture)
                        shortest.append(task)
                        running[task] = index, position
                    (task,), _ = ray.wait(list(running), num_returns=1)
                    index, position = running[task]
                    try:
                        results[index] = _get(task)
                    except ray.exceptions.RayActorError:
                        # The oldest task was the one it worked on; those behind it are as good as new.
                        lost = [running.pop(task)[0] for task in self._queues[position]]
                        deaths[lost[0]] = deaths.get(lost[0], 0) + 1
                        if deaths[lost[0]] > 1:
                            raise self._deadly(architectures[lost[0]]) from None
                        waiting.extendleft((k, architectures[k]) for k in reversed(lost))
                        self._replace(position)
                    else:
                        del running[task]
                        self._queues[position].remove(task)
                yield results.pop(wanted)
        finally:
            # Left early: what has not begun does not begin. After an error the generator may outlive Ray, which a cancel would start anew.
            for task in running if ray.is_initialized() else ():
                ray.cancel(task)
            for queue in self._queues:
                queue.clear()

    def settle(self) -> None:
        """Waits until no worker is at work, so that a latency can be taken beside none; their results are kept."""
        import ray

        tasks = [task for queue in self._queues for task in queue]
        ray.wait(tasks, num_returns=len(tasks)) if tasks else None

    def _start(self) -> Any:
        import ray

        # No restarts by Ray: an architecture that always ends its worker would use them up and leave no worker at all.
        return ray.remote(_Worker).options(num_cpus=1, num_gpus=self._num_gpus, max_restarts=0, max_task_retries=0).remote()

    def _replace(self, position: int) -> None:
        """A new worker in the place of a dead one."""
        import ray

        ray.kill(self._actors[position])
        self._queues[position].clear()
        self._actors[position] = self._start()
        _get(self._actors[position].build.remote(self._factory, self._payload))

    def _deadly(self, architecture: Architecture) -> ValueError:
        return ValueError(
            f"--workers: architecture {architecture.key} ended its worker twice, most likely for want of memory: got {self._num} workers; "
            f"accepted: as many as fit. Take fewer; the same command then goes on from here."
        )


def check_workers(num: int, least: int = 0) -> None:
    """Refuses more workers than cores, before anything is trained for them.

    Raises:
        ValueError: too many, or fewer than `least`.
    """
    if not least <= num <= cores():
        raise ValueError(f"--workers: one core each is needed: got {num}; accepted: 0 to {cores()} on this machine. Ask for fewer.")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _get(tasks: Any) -> Any:
    """The results of tasks; an error in a worker is raised as it was there."""
    import ray

    try:
        return ray.get(tasks)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None


def _size(payload: Any) -> int:
    """Bytes of a payload in the object store; arrays are counted, not copied."""
    buffers: list[pickle.PickleBuffer] = []
    return len(pickle.dumps(payload, protocol=5, buffer_callback=buffers.append)) + sum(buffer.raw().nbytes for buffer in buffers)


def _start_ray(num_cpus: int, payload_bytes: int) -> None:
    """Starts Ray quietly, for this process alone, leaving our signal handlers as they are."""
    inherited = {
        "RAY_USAGE_STATS_ENABLED": "0",  # no calls to the outside
        # Workers import what this process can, wherever it was started from.
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with _environment(inherited), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what its next versions will do
        import ray

        with _signal_handlers_kept():
            ray.init(
                address="local",  # whatever RAY_ADDRESS says
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=128 * 2**20 + 2 * payload_bytes,
            )


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes begun meanwhile."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray installs a handler for SIGTERM that prints a stack trace and exits."""
    if threading.current_thread() is not threading.main_thread():  # handlers are the main thread's alone, Ray's too
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
