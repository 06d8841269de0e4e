"""The end of a search: finalists are chosen, fine-tuned, and trained alone up a ladder, and the best one seen wins."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.networks.trained import save_network
from nas.progress import Progress
from nas.quantities import format_quantity
from nas.runs.folder import TRAINED_ALONE
from nas.runs.interrupt import heeded, saying
from nas.searching.candidates import Candidates, Looks, favourites_and_varied, in_space, obeying
from nas.searching.climbing import Climbing, Logged, Sitting
from nas.searching.evaluating import evaluate_subnet
from nas.searching.evolution import History, children
from nas.searching.inherited import FineTuned
from nas.searching.ladder import BY_MODEL, Finalist, Ladder
from nas.searching.proposals import Band
from nas.searching.ray_cluster import Crew
from nas.searching.search import MEMORY, SearchRequest
from nas.searching.supernet_run import SupernetRun
from nas.searching.trained_alone import AGAIN, DIED, NOT_FINITE, Alone
from nas.spaces.supernet import Supernet
from nas.training.recipe import Phase
from nas.training.setting import Setting

WIDER = 2  # so many times the favourites are fine-tuned before these are chosen
LEADERS, CHILDREN = 5, 60  # near so many finalists the model may choose, of so many networks each


@dataclass(frozen=True)
class Finals:
    """What the ladder needs.

    Attributes:
        opened: the run, with images and recipe.
        study: whose search it ends.
        request: of that search.
        num: finalists besides those drawn by hand.
        crew: trainings beside each other, and where.
        looks: what is found out of candidates before they are trained. Its `stop` interrupts all of it, and it measures the winner once more.
    """

    opened: SupernetRun
    study: str
    request: SearchRequest
    num: int
    crew: Crew
    looks: Looks

    @cached_property
    def alone(self) -> Alone:
        """How finalists are trained."""
        setting = self.opened.setting
        return Alone.on_held_out(setting, self.opened.run.folder / TRAINED_ALONE, setting.recipe.search.finalist_epochs)

    @cached_property
    def _climbing(self) -> Climbing:
        return Climbing(self.alone, self.opened.run, self.study, self.crew, self.looks.stop)

    @cached_property
    def _tuned(self) -> FineTuned:
        """Held-out images and what fine-tuning gave, read once."""
        return FineTuned(self.opened.setting, self.opened.run)

    def fine_tuned(self, supernet: Supernet | None, finalists: Sequence[Finalist]) -> list[Finalist]:
        """The same finalists; those that the supernet knows with their accuracies after fine-tuning."""
        if supernet is None:
            return list(finalists)
        known = [each for each in finalists if each.supernet is not None]
        accuracies = dict[str, float | None]()

        def where() -> str:
            return f"fine-tuning stopped after {progress.done} of {len(known)} networks"

        with Progress("fine-tune", len(known), "network") as progress:
            for each in heeded(known, self.looks.stop, where):
                with saying(where):
                    accuracies[each.key] = self._tuned.evaluation(supernet, each.architecture, self.looks.stop).accuracy
                progress.advance()
        return [replace(each, fine_tuned=accuracies.get(each.key)) for each in finalists]

    def climb(self, supernet: Supernet | None, who: Candidates) -> Ladder:
        """Chooses the finalists, and trains all of them up the ladder."""
        favourites, _ = favourites_and_varied(self.num, supernet is not None)
        by_supernet = self.looks.first([each for each in who.pool if each.supernet is not None], WIDER * favourites)
        tuned = self.fine_tuned(supernet, [*who.by_hand, *who.varied, *by_supernet])
        best = sorted((each for each in tuned if each.origin == "supernet"), key=_by_fine_tuned)[:favourites]
        first = sorted((each for each in tuned if each.by_hand or each.origin == "variety" or each in best), key=_by_fine_tuned)
        logged = self._climbing.logged()
        known = {each.key for those in (logged.asked, *(chosen for _, chosen in logged.rounds)) for each in those}
        new = [each for each in first if each.key not in known]
        ladder = self._climbing.ladder([*logged.asked, *new])
        num = max(0, self.num - sum(not each.by_hand for each in ladder.waiting))
        with self._climbing.sitting(ladder, num, logged.lot) as sitting:
            if new or not logged.lot:
                sitting.train_first(len(logged.asked))
            else:  # they have come as far as they do one by one
                ladder.again(logged.asked)
            if new or not logged.rounds:
                sitting.train_climbers()
            self._train_chosen(sitting, supernet, who.pool, num, logged)
            sitting.train_climbers(to_the_end=True)
        return ladder

    def _train_chosen(self, sitting: Sitting, supernet: Supernet | None, pool: Sequence[Finalist], num: int, logged: Logged) -> None:
        """Chooses and trains the others, as many at a time as are trained beside each other, each time with what the last ones have shown.

        Rounds of earlier sittings are gone through again: what is near their leaders belongs to what is chosen from.
        """
        ladder, found, parents = sitting.ladder, list(pool), set[str]()

        def add_children(leaders: Sequence[Finalist]) -> None:
            parents.update(each.key for each in leaders)
            found.extend(self._children(leaders, {each.key for each in (*found, *ladder.asked)}))

        for keys, chosen in logged.rounds:
            asked = {each.key: each for each in ladder.asked}
            add_children([asked[key] for key in keys])
            ladder.again(chosen)
            num -= len(chosen)
        sitting.finish_lot()
        while num > 0:
            leaders = [each for each in ladder.leaders(LEADERS) if each.key not in parents]
            add_children(leaders)
            chosen = ladder.choose(found, min(num, max(1, self.crew.num)), partial(self._look, supernet))
            if not chosen:
                break
            sitting.train_chosen(chosen, [each.key for each in leaders])
            num -= len(chosen)

    def _children(self, leaders: Sequence[Finalist], known: Set[str]) -> list[Finalist]:
        """Networks near the leaders, one or two decisions away and not known yet."""
        space, band = self.opened.space, Band(self.opened.space, cost, self.request.budgets, self.request.floor)
        found: dict[str, Architecture] = {}
        for parent in (each.architecture for each in leaders if in_space(space, each.architecture)):
            rng = random.Random(f"{self.opened.setting.seed}/children of {parent.key}")
            near = children(band, History([(space.encode(parent), 0.0)], {*known, *found}), CHILDREN, rng)
            found |= {each.key: each for each in (space.decode(one.values) for one in near)}
        return [Finalist(BY_MODEL, each) for each in found.values()]

    def _look(self, supernet: Supernet | None, finalists: Sequence[Finalist], num: int, scored: bool) -> list[Finalist]:
        """The first so many that obey what is measured; if wanted, with their accuracies by the supernet, None where the evaluation fails."""

        def score(architecture: Architecture) -> float | None:
            assert supernet is not None
            return evaluate_subnet(supernet, self._tuned.held_out, self.opened.setting.autocast, architecture, self.looks.stop).accuracy

        return self.looks.first(finalists, num, score if scored and supernet is not None else None)

    def winner(self, ladder: Ladder) -> tuple[Finalist, Mapping[str, float]]:
        """The most accurate finalist that obeys all budgets, and what was measured of it now.

        Raises:
            ValueError: there is none.
        """
        while winner := ladder.winner():
            if (measured := obeying(winner.architecture, self.request.budgets, self.looks.measure)) is not None:
                return winner, measured
            ladder.leave_out(winner)
            with self._climbing.sitting(ladder, 0, {}) as sitting:
                sitting.train_climbers(to_the_end=True)
        seed = self.opened.setting.seed
        ended = [self.alone.known(each.architecture, seed).ended for each in ladder.asked]
        reasons = Counter(each.failure for each in ended if each and each.failure)
        raise ValueError(_no_winner(len(ladder.asked), reasons, self.alone.phase, self.opened.run.name))

    def keep(self, supernet: Supernet, winner: Finalist, path: Path) -> float | None:
        """Writes the winner's inherited weights, fine-tuned where that helps: a network that can be used at once. Its accuracy on the held-out
        images; None, and nothing written, for a published network that the space does not have."""
        if not in_space(self.opened.space, winner.architecture):
            return None
        setting, architecture = self.opened.setting, winner.architecture.at(self.opened.setting.frame)
        tuned = self._tuned.evaluation(supernet, winner.architecture, self.looks.stop).accuracy
        if tuned is not None and tuned >= (winner.supernet or 0.0):
            network, accuracy = self._tuned.network(supernet, winner.architecture, self.looks.stop), tuned
        elif winner.supernet is not None:
            network, accuracy = supernet.subnet(architecture).eval(), winner.supernet
        else:  # it fails to be fine-tuned, and nobody knows what it is worth before
            return None
        save_inherited(path, network, setting)
        return accuracy


def _no_winner(num: int, reasons: Counter[str], phase: Phase, run: str) -> str:
    """Why no finalist wins, and what helps; each that failed had been tried with a remedy, so more than that is advised."""
    got = f"search: no finalist obeys the budgets to its end: got {num}"
    if not reasons:
        return f"{got}, none of which failed in training; accepted: one or more. Raise the budget, or give --finalists 0."
    reason, most = reasons.most_common(1)[0]
    edits = {NOT_FINITE: f"lr: {phase.lr / 4:g}", **dict.fromkeys((MEMORY, DIED), f"batch_size: {max(2, phase.batch_size // 8 * 2)}")}
    advice = (
        f"Write {edits[reason]} under retrain in a copy of the recipe and give it with --run {run} --recipe FILE"
        if reason in edits
        else "Mend it"
    )
    return (
        f"{got}, {reasons.total()} of which failed in training, {most} for one reason, '{reason}'; accepted: one or more. {advice}, or give "
        "--finalists 0."
    )


def save_inherited(path: Path, network: Network, setting: Setting) -> None:
    """Writes a winner's weights as the supernet, or fine-tuning, gave them."""
    images = setting.images
    save_network(path, network.state_dict(), network.architecture, images.classes, images.preprocessing, setting.recipe.bf16)


