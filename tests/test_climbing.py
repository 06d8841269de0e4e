"""A ladder that is interrupted anywhere and continued trains, times and logs what one in one go does: with toy curves, so that many can be gone
through, but with the real choice of finalists, the real log and the real rules."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import nas.searching.tune as tune
from nas.networks.architecture import Architecture
from nas.quantities import parse_budgets
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching.candidates import Looks, candidates
from nas.searching.climbing import Climbing, ladder_steps
from nas.searching.evolution import History
from nas.searching.finals import Finals
from nas.searching.known_networks import baselines
from nas.searching.ladder import BY_MODEL, Finalist
from nas.searching.proposals import Band, Proposal, draw, stratified
from nas.searching.ray_cluster import Crew
from nas.searching.search import Evaluation, SearchRequest
from nas.searching.supernet_run import SupernetRun
from nas.searching.trained_alone import Alone, Trained
from nas.spaces.decisions import SearchSpace

SPACE = """
format: search space 1
frame: {resolution: 16, channels: 1, classes: 4}
patch: 4
stages:
  - {width: [16, 24, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2], kernel: [3, 5]}
  - {width: [32, 48, 64], depth: [1, 2], mixer: [conv, attention], mlp_ratio: [1, 2], head_width: 16}
"""
NUM, IMAGES = 9, 300
LIMIT = 10.0  # ms; of three networks one takes longer


class Break:
    """Interrupts before the so many-th thing that takes time or is logged."""

    def __init__(self) -> None:
        self.left = -1  # none

    def __call__(self) -> None:
        if self.left == 0:
            raise Stopped("a test stopped it")
        self.left -= 1


class Toy:
    """Stands for `Alone`. What a network comes to is drawn by its key, and what is trained stays for the next sitting."""

    digest, steps, ladder, judged_on = "01234567", 90, [10, 30, 90], "held_out"

    def __init__(self, seed: int, pause: Break) -> None:
        self.setting = SimpleNamespace(seed=0, images=SimpleNamespace(size=lambda split: IMAGES))
        self.reached, self.trained, self._seed, self._pause = Counter[str](), list[tuple[str, int]](), seed, pause
        self.climbs = list[str]()  # the lots that were begun

    def curve(self, key: str) -> list[float]:
        rng = random.Random(f"{self._seed}/{key}")
        end = rng.uniform(0.6, 0.7)
        return [end - loss + rng.gauss(0, 0.03) for loss in (0.2, 0.1, 0.0)]

    def fails(self, key: str) -> bool:
        return int(key, 16) % 13 == 0

    def up(self, key: str) -> None:
        self._pause()
        self.trained.append((key, self.reached[key]))
        self.reached[key] += 1

    def known(self, architecture: Architecture, seed: int) -> Trained:
        rung, curve = self.reached[architecture.key], self.curve(architecture.key)
        if rung > 1 and self.fails(architecture.key):
            return Trained(Evaluation(failure="the loss is not finite"))
        ended = Evaluation(curve[2]) if rung == 3 else None
        return Trained(ended, tuple(zip(self.ladder[: min(rung, 2)], curve, strict=False)))

    def steps_done(self, architecture: Architecture, seed: int) -> int:
        return [0, *self.ladder][self.reached[architecture.key]]


def train_beside(
    alone: Toy, ask: Any, told: Any, *, climb: str, head_start: Callable[..., float] = lambda job: 0.0, show: Any, **_: Any
) -> None:
    """As Tune and ASHA do, one network after the other."""
    alone.climbs.append(climb)
    stood = list[float]()
    while job := ask():
        key, going = job.architecture.key, True
        for rung in range(3):
            new = alone.reached[key] <= rung
            if new:
                alone.up(key)
            told(job)
            show()
            if climb == "the best" and rung == 0:
                at = alone.curve(key)[0] + head_start(job)
                going = not stood or at >= np.percentile(stood, 200 / 3)
                stood.append(at)
            if not going or (climb in ("the best", "all but the end") and rung == 1) or (climb == "all a rung" and new):
                break


class Sittings:
    """A search's end in a folder, sitting after sitting."""

    def __init__(self, folder: Path, seed: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        (folder / "tiny.yaml").write_text(SPACE)
        self.space, self.run, self.workers, self.pause = SearchSpace.read(folder / "tiny.yaml"), Run("found", folder), workers, Break()
        self.toy, self.timed = Toy(seed, self.pause), list[str]()
        log = self.run.log

        def logged(kind: str, **line: Any) -> None:
            if kind != "looked":  # what is found out is in the log at once
                self.pause()
            log(kind, **line)

        monkeypatch.setattr(self.run, "log", logged)

    def measure(self, architecture: Architecture) -> dict[str, float]:
        """The second time it is another."""
        self.pause()
        self.timed.append(architecture.key)
        slow = int(architecture.key, 16) % 3 == 0
        return {"latency_ms": LIMIT + (1 if slow == (self.timed.count(architecture.key) == 1) else -1)}

    def given(self) -> tuple[SupernetRun, SearchRequest, int, list[Any], None, Looks]:
        """For `candidates`."""
        request = SearchRequest(parse_budgets(["200kMACs", f"{LIMIT:g}ms"]), 0, 2)
        setting = SimpleNamespace(**self.toy.setting.__dict__, frame=self.space.frame)
        opened = cast(SupernetRun, SimpleNamespace(space=self.space, run=self.run, setting=setting))
        return opened, request, NUM, [], None, Looks(self.run, "study", request.budgets, self.measure, lambda: False)

    def __call__(self) -> str:
        """Its winner, by its key."""
        opened, request, num, *_, looks = given = self.given()
        finals = Finals(opened, "study", request, num, Crew(self.workers), looks)
        finals.__dict__["alone"] = self.toy
        winner = finals.climb(None, candidates(*given)).winner()
        assert winner is not None
        return winner.key

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        return [{**line, "time": ""} for line in self.run.metrics() if line["kind"] in kinds]


def children(band: Band, history: History, num: int, rng: random.Random) -> list[Proposal]:
    """New networks, like those of `evolution` a function of parent, what is known, and generator."""
    found: dict[str, Proposal] = {}
    for _ in range(12):
        values = {**history.networks[0][0], **dict(rng.sample(list(band.space.random(rng).items()), 2))}
        key = band.space.decode(values).key
        if key not in history.seen:
            found[key] = Proposal(values, "child")
    return list(found.values())


@pytest.fixture(scope="module")
def arithmetic() -> dict[str, Any]:
    """What is the same in all sittings, and slow."""
    return {}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, arithmetic: dict[str, Any]) -> None:
    monkeypatch.setattr(tune, "train_beside", train_beside)
    monkeypatch.setattr("nas.searching.finals.children", children)
    monkeypatch.setattr("nas.searching.candidates.DRAWN", 30)

    def once(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def known(*given: Any) -> Any:
            if name not in arithmetic:
                arithmetic[name] = list(real(*given))
            return arithmetic[name]

        return known

    for name, real in (("baselines", baselines), ("draw", draw), ("stratified", stratified)):
        monkeypatch.setattr(f"nas.searching.candidates.{name}", once(name, real))


@pytest.mark.parametrize("seed", range(6))
def test_interrupted_again_and_again_it_ends_as_in_one_go(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same finalists in the same order and the same lots of them, each rung trained once, each network timed once, the same winner."""
    workers, rng = 1 + seed % 2, random.Random(seed)
    whole, broken = (Sittings(tmp_path / name, seed, workers, monkeypatch) for name in ("whole", "broken"))
    winner = whole()
    assert len({key for key, _ in whole.toy.trained}) > NUM and len(whole.timed) > 10
    assert any(line["parents"] for line in whole.lines("lot")), "some were looked for near leaders"
    for _ in range(100):
        broken.pause.left, before, begun = rng.randint(1, 12), len(broken.toy.climbs), bool(broken.lines("lot"))
        try:
            assert broken() == winner
            break
        except Stopped:
            assert not (begun and "the best" in broken.toy.climbs[before:]), "the first ones are not gone through again for nothing"
    else:
        pytest.fail("it does not end")
    assert sorted(broken.toy.trained) == sorted(whole.toy.trained) and len(set(whole.toy.trained)) == len(whole.toy.trained)
    told = {line["key"]: line for line in broken.lines("finalist")}
    assert list(told.values()) == whole.lines("finalist")
    assert [line["to"] for line in broken.lines("lot")] == [line["to"] for line in whole.lines("lot")]
    assert sorted(broken.timed) == sorted(set(broken.timed)) == sorted(whole.timed)
    assert not any(int(key, 16) % 3 == 0 for key in told), "who takes too long is no finalist"


def test_more_finalists_continue_a_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    its = Sittings(tmp_path / "its", 1, 1, monkeypatch)
    its()
    before, trained = its.lines("finalist"), list(its.toy.trained)
    monkeypatch.setattr("tests.test_climbing.NUM" if __name__.startswith("tests.") else f"{__name__}.NUM", NUM + 4)
    its()
    assert its.lines("finalist")[: len(before)] == before and len(its.lines("finalist")) == len(before) + 4
    assert its.toy.trained[: len(trained)] == trained and len(set(its.toy.trained)) == len(its.toy.trained)


def test_a_log_without_lots_keeps_who_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier version left it. Who was chosen and not begun is chosen again, by what is known then."""
    its = Sittings(tmp_path / "its", 2, 1, monkeypatch)
    first, begun, not_begun = (its.space.decode(its.space.random(random.Random(number))) for number in range(3))
    climbing = Climbing(cast(Alone, its.toy), its.run, "study", 1, lambda: False)
    for origin, each in (("conv", first), (BY_MODEL, begun), (BY_MODEL, not_begun)):
        plain = {"origin": origin, "by_hand": origin == "conv", "supernet": 0.5, "fine_tuned": None}
        climbing.log("finalist", **plain, key=each.key, architecture=each.to_dict())
    its.toy.up(begun.key)
    logged = climbing.logged()
    assert logged.asked == [Finalist("conv", first, True, 0.5)] and logged.rounds == [([], [Finalist(BY_MODEL, begun, False, 0.5)])]
    assert not logged.lot


@pytest.mark.parametrize(("seed", "images", "less"), [(3, 10**6, True), (0, 30, False), (5, 30, False)])
def test_a_ladder_ends_at_what_was_done_and_that_is_about_the_estimate(
    seed: int, images: int, less: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    its = Sittings(tmp_path / "its", seed, 1, monkeypatch)
    its.toy.setting.images.size = lambda split: images  # by a million who is worse is seen to be; thirty tell hardly anything apart
    its()
    done = sum(its.toy.ladder[reached - 1] for reached in its.toy.reached.values() if reached)
    *_, last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finalists: ")]
    assert last.startswith(f"finalists: {done}/{done} steps, ") and "left" not in last
    lines = its.lines("finalist")
    chosen, by_hand = sum(line["origin"] == BY_MODEL for line in lines), sum(line["by_hand"] for line in lines)
    estimate = ladder_steps(cast(Alone, its.toy), by_hand, len(lines) - chosen - by_hand, chosen)
    assert (done < estimate) == less and done == pytest.approx(estimate, rel=0.2)
