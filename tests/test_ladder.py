"""Who is trained alone, and who wins: with curves of a toy evaluator and a ladder climbed by the rule of successive halving."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from toy_space import FRAME

from nas.cost import cost
from nas.networks.architecture import Architecture, Stage
from nas.searching.ladder import BY_MODEL, Finalist, Ladder, Standing

MIXERS = ("conv", "attention", "token_mlp", "s2_shift")
RUNGS, IMAGES = 3, 1000


def network(first: str, second: str, width: int) -> Architecture:
    return Architecture(FRAME, 4, (Stage(width, (first, second), 2.0, kernel=3, head_width=16),))


EVERY = [network(first, second, width) for first in MIXERS for second in MIXERS for width in range(16, 96, 16)]


class Climb:
    """Trains finalists of toy curves: first one after the other, of three that stood at the first rung one goes on, as Tune's ASHA decides when
    each reports; then a rung at a time."""

    def __init__(self, curves: dict[str, list[float]]) -> None:
        self.curves, self.reached, self.order = curves, dict[str, int](), list[str]()

    def standing(self, finalist: Finalist, rung: int) -> Standing:
        return self.curves[finalist.key][rung] if rung < self.reached.get(finalist.key, 0) else None

    def run(self, ladder: Ladder, pool: Sequence[Finalist] = (), num: int = 0, known: Sequence[Finalist] = ()) -> None:
        stood: list[float] = []
        while chosen := ladder.ask():
            self.order.append(chosen.key)
            self.up(chosen)
            at = self.curves[chosen.key][0] + ladder.head_start(chosen)
            if not stood or at >= np.percentile(stood, 200 / 3):
                for _ in range(1, RUNGS - 1):
                    self.up(chosen)
            stood.append(at)
        self.climb(ladder)
        ladder.again(known)
        self.climb(ladder)
        while num > len(known) and (chosen := ladder.choose(pool, min(2, num - len(known)))):
            self.order += [each.key for each in chosen]
            known = [*known, *chosen]
            self.climb(ladder)
        self.climb(ladder, to_the_end=True)

    def climb(self, ladder: Ladder, to_the_end: bool = False) -> None:
        while climbers := ladder.climbers(to_the_end):
            assert len({each.key for each in climbers}) == len(climbers)
            for each in climbers:
                self.up(each)
                assert to_the_end or self.reached[each.key] < RUNGS, "before all are chosen nobody comes to the end"

    def up(self, finalist: Finalist) -> None:
        self.reached[finalist.key] = self.reached.get(finalist.key, 0) + 1
        assert self.reached[finalist.key] <= RUNGS


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
    """Whatever the curves do on the way: a network drawn by hand came to the end and is no better there, or was left behind at the rung before it,
    where the images tell that it is worse than the winner was, by two standard errors of the difference."""
    rng = random.Random(seed)
    climb = Climb(curves_of(rng, noise=0.1))
    first, pool = finalists(rng, 4)
    ladder = Ladder(first, climb.standing, RUNGS, IMAGES)
    climb.run(ladder, pool, 4)
    winner = ladder.winner()
    assert winner is not None
    ends = {each.key: ladder.accuracies(each) for each in ladder.asked}
    for each in ladder.asked:
        reached, found = len(ends[each.key]), ends[each.key][-1]
        if reached == RUNGS:
            assert ends[winner.key][-1] >= found
        elif each.by_hand:
            its = ends[winner.key][RUNGS - 2]
            assert reached == RUNGS - 1 and its - found > 2 * ((its * (1 - its) + found * (1 - found)) / IMAGES) ** 0.5


def test_a_network_drawn_by_hand_that_is_late_is_not_missed() -> None:
    """It is a little worse than all others at two rungs and with the supernet's weights, and the best in the end."""
    (late, *others), _ = finalists(random.Random(0), 8)
    late, others = replace(late, supernet=0.60), [replace(each, supernet=0.62) for each in others]
    climb = Climb({each.key: [0.50 + 0.001 * number, 0.65, 0.75] for number, each in enumerate(others)} | {late.key: [0.49, 0.64, 0.77]})
    ladder = Ladder([*others, late], climb.standing, RUNGS, IMAGES)
    climb.run(ladder)
    assert ladder.winner() == late


