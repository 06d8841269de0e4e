"""Workers under Ray that evaluate networks beside each other, each built once; they may come and go."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from nas.networks.architecture import Architecture
from nas.searching.ray_cluster import START_SECONDS, Crew, RaySession
from nas.searching.search import Evaluation

EvaluateOne = Callable[[Architecture], Evaluation]
Factory = Callable[[Any, int], EvaluateOne]


class _Worker:
    """What runs in a worker's process."""

    def build(self, factory: Factory, payload: Any, threads: int) -> None:
        # Not in __init__: there an error would reach the driver as a dead actor, without its message.
        self._evaluate = factory(payload, threads)

    def evaluate(self, architecture: Architecture) -> Evaluation:
        return self._evaluate(architecture)


class Workers:
    """Processes that each hold an evaluator; a context manager.

    A worker that dies is replaced, on whatever node has room. On this machine all have to be there before the first evaluates; in a cluster one
    is enough, and the others join as they are ready.

    Args:
        crew: how many, and where.
        factory: makes an evaluator of the payload, once in each worker, that uses so many threads; importable by name, or a `functools.partial`
            of such.
        payload: handed over once to each node, through Ray's object store (weights as bytes or numpy arrays).
        gpu: whether each works on a GPU, or its part of one.
    """

    def __init__(self, crew: Crew, factory: Factory, payload: Any, *, gpu: bool = False) -> None:
        self._crew, self._factory, self._payload, self._gpu = crew, factory, payload, gpu
        self._ray = RaySession(crew)
        self._actors: dict[int, Any] = {}  # by number, those that are ready
        self._building: dict[Any, tuple[int, Any]] = {}  # task -> number and actor
        self._running: dict[Any, tuple[int, Architecture, int]] = {}  # task -> place in the order, architecture, number of the actor
        self._begun = self._in_vain = 0  # actors in all, and those that died one after the other before they were ready

    def __enter__(self) -> Self:
        """Starts Ray on this machine alone or joins a cluster, and starts the workers.

        Raises:
            ValueError: more workers than the machine has cores, no such cluster, or they do not start.
        """
        self._crew.check(least=1)
        import ray

        try:
            self._ray.start(_size(self._payload))
            self._share = self._ray.share(self._gpu)
            self._payload = ray.put(self._payload)
            for _ in range(self._crew.num):
                self._begin()
            while len(self._actors) < (1 if self._crew.address else self._crew.num):
                self._await_one()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for held in (self._actors, self._building, self._running):
            held.clear()
        self._ray.__exit__()

    def evaluate(self, architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
        """Evaluations, lazily and in the order of the architectures, whoever finishes first; one that ends its worker twice has failed.

        An architecture is asked for when a worker is free for it.

        Raises:
            ValueError: no worker is left, and none comes.
            Exception: what the evaluator raised.
        """
        import ray

        coming, again, died = enumerate(architectures), deque[tuple[int, Architecture]](), set[int]()
        results: dict[int, Evaluation] = {}
        self._running, wanted, all_given = {}, 0, False
        while True:
            # One task each, so that who ends a worker is known; a second one in a queue would save 3 ms a task.
            for number in self._actors.keys() - {busy for *_, busy in self._running.values()}:
                task = again.popleft() if again else next(coming, None)
                if task is None:
                    all_given = True
                    break
                self._running[self._actors[number].evaluate.remote(task[1])] = *task, number
            if wanted in results:
                yield results.pop(wanted)
                wanted += 1
                continue
            if all_given and not again and not self._running:
                return
            if (done := self._await_one()) is None:
                continue
            index, architecture, number = self._running.pop(done)
            try:
                results[index] = _get(done)
            except (
                ray.exceptions.RayActorError,
                ray.exceptions.OutOfMemoryError,
            ):  # it or its node died, or Ray ended it for want of memory
                if index in died:
                    results[index] = Evaluation(failure="ended its worker twice")
                else:
                    again.append((index, architecture))
                died.add(index)
                ray.kill(self._actors.pop(number))
                self._begin()

    def settle(self) -> None:
        """Waits until no worker is at work, so that a latency can be taken beside none; their results are kept."""
        import ray

        # In a cluster who is not ready yet may wait for another machine.
        busy = [*self._running, *([] if self._crew.address else self._building)]
        ray.wait(busy, num_returns=len(busy)) if busy else None

    def _begin(self) -> None:
        """Starts a worker, and has it built with what it evaluates with."""
        import ray

        # No restarts by Ray: an architecture that always ends its worker would use them up and leave no worker at all.
        options = {"num_cpus": self._share.cpus, "num_gpus": self._share.gpus, "max_restarts": 0, "max_task_retries": 0}
        actor: Any = ray.remote(_Worker).options(**options).remote()
        self._building[actor.build.remote(self._factory, self._payload, self._share.cpus)] = self._begun, actor
        self._begun += 1

    def _await_one(self) -> Any:
        """Waits for what comes first: an evaluation, which is given, or a worker that is ready or died before it was.

        Raises:
            ValueError: there is no worker, and none is ready in time; or they die one after the other.
        """
        import ray

        ready, _ = ray.wait([*self._running, *self._building], num_returns=1, timeout=None if self._running else START_SECONDS)
        if not ready:
            raise ValueError(f"--workers: not ready within {START_SECONDS:g} s: {self._wanted()}")
        if ready[0] in self._running:
            return ready[0]
        number, actor = self._building.pop(ready[0])
        try:
            _get(ready[0])
            self._actors[number], self._in_vain = actor, 0
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
            self._in_vain += 1
            if self._in_vain < self._crew.num:  # a node that dies takes several with it
                self._begin()
            elif not self._actors and not self._building:
                raise ValueError(f"--workers: ended while they were built, probably for want of memory: {self._wanted()}") from None
        return None

    def _wanted(self) -> str:
        return f"got {self._crew.num} workers; accepted: what cores, GPUs, memory allow. Take fewer."


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
