"""Workers of which some are lost, on nodes that are made up: whoever fails for a node's sake is evaluated elsewhere, and nothing else changes."""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from errors import refused
from faults import happened
from toy_space import FRAME, accuracy_of

from nas.networks.architecture import Architecture, Stage
from nas.runs.interrupt import Stopped
from nas.searching import ray_workers
from nas.searching.ray_cluster import Crew, Share
from nas.searching.ray_workers import Workers
from nas.searching.search import Evaluation

ARCHITECTURES = [Architecture(FRAME, 4, (Stage(width, ("conv",), 2.0),)) for width in range(8, 40, 2)]
EXPECTED = [Evaluation(accuracy_of(each)) for each in ARCHITECTURES]


class Death(BaseException):
    """The end of a worker's process."""


class TaskError(Exception):
    """As Ray's: what a task raised is its cause, and its text says where."""

    def __init__(self, cause: Exception, node: str) -> None:
        super().__init__(f"ray::work() (pid=1, ip={node})")
        self.cause = cause


class ActorError(Exception):
    pass


@dataclass(eq=False)
class Actor:
    """A worker: a node from when there is room, and what runs on it."""

    ray: Ray
    made: Any
    node: str = ""
    dead: bool = False

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: Task(self, getattr(self.made, name), given))


@dataclass(eq=False)
class Task:
    actor: Actor
    work: Callable[..., Any]
    given: tuple[Any, ...]
    done: bool = False
    result: Any = None

    def can_run(self) -> bool:
        actor, ray = self.actor, self.actor.ray
        if not actor.node:
            room = [node for node, slots in ray.slots.items() if sum(each.node == node and not each.dead for each in ray.actors) < slots]
            actor.node = ray.draw.choice(room) if room else ""
        return bool(actor.node)

    def run(self) -> None:
        self.actor.ray.here = self.actor.node
        try:
            self.result = self.work(*self.given)
        except Exception as error:
            self.result = TaskError(error, self.actor.node)
        except Death:
            self.result, self.actor.dead = ActorError(), True
        self.done, self.actor.ray.here = True, "the driver"


@dataclass
class Ray:
    """What of Ray workers are made with: nodes with room for so many each, on which tasks end in an order that is drawn."""

    slots: dict[str, int]
    seed: int = 0
    actors: list[Actor] = field(default_factory=list)
    here: str = "the driver"
    now: float = 0.0  # seconds, which pass while one waits in vain
    exceptions: ClassVar[Any] = SimpleNamespace(
        RayTaskError=TaskError, RayActorError=ActorError, OutOfMemoryError=type("NoMemory", (Exception,), {})
    )

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def remote(self, kind: Any) -> Any:
        def make() -> Actor:
            self.actors.append(Actor(self, kind()))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def put(self, content: Any) -> Any:
        return content

    def wait(self, tasks: list[Task], num_returns: int, timeout: float) -> tuple[list[Task], list[Task]]:
        able = [task for task in tasks if task.can_run()]
        ready = self.draw.sample(able, min(len(able), num_returns))
        for task in ready:
            if not task.done:
                task.run()
        if len(ready) < num_returns:
            self.now += timeout
            assert self.now < 3 * ray_workers.START_SECONDS, "it waits for ever"
        return ready, [task for task in tasks if task not in ready]

    def get(self, task: Task) -> Any:
        assert task.done
        if isinstance(task.result, Exception):
            raise task.result
        return task.result

    def kill(self, actor: Actor) -> None:
        actor.dead = True

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: self.here)


class Session:
    def __init__(self, crew: Crew) -> None: ...
    def start(self, payload_bytes: int) -> None: ...
    def share(self, gpu: bool) -> Share:
        return Share(1, 0)

    def __exit__(self, *_: object) -> None: ...


Meets = Callable[[str], object]  # what happens on a node, by its name


def nothing(node: str) -> None:
    pass


@dataclass
class Cluster:
    """Evaluates on nodes where something happens when a worker is built, or evaluates; notes who evaluated, and who tried to."""

    ray: Ray
    num: int = 4
    address: str = "auto"
    building: Meets = nothing
    evaluating: Meets = nothing
    programs: dict[str, str] = field(default_factory=dict)
    tried: list[tuple[str, str]] = field(default_factory=list)  # network, node
    done: list[tuple[str, str]] = field(default_factory=list)
    stop: Callable[[], bool] = lambda: False

    def factory(self, payload: None, threads: int) -> Callable[[Architecture], Evaluation]:
        self.building(self.ray.here)

        def evaluate(architecture: Architecture) -> Evaluation:
            self.tried.append((architecture.key, self.ray.here))
            self.evaluating(self.ray.here)
            self.done.append(self.tried[-1])
            return Evaluation(accuracy_of(architecture))

        return evaluate

    def evaluated(self, architectures: Iterable[Architecture] = ARCHITECTURES) -> list[Evaluation]:
        with self.opened() as workers:
            return list(workers.evaluate(architectures))

    @contextlib.contextmanager
    def opened(self) -> Iterator[Workers]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "ray", self.ray)
            patch.setattr(ray_workers, "RaySession", Session)
            patch.setattr(ray_workers, "time", SimpleNamespace(monotonic=lambda: self.ray.now))
            patch.setattr(ray_workers, "program_digest", lambda: self.programs.get(self.ray.here, "ours"))
            with Workers(Crew(self.num, self.address), self.factory, None, stop=self.stop) as workers:
                yield workers


def on(sick: str, what: Exception | Death) -> Meets:
    def happens(node: str) -> None:
        if node in sick:
            raise what

    return happens