def test_a_network_drawn_by_hand_is_left_behind_at_no_rung_but_the_one_before_the_end() -> None:
    """Where the images tell that it is worse: by 2.5 standard errors of the difference, 5.3 points near two thirds, of 1,000 images. At the rung
    before, quick learners lead by more than that over who is the best in the end."""
    (bad, slow, *others), _ = finalists(random.Random(0), 8)
    climb = Climb({each.key: [0.53, 0.65, 0.75] for each in others} | {bad.key: [0.53, 0.597, 0.99], slow.key: [0.43, 0.652, 0.77]})
    ladder = Ladder([*others, bad, slow], climb.standing, RUNGS, IMAGES)
    climb.run(ladder)
    assert len(ladder.accuracies(bad)) == RUNGS - 1 and ladder.winner() == slow


def test_the_best_third_of_those_at_the_rung_before_it_comes_to_the_end() -> None:
    """Beside networks drawn by hand, which the images tell here to be worse."""
    _, pool = finalists(random.Random(0), 0)
    climb = Climb({each.key: [0.2 + number / 200, 0.4 + (7 * number % 20) / 200, 0.9 - number / 200] for number, each in enumerate(pool)})
    ladder = Ladder(pool[:20], climb.standing, RUNGS, 10**6)
    climb.run(ladder, pool, 6)
    at = sorted((len(found) > 1, found[1:2], len(found)) for found in map(ladder.accuracies, ladder.asked))
    there = [reached for is_there, _, reached in at if is_there]
    most = -(-len(there) // 3)
    assert len(there) > 5 and len(there) % 3, "so that a third has to be rounded"
    assert there == [RUNGS - 1] * (len(there) - most) + [RUNGS] * most


def test_at_the_first_rung_the_accuracy_with_the_supernets_weights_counts_as_much_as_the_one_alone() -> None:
    """Who has no score there is taken for average."""
    (first, second, third, *_), _ = finalists(random.Random(0), 0)
    scored = [replace(first, supernet=0.7), replace(second, supernet=0.5), replace(third, supernet=None)]
    ladder = Ladder(scored, lambda finalist, rung: None, RUNGS, IMAGES)
    assert [ladder.head_start(each) for each in scored] == pytest.approx([0.7, 0.5, 0.6])
    plain = [replace(each, supernet=None) for each in scored]
    alone = Ladder(plain, lambda finalist, rung: None, RUNGS, IMAGES)
    assert len({alone.head_start(each) for each in plain}) == 1, "no supernet, no difference"


def test_every_network_drawn_by_hand_is_tried_and_as_many_others_as_asked() -> None:
    rng = random.Random(0)
    climb = Climb(curves_of(rng, noise=0.02))
    first, pool = finalists(rng, 4)
    ladder = Ladder(first, climb.standing, RUNGS, IMAGES)
    climb.run(ladder, [*pool, *first], 6)
    assert climb.order[:8] == [each.key for each in first]
    assert len(set(climb.order)) == len(climb.order) == 4 + 10
    assert all(ladder.accuracies(each) for each in ladder.asked)
    assert [each.origin for each in ladder.asked[8:]] == [BY_MODEL] * 6
    assert all(len(ladder.accuracies(each)) >= RUNGS - 1 for each in ladder.asked[8:]), "who was chosen late is judged late"


@pytest.mark.parametrize(("knows", "least"), [(False, 1.0), (True, 1.2)])
def test_who_is_chosen_is_better_than_a_draw(knows: bool, least: float) -> None:
    """They end higher than the pool does on average, in 20 toy worlds: by a standard deviation with a supernet whose scores tell nothing, by
    more where these are the accuracies with an error of three points."""
    gains = []
    for seed in range(20):
        rng = random.Random(seed)
        curves = curves_of(rng, noise=0.02)
        climb = Climb(curves)
        first, pool = finalists(rng, 6)
        if knows:
            first, pool = ([replace(each, supernet=curves[each.key][-1] + rng.gauss(0, 0.03)) for each in those] for those in (first, pool))
        ladder = Ladder(first, climb.standing, RUNGS, IMAGES)
        climb.run(ladder, pool, 6)
        ends = [curves[each.key][-1] for each in pool]
        chosen = [curves[each.key][-1] for each in ladder.asked[len(first) :]]
        gains.append((np.mean(chosen) - np.mean(ends)) / np.std(ends))
    assert np.mean(gains) > least


def judged(first: Sequence[Finalist], at: dict[str, float]) -> Ladder:
    """All of these stand at the rung before the last."""
    ladder = Ladder(first, lambda each, rung: at.get(each.key) if rung < RUNGS - 1 else None, RUNGS, IMAGES)
    while ladder.ask():
        pass
    return ladder


def test_the_model_heeds_the_supernet_only_where_that_foretells_the_finalists() -> None:
    """In most worlds scores that say nothing change no choice. Where what a network is made of says nothing, scores that are the accuracies decide."""
    same = list[bool]()
    for seed in range(20):
        rng = random.Random(seed)
        first, pool = finalists(rng, 12)
        at = {key: found[1] for key, found in curves_of(rng, noise=0.0).items()}
        plain, others = ([replace(each, supernet=None) for each in those] for those in (first, pool))
        same.append([each.key for each in judged(first, at).choose(pool, 4)] == [each.key for each in judged(plain, at).choose(others, 4)])

        at = {each.key: rng.uniform(0.5, 0.7) for each in [*first, *pool]}
        first, pool = ([replace(each, supernet=at[each.key] - 0.1) for each in those] for those in (first, pool))
        chosen = judged(first, at).choose(pool, 4)
        assert np.mean([at[each.key] for each in chosen]) > np.percentile([at[each.key] for each in pool], 80)
    assert sum(same) > 16


def test_a_shortlist_alone_is_looked_at_and_who_is_chosen_has_a_score() -> None:
    """What the look leaves out is not chosen."""
    rng = random.Random(2)
    first, pool = finalists(rng, 8)
    at = {key: found[1] for key, found in curves_of(rng, noise=0.0).items()}
    unscored = [replace(each, supernet=None) for each in pool]
    looks, barred = list[list[str]](), set[str]()

    def look(finalists: Sequence[Finalist], num: int, scored: bool) -> list[Finalist]:
        barred.update(() if barred else [each.key for each in finalists[:3]])
        found = [replace(each, supernet=0.5 if scored else None) for each in finalists if each.key not in barred][:num]
        looks.append([each.key for each in found])
        return found

    chosen = judged(first, at).choose(unscored, 2, look)
    assert len(looks[0]) == 20 < len(pool) and all(set(each) <= set(looks[0]) for each in looks)
    assert len(chosen) == 2 and all(each.supernet == 0.5 and each.key not in barred for each in chosen)


def test_the_model_knows_what_a_network_costs() -> None:
    """The larger the better, and the sizes of the pool were never seen."""
    small, large = ([each for each in EVERY if (each.stages[0].width > 48) == large] for large in (False, True))
    at = {each.key: 0.5 + cost(each).macs / 1e8 for each in EVERY}
    ladder = judged([Finalist("", each) for each in random.Random(0).sample(small, 20)], at)
    chosen = ladder.choose([Finalist("", each) for each in large], 3)
    assert [each.architecture.stages[0].width for each in chosen] == [80] * 3


def test_what_nobody_has_tried_is_not_taken_for_free() -> None:
    """The larger the better, and with position encodings networks are larger. They are chosen once somebody has them and is better."""

    def encoded(each: Architecture) -> Architecture:
        return replace(each, stages=(Stage(each.stages[0].width, each.stages[0].mixers, 2.0, cpe=True, kernel=3, head_width=16),))

    plain = random.Random(0).sample(EVERY, 40)
    tried, left = plain[:20], plain[20:]
    rng = random.Random(1)
    worth = {each.key: 0.5 + cost(each).macs / 1e8 + rng.gauss(0, 0.01) for each in plain}
    worth |= {encoded(each).key: worth[each.key] + 0.02 for each in plain}
    for seen, expected in ((tried, False), ([*tried[:10], *map(encoded, tried[10:])], True)):
        for each in left:
            (chosen,) = judged([Finalist("", one) for one in seen], worth).choose([Finalist("", encoded(each)), Finalist("", each)], 1)
            assert chosen.architecture.stages[0].cpe is expected


def test_who_is_chosen_next_depends_on_what_the_last_ones_have_shown() -> None:
    """As foretold, or far worse."""
    rng = random.Random(5)
    first, pool = finalists(rng, 6)
    at = {key: found[1] for key, found in curves_of(rng, noise=0.0).items()}
    later = []
    for loss in (0.0, 0.3):
        told = dict(at)
        ladder = judged(first, told)
        told |= {each.key: at[each.key] - loss for each in ladder.choose(pool, 2)}
        later.append([each.key for each in ladder.choose(pool, 2)])
    assert later[0] != later[1]


def test_leaders_are_those_of_the_highest_figures_and_who_was_left_behind_is_taken_to_have_risen_as_the_others() -> None:
    """[0.50, 0.60] and [0.54, 0.66] rose by 0.11 on average: 0.53 counts as 0.64, 0.56 as 0.67."""
    _, pool = finalists(random.Random(0), 0)
    at = dict(zip([each.key for each in pool], ([0.50, 0.60, 0.99], [0.54, 0.66], [0.53], [0.56]), strict=False))
    ladder = Ladder(pool[:4], lambda each, rung: dict(enumerate(at[each.key])).get(rung), RUNGS, IMAGES)
    while ladder.ask():
        pass
    assert ladder.leaders(3) == [pool[3], pool[1], pool[2]]


def test_what_is_continued_is_chosen_as_before() -> None:
    """The finalists that were asked for and those that were chosen, given back, lead to the same ones."""
    rng = random.Random(3)
    curves = curves_of(rng, noise=0.02)
    first, pool = finalists(rng, 4)
    whole = Ladder(first, (one := Climb(curves)).standing, RUNGS, IMAGES)
    one.run(whole, pool, 5)
    again = Ladder(first, (other := Climb(curves)).standing, RUNGS, IMAGES)
    other.run(again, pool, 5, whole.asked[len(first) : len(first) + 2])
    assert [each.key for each in again.asked] == [each.key for each in whole.asked] and again.winner() == whole.winner()
    kept = Ladder(first, (third := Climb(curves)).standing, RUNGS, IMAGES)
    others = [replace(each, origin=BY_MODEL) for each in pool[-2:]]
    third.run(kept, pool, 5, others)
    assert kept.asked[len(first) : len(first) + 2] == others and len(kept.asked) == len(first) + 5


def test_who_fails_or_is_left_out_never_wins_and_someone_does() -> None:
    rng = random.Random(0)
    first, pool = finalists(rng, 4)
    climb = Climb(curves_of(rng, noise=0.0))
    ladder = Ladder(first, climb.standing, RUNGS, IMAGES)
    climb.run(ladder, pool, 2)
    while best := ladder.winner():
        ladder.leave_out(best)
        assert ladder.winner() != best
        climb.climb(ladder, to_the_end=True)
    assert all(len(ladder.accuracies(each)) == RUNGS for each in ladder.asked), "everyone had a chance, in the end"

    broken = Ladder(first[:2], lambda finalist, rung: "failed", RUNGS, IMAGES)
    assert broken.ask() and broken.ask() and broken.ask() is None
    assert broken.winner() is None and not broken.climbers() and all(broken.failed(each) for each in broken.asked)
    assert not broken.choose([], 2) and not broken.climbers(to_the_end=True)