def _by_fine_tuned(finalist: Finalist) -> tuple[float, str]:
    """For sorting: the most accurate first. Who cannot be fine-tuned goes by what it was worth before."""
    return -(finalist.supernet or 0.0 if finalist.fine_tuned is None else finalist.fine_tuned), finalist.key


def table(ladder: Ladder, alone: Alone) -> list[str]:
    """The finalists, the best first: where they come from, cost, supernet, fine-tuned, rung by rung, and which one is chosen; and who was begun anew."""
    per_epoch = alone.steps / (alone.phase.epochs or 1)
    heads = ["network", "from", "MACs", "params", "supernet", "fine-tuned", *(f"{step / per_epoch:.3g} ep" for step in alone.ladder), ""]
    rows = [heads]
    for each in ladder.ranked():
        costs = cost(each.architecture)
        at = [ladder.standing(each, rung) for rung in range(len(alone.ladder))]
        shown = [
            value if isinstance(value, str) else "-" if value is None else f"{value:.2%}" for value in (each.supernet, each.fine_tuned, *at)
        ]
        sizes = [format_quantity("macs", costs.macs), format_quantity("params", costs.params)]
        rows.append([each.key, each.origin, *sizes, *shown, "chosen" if each == ladder.winner() else ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    again = [each.key for each in ladder.asked if alone.known(each.architecture, alone.setting.seed).remedied]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, *(f"{key}: {AGAIN}." for key in again)]
