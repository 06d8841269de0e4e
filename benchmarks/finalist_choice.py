"""How the next finalists are best chosen, replayed on networks whose whole trainings are known.

    python benchmarks/finalist_choice.py FIDELITY.json [--seen 12] [--next 6] [--draws 300] [--json FILE]

A draw takes `--seen` of the file's networks for the first finalists, of which the rung before the last is known (a third of the schedule), and lets
every way choose `--next` of the others. Printed are, as means over the draws and in points of accuracy: by how much those chosen are better, trained alone, than the
others are on average; and by how much the best of them falls short of the best there was to choose.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.networks.architecture import Architecture
from nas.searching.additive import AdditiveModel
from nas.searching.fidelity import ranked
from nas.searching.ladder import Finalist, Ladder
from nas.yaml_files import write_atomically

IMAGES = 5000  # who wins is not asked here
Choice = Callable[[Sequence[Finalist], Sequence[Finalist], int, int], list[str]]  # of (seen, others, how many, seed): keys


def by_ladder(shown: dict[str, float]) -> Choice:
    """As `search` chooses: an additive model of what a third of the schedule has shown, with the supernet's scores where they help."""

    def choose(seen: Sequence[Finalist], others: Sequence[Finalist], num: int, seed: int) -> list[str]:
        ladder = Ladder(seen, lambda each, rung: None if rung else shown[each.key], 2, IMAGES)
        while ladder.ask():
            pass
        return [each.key for each in ladder.choose(others, num)]

    return choose


def by_model(shown: dict[str, float], scored: bool, resampled: bool) -> Choice:
    """The same model always with the scores or never; or as many models as networks are chosen, each taught by another resample (bootstrap)."""

    def scores(which: Sequence[Finalist]) -> dict[str, list[float]]:
        return {"supernet": [each.supernet or 0.0 for each in which]} if scored else {}

    def choose(seen: Sequence[Finalist], others: Sequence[Finalist], num: int, seed: int) -> list[str]:
        rng, chosen = random.Random(seed), list[str]()
        while len(chosen) < num:
            taught = rng.choices(seen, k=len(seen)) if resampled else seen
            model = AdditiveModel([each.architecture for each in taught], [shown[each.key] for each in taught], scores(taught))
            predicted = dict(
                zip([each.key for each in others], model.predict([each.architecture for each in others], scores(others)), strict=True)
            )
            chosen.append(max(predicted.keys() - set(chosen), key=predicted.__getitem__))
        return chosen

    return choose


def by_supernet(seen: Sequence[Finalist], others: Sequence[Finalist], num: int, seed: int) -> list[str]:
    """The supernet's favourites."""
    return [each.key for each in sorted(others, key=lambda each: each.supernet or 0.0, reverse=True)[:num]]


def by_chance(seen: Sequence[Finalist], others: Sequence[Finalist], num: int, seed: int) -> list[str]:
    return [each.key for each in random.Random(seed).sample(list(others), num)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seen", type=int, default=12)
    parser.add_argument("--next", type=int, default=6)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    networks = ranked(json.loads(given.file.read_text()))
    truth = {each["key"]: each["truth"] for each in networks}
    shown = {each["key"]: each["third"] for each in networks}
    finalists = [
        Finalist("", Architecture.from_dict(each["architecture"], str(given.file)), supernet=each["supernet"]) for each in networks
    ]
    ways: dict[str, Choice] = {
        "chance": by_chance, "supernet": by_supernet, "ladder": by_ladder(shown),
        "scores always": by_model(shown, scored=True, resampled=False), "scores never": by_model(shown, scored=False, resampled=False),
        "resampled": by_model(shown, scored=True, resampled=True),
    }  # fmt: skip
    better, short = ({name: list[float]() for name in ways} for _ in range(2))
    for draw in range(given.draws):
        mixed = random.Random(draw).sample(finalists, len(finalists))
        seen, others = mixed[: given.seen], mixed[given.seen :]
        known = [truth[each.key] for each in others]
        for name, choose in ways.items():
            chosen = [truth[key] for key in choose(seen, others, given.next, draw)]
            better[name].append(100 * (statistics.fmean(chosen) - statistics.fmean(known)))
            short[name].append(100 * (max(known) - max(chosen)))
    print(f"{len(networks)} networks, {given.seen} seen, {given.next} of {len(networks) - given.seen} chosen, {given.draws} draws")
    print(f"{'chosen by':<20} {'better than the others':>24} {'short of the best':>20}   (points, ± standard error over draws)")
    found = {}
    for name in ways:
        found[name] = {what: [statistics.fmean(of[name]), _error(of[name])] for what, of in (("better", better), ("short", short))}
        print(
            f"{name:<20} {found[name]['better'][0]:>16.2f} ± {_error(better[name]):.2f} {found[name]['short'][0]:>12.2f} ± {_error(short[name]):.2f}"
        )
    if given.json:
        write_atomically(given.json, json.dumps(found, indent=1).encode())


def _error(values: Sequence[float]) -> float:
    """Over the draws alone: the networks are the same in all of them."""
    return statistics.stdev(values) / math.sqrt(len(values))


if __name__ == "__main__":
    main()
