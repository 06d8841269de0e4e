"""Workers under Ray that evaluate networks beside each other, each built once; they may come and go."""

from __future__ import annotations

import math
import pickle
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from nas.machine import program_digest
from nas.networks.architecture import Architecture
from nas.runs.interrupt import Stopped
from nas.searching.ray_cluster import START_SECONDS, Crew, RaySession
from nas.searching.search import Evaluation

EvaluateOne = Callable[[Architecture], Evaluation]
Factory = Callable[[Any, int], EvaluateOne]
Task = tuple[int, Architecture]  # place in the order, architecture
LOOK = 0.5  # seconds between two questions whether to stop, while workers are waited for


class _Worker:
    """What runs in a worker's process."""

    def build(self, factory: Factory, payload: Any, threads: int, program: str) -> str:
        """Gives the node that it is on. Not in __init__: there an error would reach the driver as a dead actor, without its message."""
        import ray

        if (digest := program_digest()) != program:  # of a node that came when the others had been looked at
            raise ValueError(
                f"--ray-address: another version of this program: got {digest}; accepted: {program}. Install the same one there."
            )
        self._evaluate = factory(payload, threads)
        return str(ray.get_runtime_context().get_node_id())

    def evaluate(self, architecture: Architecture) -> Evaluation:
        return self._evaluate(architecture)


