"""Which network a search ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.quantities import Budget
from nas.searching.search import LOGITS, MEMORY, Measure, SearchRequest, Trial, failures, measured_values

OTHER_STUDY = "mend the cause, then begin another on the same supernet by another --budget or --floor"
ADVICE = {
    MEMORY: "begin another on the same supernet by a smaller batch_size under search in a copy of the recipe, given with --recipe",
    LOGITS: "train another supernet with a lower --lr and another --run",
}


@dataclass(frozen=True)
class Winner:
    """The network a search ends with."""

    trial: Trial  # of the study
    measured: Mapping[str, float]  # by name the limited quantities that are measured, as measured again at the end
    usage: float  # largest value / limit over the budgets, with these
    standard_error: float  # of its accuracy
    reason: str  # why this one, to be printed


def standard_error(accuracy: float, num_heldout: int) -> float:
    """Of a share measured on so many images."""
    return math.sqrt(accuracy * (1 - accuracy) / num_heldout)


def choose_winner(trials: Sequence[Trial], request: SearchRequest, *, num_heldout: int, measure: Measure) -> Winner:
    """The most accurate network whose usage lies between the floor and 1; of equally accurate ones the one that uses more, then the earlier.

    Quantities that are measured are measured again for the choice, and it has to obey as measured now, or the next one is chosen. Where
    nothing lies in the band, the most accurate feasible network is taken and the reason says so.

    Args:
        trials: all of a search.
        request: that of the search.
        num_heldout: images that the accuracies are shares of.
        measure: as in `Instruments`.

    Raises:
        ValueError: every evaluation failed, or no network obeys the budgets.
    """
    candidates = [trial for trial in trials if trial.feasible and trial.repeat_of is None]
    low = request.floor if request.budgets else 0.0  # without a limit there is no band
    while candidates:
        in_band = [trial for trial in candidates if low <= trial.usage <= 1]
        chosen = max(in_band or candidates, key=_by_accuracy)
        try:
            now = chosen.held_to(request.budgets, measured_values(chosen.architecture, request.budgets, measure))
        except MemoryError:  # the machine has less to spare than before
            now = None
        if now and now.feasible:
            reason = _reason(f"{low:.0%}" if request.budgets else None, bool(in_band))
            return Winner(chosen, now.measured, now.usage, standard_error(chosen.objectives[0], num_heldout), reason)
        candidates.remove(chosen)
    raise ValueError(_no_winner(trials, request.budgets))


def _no_winner(trials: Sequence[Trial], budgets: Sequence[Budget]) -> str:
    failed, tried = failures(trials), len({trial.architecture.key for trial in trials if trial.evaluation})
    if failed and failed.total() == tried:
        reason, num = failed.most_common(1)[0]
        return (
            f"search: every evaluation failed, {num} of {tried} for one reason: got '{reason}'; accepted: at least one accuracy. "
            f"What failed is not tried again in this study: {ADVICE.get(reason, OTHER_STUDY)}."
        )
    texts = " and ".join(budget.text for budget in budgets)
    return f"--budget {texts}: no network evaluated obeys it: got {len(trials)} trials; accepted: one or more. Raise it, or --trials."


def _by_accuracy(trial: Trial) -> tuple[float, float, int]:
    return trial.objectives[0], trial.usage, -trial.number


def _reason(low: str | None, in_band: bool) -> str:
    """Why this one; `low` is the lower end of the band, None with no budget."""
    band = f"between {low} and 100% of the tightest budget" if low else "of all, since no budget binds"
    return f"the most accurate {band}" if in_band else f"no network evaluated lies {band}: the most accurate within budget"
