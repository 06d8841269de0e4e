"""Who is trained alone, and who wins: with curves of a toy evaluator and a ladder climbed by the rule of successive halving."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from nas.networks.architecture import Architecture, Stage
from nas.searching.ladder import Finalist, Ladder, Standing
from tests.test_search import FRAME

MIXERS = ("conv", "attention", "mlp", "shift")
RUNGS, IMAGES = 3, 1000


def network(first: str, second: str, width: int) -> Architecture:
    return Architecture(FRAME, 4, (Stage(width, (first, second), 2.0),))


EVERY = [network(first, second, width) for first in MIXERS for second in MIXERS for width in range(16, 96, 16)]


class Climb:
    """Trains finalists of toy curves one after the other; of three that stood at a rung one goes on, as Tune's ASHA decides when each reports."""

    def __init__(self, curves: dict[str, list[float]]) -> None:
        self.curves, self.reached, self.order = curves, dict[str, int](), list[str]()

    def standing(self, finalist: Finalist, rung: int) -> Standing:
        return self.curves[finalist.key][rung] if rung < self.reached.get(finalist.key, 0) else None

    def run(self, ladder: Ladder) -> None:
        stood: list[list[float]] = [[] for _ in range(RUNGS)]
        while isinstance(chosen := ladder.ask(), Finalist):
            self.order.append(chosen.key)
            for rung in range(RUNGS):
                self.reached[chosen.key] = rung + 1
                at = self.curves[chosen.key][rung] + ladder.head_start(chosen)
                behind = bool(stood[rung]) and at < np.percentile(stood[rung], 200 / 3)
                stood[rung].append(at)
                if behind:
                    break
        assert chosen is None
        while challengers := ladder.challengers():
            for each in challengers:
                self.reached[each.key] += 1


def curves_of(rng: random.Random, noise: float) -> dict[str, list[float]]:
    """Accuracies that are additive in what a network is made of, and that a longer training both raises and reorders."""
    worth = {mixer: rng.uniform(0, 0.1) for mixer in MIXERS}
    found = {}
    for each in EVERY:
        stage = each.stages[0]
        end = 0.6 + sum(worth[mixer] for mixer in stage.mixers) + stage.width / 2000
        found[each.key] = [min(1.0, max(0.0, end - 0.2 / (rung + 1) + rng.gauss(0, noise / (rung + 1)))) for rung in range(RUNGS)]
    return found


def finalists(rng: random.Random, num: int) -> tuple[list[Finalist], list[Finalist]]:
    """Networks of a single mixer, drawn by hand, with some others; and a pool of all. The supernet's scores differ as much as accuracies do, and
    tell nothing."""
    by_hand = [Finalist(mixer, network(mixer, mixer, 48), by_hand=True, supernet=rng.gauss(0.6, 0.03)) for mixer in MIXERS]
    others = [each for each in EVERY if each.key not in {one.key for one in by_hand}]
    pool = [Finalist("supernet", each, supernet=rng.gauss(0.6, 0.03)) for each in others]
    return [*by_hand, *rng.sample(pool, num)], pool


@pytest.mark.parametrize("seed", range(40))
def test_the_winner_is_never_seen_to_be_worse_than_a_network_drawn_by_hand(seed: int) -> None:
    """Whatever the curves do on the way: a network drawn by hand came to the end and is no better there, or was left behind where the images
    tell that it is worse than the winner, by two standard errors of the difference."""
    rng = random.Random(seed)
    climb = Climb(curves_of(rng, noise=0.1))
    first, pool = finalists(rng, 4)
    ladder = Ladder(first, 8, pool, climb.standing, RUNGS, IMAGES, seed)
    climb.run(ladder)
    winner = ladder.winner()
    assert winner is not None
    ends = {each.key: ladder.accuracies(each) for each in ladder.asked}
    for each in ladder.asked:
        reached, found = len(ends[each.key]), ends[each.key][-1]
        its = ends[winner.key][reached - 1]
        if reached == RUNGS:
            assert its >= found
        elif each.by_hand:
            assert its - found > 2 * ((its * (1 - its) + found * (1 - found)) / IMAGES) ** 0.5


def test_a_network_drawn_by_hand_that_is_late_is_not_missed() -> None:
    """It is a little worse than all others at two rungs and with the supernet's weights, and the best in the end."""
    (late, *others), _ = finalists(random.Random(0), 8)
    late, others = replace(late, supernet=0.60), [replace(each, supernet=0.62) for each in others]
    climb = Climb({each.key: [0.50 + 0.001 * number, 0.65, 0.75] for number, each in enumerate(others)} | {late.key: [0.49, 0.64, 0.77]})
    ladder = Ladder([*others, late], len(others), [], climb.standing, RUNGS, IMAGES)
    climb.run(ladder)
    assert ladder.winner() == late