class Workers:
    """Processes that each hold an evaluator; a context manager.

    A worker that dies, or whose node cannot do what others can, is replaced, on whatever node has room. On this machine all have to be there before
    the first evaluates; in a cluster one is enough, and the others join as they are ready.

    Args:
        crew: how many, and where.
        factory: makes an evaluator of the payload, once in each worker, that uses so many threads; importable by name, or a `functools.partial`
            of such.
        payload: handed over once to each node, through Ray's object store (weights as bytes or numpy arrays).
        gpu: whether each works on a GPU, or its part of one.
        stop: asked now and then while workers are waited for.
    """

    def __init__(self, crew: Crew, factory: Factory, payload: Any, *, gpu: bool = False, stop: Callable[[], bool] = lambda: False) -> None:
        self._crew, self._factory, self._payload, self._gpu, self._stop = crew, factory, payload, gpu, stop
        self._ray = RaySession(crew)
        self._actors: dict[int, Any] = {}  # by number, those that are ready
        self._nodes: dict[int, str] = {}  # by number, where they are or were
        self._building: dict[Any, tuple[int, Any]] = {}  # task -> number and actor
        self._since: dict[int, float] = {}  # by number, when it was begun
        self._running: dict[Any, tuple[int, Architecture, int]] = {}  # task -> place in the order, architecture, number of the actor
        self._begun = self._in_vain = 0  # actors in all, and those that were lost one after the other before they were ready
        self._worked, self._said = False, set[str]()  # whether any network was evaluated; errors that were told

    def __enter__(self) -> Self:
        """Starts Ray on this machine alone or joins a cluster, and starts the workers.

        Raises:
            ValueError: more workers than the machine has cores, no such cluster, or they do not start.
            Stopped: `stop` became true.
        """
        self._crew.check(least=1)
        import ray

        try:
            self._ray.start(_size(self._payload))
            self._share = self._ray.share(self._gpu)
            self._payload = ray.put(self._payload)
            self._fill()
            while len(self._actors) < (1 if self._crew.address else self._crew.num) and self._building:
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
            Stopped: `stop` became true; what is at work is not waited for.
            Exception: what the evaluator raised of a network wherever there is a worker; or of all networks from the first one on.
        """
        import ray

        coming, again, died = enumerate(architectures), list[Task](), set[int]()
        raised: dict[int, set[str]] = {}  # by place in the order, the nodes on which its evaluation ended in an error
        results: dict[int, Evaluation] = {}
        self._running, wanted, all_given, last = {}, 0, False, set[int]()
        while True:
            # One task each, so that who ends a worker is known; a second one in a queue would save 3 ms a task.
            for number in (free := sorted(self._actors.keys() - {busy for *_, busy in self._running.values()})):
                elsewhere = next((task for task in again if self._nodes[number] not in raised.get(task[0], ())), None)
                if elsewhere:
                    again.remove(elsewhere)
                if (task := elsewhere or next(coming, None)) is None:
                    all_given = True
                else:
                    self._give(task, number)
            if wanted in results:
                yield results.pop(wanted)
                wanted += 1
                continue
            if all_given and not again and not self._running:
                return
            if all_given and free and not self._running and not self._one_is_coming():
                last.add(again[0][0])
                self._give(again.pop(0), free[0])  # who is longest there: those that failed were replaced
            if (done := self._await_one()) is None:
                continue
            index, architecture, number = self._running.pop(done)
            try:
                results[index], self._worked = ray.get(done), True
                continue
            except ray.exceptions.RayTaskError as error:  # of the network, of the program, or of this GPU or node alone
                raised.setdefault(index, set()).add(self._nodes[number])
                nodes = {self._nodes[each] for each in self._actors}
                if index in last or (not self._worked and len(raised) > self._crew.num and nodes <= set.union(*raised.values())):
                    raise _cause(error) from None
                self._say(error)
                again.append((index, architecture))
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
            self._fill()

    def _give(self, task: Task, number: int) -> None:
        self._running[self._actors[number].evaluate.remote(task[1])] = *task, number

    def _one_is_coming(self) -> bool:
        """Whether one of those that are being built will have been in time."""
        return bool(self._building and self._done(lambda: [*self._building], 1, START_SECONDS))

    def settle(self) -> None:
        """Waits until no worker is at work, so that a latency can be taken beside none; their results are kept.

        Who is not built in time is waited for no longer, as in a cluster who is not ready yet: it waits for room, and disturbs nobody.

        Raises:
            Stopped: `stop` became true.
        """

        def busy() -> list[Any]:
            young = [task for task, (number, _) in self._building.items() if time.monotonic() - self._since[number] < START_SECONDS]
            return [*self._running, *([] if self._crew.address else young)]

        self._done(busy)

    def _done(self, tasks: Callable[[], list[Any]], num: int | None = None, seconds: float = math.inf) -> list[Any]:
        """Waits until so many of the tasks (None: all that there are) are done, or for so long; gives those that are.

        Raises:
            Stopped: `stop` became true.
        """
        import ray

        end = time.monotonic() + seconds
        while waiting := tasks():
            if self._stop():
                raise Stopped("evaluating stopped")
            wanted = len(waiting) if num is None else num
            ready, _ = ray.wait(waiting, num_returns=wanted, timeout=max(0.0, min(LOOK, end - time.monotonic())))
            if len(ready) >= wanted or time.monotonic() >= end:
                return list(ready)
        return []

    def _fill(self) -> None:
        """Starts as many workers as are missing."""
        while len(self._actors) + len(self._building) < self._crew.num:
            self._begin()

    def _begin(self) -> None:
        """Starts a worker, and has it built with what it evaluates with."""
        import ray

        # No restarts by Ray: an architecture that always ends its worker would use them up and leave no worker at all.
        options = {"num_cpus": self._share.cpus, "num_gpus": self._share.gpus, "max_restarts": 0, "max_task_retries": 0}
        actor: Any = ray.remote(_Worker).options(**options).remote()
        building = actor.build.remote(self._factory, self._payload, self._share.cpus, program_digest())
        self._building[building], self._since[self._begun] = (self._begun, actor), time.monotonic()
        self._begun += 1

    def _await_one(self) -> Any:
        """Waits for what comes first: an evaluation, which is given, or a worker that is ready or was lost before it was.

        Raises:
            ValueError: there is no worker, and none is ready in time; or they die one after the other.
            Stopped: `stop` became true.
            Exception: what all of them raised while they were built.
        """
        import ray

        ready = self._done(lambda: [*self._running, *self._building], 1, math.inf if self._running else START_SECONDS)
        if not ready:
            raise ValueError(f"--workers: not ready within {START_SECONDS:g} s: {self._wanted()}")
        if ready[0] in self._running:
            return ready[0]
        number, actor = self._building.pop(ready[0])
        try:
            self._nodes[number] = ray.get(ready[0])
        except (ray.exceptions.RayTaskError, ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            self._in_vain += 1
            ray.kill(actor)
            raised = isinstance(error, ray.exceptions.RayTaskError)
            if raised and (self._actors or self._building or self._in_vain < self._crew.num):
                self._say(error)
            if self._in_vain < self._crew.num:  # a node that dies takes several with it
                self._fill()
            elif not self._actors and not self._building:
                dead = ValueError(f"--workers: ended while they were built, probably for want of memory: {self._wanted()}")
                raise (_cause(error) if raised else dead) from None
            else:
                self._tell(f"Of {self._crew.num} workers some are left out: they ended while they were built, one after the other.")
            return None
        self._actors[number], self._in_vain = actor, 0
        self._fill()  # those that were lost
        return None

    def _say(self, error: Any) -> None:
        """Once for the same error of a node, which Ray tells in its text alone."""
        where, what = re.search(r"\bip=([\w.:]+)", str(error)), " ".join(str(_cause(error)).split())
        self._tell(f"A worker{f' on {where[1]}' if where else ''} is given up, and another takes over: {what[:200]}")

    def _tell(self, line: str) -> None:
        if line not in self._said:
            print(line, flush=True)
        self._said.add(line)

    def _wanted(self) -> str:
        return f"got {self._crew.num} workers; accepted: what cores, GPUs, memory allow. Take fewer."


def _cause(error: Any) -> Exception:
    """An error in a worker as it was there."""
    return error.cause if isinstance(error.cause, Exception) else error


def _size(payload: Any) -> int:
    """Bytes of a payload in the object store; arrays are counted, not copied."""
    buffers: list[pickle.PickleBuffer] = []
    return len(pickle.dumps(payload, protocol=5, buffer_callback=buffers.append)) + sum(buffer.raw().nbytes for buffer in buffers)
