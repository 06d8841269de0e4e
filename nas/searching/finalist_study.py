"""Finalists as a study of their own, beside that of the search they end: accuracies of networks trained alone are another kind, for an axis of their own.

Trial 0 is the winner, and the others follow by how far they came. Who was left behind is pruned, with what it had shown until then.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.searching.optuna_study import FINALISTS_OF
from nas.searching.study_storage import Place, full_name, open_storage
from nas.searching.trained_alone import Trained
from nas.spaces.decisions import SearchSpace
from nas.spaces.schema import Values

METRIC = "accuracy, trained alone (0 to 1)"
DIGEST = "nas:finalists"  # attribute of the study that is ours: of what was written


@dataclass(frozen=True)
class Climber:
    """A network of the ladder, with what its training alone has given so far."""

    architecture: Architecture
    origin: str
    by_hand: bool
    supernet: float | None
    fine_tuned: float | None
    trained: Trained
    schedule: str = ""  # `Alone.digest`: accuracies by different ones cannot be compared

    @property
    def steps(self) -> int:
        """At how many it was judged last, before the end."""
        return self.trained.rungs[-1][0] if self.trained.rungs else 0

    @property
    def last(self) -> float | None:
        """Its accuracy at the last rung that it came to."""
        if self.trained.ended:
            return self.trained.ended.accuracy
        return self.trained.rungs[-1][1] if self.trained.rungs else None


def ranked(climbers: Sequence[Climber], winner: str) -> list[Climber]:
    """The winner (its key) first, then those that came to the end, then those that came furthest; of equal ones the most accurate."""

    def place(each: Climber) -> tuple[bool, bool, int, float]:
        ended = each.trained.ended is not None and each.trained.ended.failure is None
        return each.architecture.key != winner, not ended, 0 if ended else -each.steps, -(each.last or 0.0)

    return sorted(climbers, key=place)


def study_of(search: str) -> str:
    """The name of the study of a search's finalists."""
    return f"{search}-finalists"


def write_finalists(place: Place, search: str, space: SearchSpace | None, climbers: Sequence[Climber], winner: str) -> None:
    """Writes the study of a search's finalists anew, unless it is there as it is to be; whoever calls holds the run.

    Args:
        place: of the studies.
        search: whose finalists they are.
        space: without it trials have no parameters.
        climbers: all of them; those without an accuracy or a failure are left out.
        winner: its key; "" while there is none.

    Raises:
        ValueError: the place cannot be used.
    """
    trials = [_trial(each, space, winner) for each in ranked(climbers, winner) if each.trained.rungs or each.trained.ended]
    told = [[each.state.name, each.values, each.intermediate_values, each.user_attrs, each.params] for each in trials]
    digest, name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12], full_name(place, study_of(search))
    with open_storage(place) as storage:
        if name in optuna.get_all_study_names(storage):
            study = optuna.load_study(study_name=name, storage=storage)
            if digest_of(study) == digest:
                return
            optuna.delete_study(study_name=name, storage=storage)
        if trials:
            study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # metric names are
                study.set_metric_names([METRIC])
            study.set_user_attr(FINALISTS_OF, search)
            study.add_trials(trials)
            storage.set_study_system_attr(study._study_id, DIGEST, digest)


def digest_of(study: optuna.Study) -> str | None:
    """Of what was written into a study of finalists."""
    return study._storage.get_study_system_attrs(study._study_id).get(DIGEST)


def _trial(climber: Climber, space: SearchSpace | None, winner: str) -> FrozenTrial:
    ended, values = climber.trained.ended, _values(space, climber.architecture) if space else {}
    state = TrialState.PRUNED if ended is None else TrialState.FAIL if ended.failure else TrialState.COMPLETE
    trial = optuna.trial.create_trial(
        state=state,
        value=ended.accuracy if ended else None,
        params=dict(values),
        distributions={name: CategoricalDistribution(space.decisions[name]) for name in values if space},
        intermediate_values=dict(climber.trained.rungs),
        user_attrs=_attributes(climber, winner),
    )
    trial.datetime_start = trial.datetime_complete  # how long it took is in no record of the study
    return trial


def _attributes(climber: Climber, winner: str) -> dict[str, Any]:
    counted, ended = cost(climber.architecture), climber.trained.ended
    shown: Mapping[str, Any] = {
        "winner": climber.architecture.key == winner or None,
        "arch_key": climber.architecture.key,
        "origin": climber.origin,
        "macs_m": round(counted.macs / 1e6, 3),
        "params_m": round(counted.params / 1e6, 3),
        "rung": len(climber.trained.rungs) + (ended is not None and ended.failure is None),  # how often it was judged, the end included
        "supernet": climber.supernet,
        "fine_tuned": climber.fine_tuned,
        "failure": ended.failure if ended else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _values(space: SearchSpace, architecture: Architecture) -> Values:
    """An option for every decision that has an effect on it; none for a published network that the space does not have."""
    try:
        return space.effective(architecture)
    except ValueError:
        return {}