def at_first(times: int, what: Exception | Death) -> Meets:
    left = iter([what] * times)

    def happens(node: str) -> None:
        for each in itertools.islice(left, 1):
            raise each

    return happens


SICK: dict[str, Callable[[Ray], Cluster]] = {
    "raises where it is built": lambda ray: Cluster(ray, building=on("b", OSError("no such library"))),
    "dies where it is built": lambda ray: Cluster(ray, building=on("b", Death())),
    "has another program": lambda ray: Cluster(ray, programs={"b": "theirs"}),
    "raises where it evaluates": lambda ray: Cluster(ray, evaluating=on("b", RuntimeError("CUDA error: unspecified launch failure"))),
}


@pytest.mark.parametrize("sick", SICK)
def test_what_one_node_cannot_do_others_do(sick: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In whatever order things end, also where the others come when nothing else is left to be done."""
    for seed, num in itertools.product(range(40), (len(ARCHITECTURES), 1)):
        cluster = SICK[sick](Ray({"a": 2, "b": 2, "c": 1}, seed))
        assert cluster.evaluated(ARCHITECTURES[:num]) == EXPECTED[:num]
        assert sorted(key for key, _ in cluster.done) == sorted(each.key for each in ARCHITECTURES[:num]), "each once"
        assert len(set(cluster.tried)) == len(cluster.tried), "none again where it failed"
        assert "b" not in {node for _, node in cluster.done}
        said = capsys.readouterr().out.splitlines()
        assert len(said) == len(set(said)) <= 2 and all("on b is given up" in line or "left out" in line for line in said), said
    happened("a node on which workers fail (made up)", sick, "its networks are evaluated elsewhere, each once", 80)


def test_what_fails_once_is_tried_again_where_there_is_one_node_alone() -> None:
    for seed in range(10):
        cluster = Cluster(Ray({"a": 2}, seed), num=2, address="", evaluating=at_first(1, RuntimeError("CUDA error")))
        assert cluster.evaluated() == EXPECTED and len(cluster.tried) == len(EXPECTED) + 1


def meeting_a_mistake(where: str, seed: int) -> Cluster:
    cluster, mistake = Cluster(Ray({"a": 2, "b": 1, "c": 1}, seed)), on("abc", LookupError("a mistake"))

    def at_one(node: str) -> None:
        if cluster.tried[-1][0] == ARCHITECTURES[3].key:
            mistake(node)

    if where == "building":
        cluster.building = mistake
    else:
        cluster.evaluating = mistake if where == "evaluating" else at_one
    return cluster


@pytest.mark.parametrize("where", ["building", "evaluating", "evaluating one"])
def test_what_happens_everywhere_is_raised_as_it_was(where: str) -> None:
    """Of one network after it was tried on every node and all others are done; of all at once."""
    for seed in range(20):
        cluster = meeting_a_mistake(where, seed)
        with pytest.raises(LookupError) as raised:
            cluster.evaluated()
        assert type(raised.value) is LookupError and raised.value.args == ("a mistake",)
        assert len(cluster.ray.actors) < 4 * cluster.num, "nor are workers begun for ever"
        if where == "evaluating one":
            tried = {node for key, node in cluster.tried if key == ARCHITECTURES[3].key}
            assert tried == {*"abc"} and len(cluster.done) == len(EXPECTED) - 1


def test_workers_that_died_before_they_were_ready_are_all_replaced() -> None:
    """Two deaths while two start, and then a worker that is ready: it does not wait alone for another that nobody begins."""
    for seed in range(10):
        cluster = Cluster(Ray({"a": 2}, seed), num=2, address="", building=at_first(2, Death()))
        assert cluster.evaluated() == EXPECTED
        assert sum(not each.dead for each in cluster.ray.actors) == 2
    happened("workers die while they are built (made up)", "evaluations", "others are begun", 10)


def test_where_all_die_before_they_are_ready_it_is_said() -> None:
    with refused("--workers", "ended while they were built", "got 4 workers"):
        Cluster(Ray({"a": 4}), building=on("a", Death())).evaluated()


# ---- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [1, 4])
def test_a_wish_to_stop_is_heeded_while_workers_are_built_and_while_they_evaluate(num: int) -> None:
    full = Ray({})  # where nobody finds room
    with pytest.raises(Stopped):
        Cluster(full, num, stop=lambda: full.now >= 3).evaluated()
    assert full.now < 5, "not only where building has taken too long"
    cluster = Cluster(Ray({"a": 4}), num)
    cluster.stop = lambda: len(cluster.done) >= 3
    with pytest.raises(Stopped):
        cluster.evaluated()
    assert len(cluster.done) == 3


def test_a_measurement_waits_for_who_is_at_work_and_not_for_ever_for_who_finds_no_room() -> None:
    """One of two workers dies, and something else takes its core."""

    def dies(node: str) -> None:
        if len(cluster.tried) == 1:
            cluster.ray.slots["a"] = 1
            raise Death

    cluster = Cluster(Ray({"a": 2}), num=2, address="", evaluating=dies)
    with cluster.opened() as workers:
        results = workers.evaluate(ARCHITECTURES)
        assert next(results) == EXPECTED[0]
        workers.settle()
        assert cluster.ray.now <= ray_workers.START_SECONDS and len(cluster.done) >= 2 - len(workers._actors)
        waited = cluster.ray.now
        workers.settle()
        assert cluster.ray.now == waited, "nor for it once more"
        assert list(results) == EXPECTED[1:]