def test_below_the_end_the_accuracy_with_the_supernets_weights_counts_as_much_as_the_one_alone() -> None:
    """Who has no score there is taken for average."""
    (first, second, third, *_), _ = finalists(random.Random(0), 0)
    scored = [replace(first, supernet=0.7), replace(second, supernet=0.5), replace(third, supernet=None)]
    ladder = Ladder(scored, 3, [], lambda finalist, rung: None, RUNGS, IMAGES)
    assert [ladder.head_start(each) for each in scored] == pytest.approx([0.7, 0.5, 0.6])
    alone = Ladder([replace(each, supernet=None) for each in scored], 3, [], lambda finalist, rung: None, RUNGS, IMAGES)
    assert len({alone.head_start(replace(each, supernet=None)) for each in scored}) == 1, "no supernet, no difference"


def test_every_network_drawn_by_hand_is_tried_and_as_many_others_as_asked() -> None:
    rng = random.Random(0)
    climb = Climb(curves_of(rng, noise=0.02))
    first, pool = finalists(rng, 4)
    ladder = Ladder(first, 10, pool, climb.standing, RUNGS, IMAGES)
    climb.run(ladder)
    assert climb.order[:8] == [each.key for each in first]
    assert len(set(climb.order)) == len(climb.order) == 4 + 10
    assert all(ladder.accuracies(each) for each in ladder.asked)


@pytest.mark.parametrize(("knows", "least"), [(False, 0.5), (True, 1.0)])
def test_who_comes_next_is_better_than_a_draw(knows: bool, least: float) -> None:
    """Later finalists, chosen by what the first rung showed, end higher than the pool does on average, in 20 toy worlds: by half a standard
    deviation with a supernet whose scores tell nothing, by a whole one where they are the accuracies with an error of three points."""
    gains = []
    for seed in range(20):
        rng = random.Random(seed)
        curves = curves_of(rng, noise=0.02)
        climb = Climb(curves)
        first, pool = finalists(rng, 6)
        if knows:
            first, pool = ([replace(each, supernet=curves[each.key][-1] + rng.gauss(0, 0.03)) for each in those] for those in (first, pool))
        ladder = Ladder(first, 12, pool, climb.standing, RUNGS, IMAGES, seed)
        climb.run(ladder)
        ends = [curves[each.key][-1] for each in pool]
        chosen = [curves[each.key][-1] for each in ladder.asked[len(first) :]]
        gains.append((np.mean(chosen) - np.mean(ends)) / np.std(ends))
    assert np.mean(gains) > least


def test_what_is_continued_is_asked_for_as_before() -> None:
    """The finalists that were asked for, given back as the first ones, lead to the same later ones."""
    rng = random.Random(3)
    curves = curves_of(rng, noise=0.02)
    first, pool = finalists(rng, 4)
    whole = Ladder(first, 9, pool, (one := Climb(curves)).standing, RUNGS, IMAGES)
    one.run(whole)
    again = Ladder(whole.asked[:10], 9, pool, (other := Climb(curves)).standing, RUNGS, IMAGES)
    other.run(again)
    assert [each.key for each in again.asked] == [each.key for each in whole.asked]


def test_who_fails_or_is_left_out_never_wins_and_someone_does() -> None:
    rng = random.Random(0)
    first, pool = finalists(rng, 4)
    climb = Climb(curves_of(rng, noise=0.0))
    ladder = Ladder(first, 4, pool, climb.standing, RUNGS, IMAGES)
    climb.run(ladder)
    best = ladder.winner()
    assert best is not None
    ladder.leave_out(best)
    assert ladder.winner() != best
    for each in ladder.asked[1:]:
        ladder.leave_out(each)
    only = ladder.asked[0]
    climb.reached[only.key] = 1
    assert ladder.winner() is None and ladder.challengers() == [only]

    broken = Ladder(first[:2], 0, [], lambda finalist, rung: "failed", RUNGS, IMAGES)
    assert isinstance(broken.ask(), Finalist) and isinstance(broken.ask(), Finalist) and broken.ask() is None
    assert broken.winner() is None and not broken.challengers() and all(broken.failed(each) for each in broken.asked)


def test_where_hardly_anything_is_known_it_waits() -> None:
    rng = random.Random(0)
    first, pool = finalists(rng, 2)
    climb = Climb(curves_of(rng, noise=0.0))
    ladder = Ladder(first, 6, pool, climb.standing, RUNGS, IMAGES)
    for each in first:
        assert ladder.ask() == each
    assert ladder.ask() == "wait"
    climb.reached = {each.key: 1 for each in first[:3]}
    chosen = ladder.ask()
    assert isinstance(chosen, Finalist) and chosen not in first
