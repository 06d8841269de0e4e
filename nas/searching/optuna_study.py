"""The samplers, and the study that a run leaves for `optuna-dashboard` to open, in a file or on a server (`study_storage.py`).

The sampler works on a study in memory, since an ask on SQLite costs 80 ms and one in memory 1 to 4; each finished trial is then
written at once and whole, in one transaction. A study that is continued is asked all over again from its first
generation, with a sampler made anew from (seed, generation) for each: so it comes to the same state as one never interrupted.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nas.quantities import QUANTITIES
from nas.searching.evolution import PROPOSERS
from nas.searching.proposals import Proposal
from nas.searching.search import DIRECTIONS, Evaluation, SearchRequest, Stored, Trial
from nas.searching.study_storage import (
    UNREADABLE,
    Place,
    connected,
    delete_command,
    full_name,
    leading,
    open_storage,
    readable_errors,
    study_names,
)

if TYPE_CHECKING:  # the space itself comes with torch
    from nas.networks.mixers import Value
    from nas.spaces.decisions import SearchSpace

METRICS = ("accuracy, supernet's weights (0 to 1)", "multiply-adds")  # names for people
FINALISTS_OF = "finalists_of"  # attribute of a study of finalists (`finalist_study.py`): of which search
OURS = {"space", "budgets", "floor"}  # attributes that every search's study has (`all_facts`)
ABSENT = "absent"  # of a decision that has no effect on a network
DIGEST = "digest"  # attribute of a trial
UNUSUAL = 6  # digits behind a study's name
FORETOLD = "_foretold"  # behind a quantity's name: likewise
# Optuna's own messages (a study was created, a trial finished) would stand between ours.
optuna.logging.set_verbosity(optuna.logging.ERROR)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {  # Optuna's, of (seed, population)
    "nsga2": lambda seed, population: NSGAIISampler(seed=seed, population_size=max(2, population)),
    # constant_liar: the trials of a generation are asked for together, and without it they would crowd at one place. Independent
    # TPE, Optuna's default for several objectives, was both slower (290 against 45 ms a trial) and weaker.
    "tpe": lambda seed, population: TPESampler(seed=seed, multivariate=True, constant_liar=True),
}


@contextlib.contextmanager
def open_study(
    place: Place, name: str, decisions: Mapping[str, Sequence[Value]], request: SearchRequest, facts: Mapping[str, Any]
) -> Iterator[OptunaStudy]:
    """Opens or begins a study, of which a place may hold several, and leads it: no other process may write to it, any number may read it meanwhile.

    Args:
        place: of the study; a file's folder exists.
        name: of the study, unique in the run.
        decisions: options per decision.
        request: all of it but the number of trials has to be the same when the study is continued.
        facts: what else has to be (space, fingerprint, weights, device ...): plain values by name, kept as attributes of the study.

    Raises:
        InUse: another driver leads it.
        ValueError: the place cannot be used, or the study in it was begun with other facts or is not as we left it.
    """
    if request.sampler not in (names := [*PROPOSERS, *SAMPLERS]):
        raise ValueError(f"--sampler: unknown sampler: got {request.sampler!r}; accepted: {', '.join(names)}. Choose one of these.")
    facts = all_facts(request, facts)
    with connected(place) as storage, leading(place, name, storage) as held:
        with readable_errors(place, *UNREADABLE), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # metric names are
            study = optuna.create_study(
                study_name=full_name(place, name), storage=storage, directions=list(DIRECTIONS), load_if_exists=True
            )
            trials = _searched(study)
            if not trials:  # new, or killed while it was begun
                study.set_metric_names(list(METRICS))
                for fact, value in facts.items():
                    study.set_user_attr(fact, value)
            begun = study.user_attrs
        check_facts(place, name, begun, facts)
        stored = {}
        for number, trial in enumerate(trials):
            outcome = _stored(trial, request)
            if outcome is None:
                raise ValueError(
                    f"{_said(place, name)}: trial {trial.number} was changed by another program: got state {trial.state.name}; "
                    f"accepted: finished trials without gaps. To begin it anew, remove it: {delete_command(place, name)}"
                )
            stored[number] = outcome
        yield OptunaStudy(place, study, decisions, request, stored, held)


def check_facts(place: Place, name: str, begun: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Refuses to go on with a study that was begun with other facts."""
    for fact, value in facts.items():
        if begun.get(fact) != value:
            raise ValueError(
                f"{_said(place, name)}: begun with another {fact}: got {value!r}; accepted: {begun.get(fact)!r}. Search with that, or remove it: "
                f"{delete_command(place, name)}"
            )


def _said(place: Place, name: str) -> str:
    return f"{place}: study '{full_name(place, name)}'"


def all_facts(request: SearchRequest, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same when a study is continued: these facts and what of a request makes it; a start by its name and a hash of its values."""
    hashes = {
        name: hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest() for name, values in request.starts.items()
    }
    asked = {
        "budgets": [budget.text for budget in request.budgets],
        "floor": request.floor,
        "starts": [f"{name} {digest[:12]}" for name, digest in hashes.items()],
        "sampler": request.sampler,
        "seed": request.seed,
        "population": request.population,
    }
    return dict(json.loads(json.dumps({**asked, **facts})))


def _stored(trial: FrozenTrial, request: SearchRequest) -> Stored | None:
    """What a trial in the file found out; None if it is not one of ours."""
    attributes = trial.user_attrs
    names = [budget.quantity.name for budget in request.budgets if budget.quantity.measured]
    measured = {name: attributes[name] for name in names if name in attributes}
    if trial.state == TrialState.COMPLETE:
        return Stored(Evaluation(accuracy=trial.values[0]), measured)
    if trial.state == TrialState.FAIL and "failure" in attributes:
        return Stored(Evaluation(failure=attributes["failure"]), measured)
    return Stored(None, {}) if trial.state == TrialState.PRUNED else None


class OptunaStudy:
    """A `nas.searching.search.Study` in an SQLite file or on a server; `held` makes sure that this process still leads it."""

    def __init__(
        self,
        place: Place,
        written: optuna.Study,
        decisions: Mapping[str, Sequence[Value]],
        request: SearchRequest,
        stored: dict[int, Stored],
        held: Callable[[], None] = lambda: None,
    ) -> None:
        self.stored, self._held = stored, held
        self._place, self._written, self._request = place, written, request
        # Where arithmetic proposes whole generations (`PROPOSERS`), this sampler is never asked.
        self._memory = optuna.create_study(directions=list(DIRECTIONS), sampler=RandomSampler(seed=request.seed))
        self._table: dict[str, BaseDistribution] = {name: CategoricalDistribution(tuple(options)) for name, options in decisions.items()}
        self._earlier = dict(enumerate(_searched(written)))
        self._open: dict[int, tuple[optuna.Trial, int]] = {}  # number -> trial in memory that is not finished, generation
        self._last_finished = datetime.datetime.now()

    def ask(self, generation: int, proposals: Sequence[Proposal], num: int) -> list[Proposal]:
        """The next `num` trials, the proposals first; the same for the same seed, generation and trials before.

        Raises:
            ValueError: a stored trial is not the one that is suggested now, as after an upgrade in the middle of a generation.
        """
        first, seed = len(self._memory.get_trials(deepcopy=False)), self._request.seed
        earlier = [self._earlier[number] for number in range(first, first + num) if number in self._earlier]
        if len(earlier) == num:
            # A whole generation is taken as it is stored. It would be suggested the same, but for a change of versions in between.
            proposals = [Proposal(trial.params, trial.user_attrs.get("origin", "")) for trial in earlier]
        digest = hashlib.sha256(f"{seed}/{generation}".encode()).digest()
        if make := SAMPLERS.get(self._request.sampler):
            self._memory.sampler = make(int.from_bytes(digest[:4], "big"), self._request.population)
        sampler = self._memory.sampler
        if isinstance(sampler, NSGAIISampler):
            # NSGA-II counts only COMPLETE trials and takes a generation for unfinished until it has population_size of them;
            # over-budget trials being PRUNED, it would breed from the same parents again. Selection keeps its own count.
            sampler.population_size = 1
        for proposal in proposals:
            self._memory.enqueue_trial(dict(proposal.values))

        suggestions = []
        origins = [proposal.origin for proposal in proposals] + [""] * (num - len(proposals))
        for number, origin in enumerate(origins, first):
            trial = self._memory.ask(self._table)
            if isinstance(sampler, NSGAIISampler):
                _ = trial.relative_params  # is what enters a trial into a generation; without it an enqueued one is in none
            assert trial.number == number, "the memory holds a trial that was not asked for here"
            if number in self._earlier and self._earlier[number].params != trial.params:
                raise ValueError(
                    f"{self._place}: study '{self._written.study_name}': trial {number} is not what seed {seed} gives now: got other values than are stored; accepted: the "
                    "versions of nas, optuna and numpy that began it. Use those, or another --seed."
                )
            self._open[number] = trial, generation
            suggestions.append(Proposal(trial.params, origin))
        return suggestions

    def tell(self, trial: Trial) -> None:
        """Tells the sampler and, if the trial is not in the file yet, writes it there.

        Raises:
            ValueError: the place cannot be written to.
        """
        ours, generation = self._open.pop(trial.number)
        for name, violation in trial.constraints.items():
            ours.set_constraint(name, violation)
        for name, value in _attributes(trial, generation).items():
            ours.set_user_attr(name, value)
        if trial.accuracy is None:
            finished = self._memory.tell(ours, state=TrialState.FAIL if trial.evaluation else TrialState.PRUNED)
        else:
            finished = self._memory.tell(ours, trial.objectives)
        if trial.number not in self.stored:
            # optuna-dashboard 0.21 reads nothing but the list that older versions of Optuna wrote and shows a trial without one as feasible.
            # `test_dashboard_still_needs_the_list` says when it can go.
            finished.system_attrs = {**finished.system_attrs, "constraints": list(trial.constraints.values())}
            finished.system_attrs = {**finished.system_attrs, DIGEST: _digest(finished)}
            # Since the trial before: the dashboard's timeline then shows what each took; a generation is asked for at one moment.
            finished.datetime_start, self._last_finished = self._last_finished, datetime.datetime.now()
            with readable_errors(self._place):
                self._held()
                self._written.add_trial(finished)


@dataclass(frozen=True)
class StudyTrial:
    """A trial of a search as a study holds it; `values` are options by decision, `foretold` what arithmetic said of measured quantities."""

    number: int
    values: Mapping[str, Value]
    accuracy: float | None
    failure: str | None
    origin: str
    repeat_of: int | None
    measured: Mapping[str, float]
    foretold: Mapping[str, float]


def read_studies(place: Place) -> dict[str, tuple[dict[str, Any], list[StudyTrial]]]:
    """The searches of a run by name, in the order in which they were begun: their facts and trials; none without a file.

    Other programs' studies, such as one that was made in the dashboard, are left out.

    Raises:
        ValueError: the file is damaged, the server does not answer, or no study there is ours.
    """
    if isinstance(place, Path) and not place.exists():
        return {}
    with open_storage(place) as storage, readable_errors(place, *UNREADABLE):
        studies = {name: optuna.load_study(study_name=full, storage=storage) for name, full in study_names(place, storage).items()}
        ours = {name: study for name, study in studies.items() if FINALISTS_OF in study.user_attrs or study.user_attrs.keys() >= OURS}
        searches = {name: study for name, study in ours.items() if FINALISTS_OF not in study.user_attrs}
        found = {name: (dict(study.user_attrs), [_as_read(trial) for trial in _searched(study)]) for name, study in searches.items()}
    if studies and not ours:
        raise ValueError(
            f"{place}: no search of this project in it: got {', '.join(map(repr, studies))}; accepted: what `search` wrote. Move it away, or search again."
        )
    return found


def importances(place: Place, name: str, space: SearchSpace | None) -> dict[str, float]:
    """What each decision of a search is worth by Optuna's estimate, as shares of the whole; empty where it cannot tell, and without the space.

    Of the accuracies with the supernet's weights; those of networks trained alone are something else. What was drawn for a block that a network does
    not have is noise: it counts as absent.
    """
    if space is None:
        return {}
    tables: dict[str, BaseDistribution] = {each: CategoricalDistribution((*options, ABSENT)) for each, options in space.decisions.items()}
    with open_storage(place) as storage, readable_errors(place, *UNREADABLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.load_study(study_name=full_name(place, name), storage=storage)
        trials = [trial for trial in _searched(study) if trial.state == TrialState.COMPLETE and trial.params.keys() == tables.keys()]
        memory = optuna.create_study(direction="maximize")
        for trial in trials:
            there = space.effective(space.decode(trial.params))
            values = {each: there.get(each, ABSENT) for each in space.decisions}
            memory.add_trial(optuna.trial.create_trial(params=values, distributions=tables, value=trial.values[0]))
        try:
            return {space.called(each): value for each, value in optuna.importance.get_param_importances(memory).items()}
        except (ValueError, RuntimeError):  # too few trials, or all alike
            return {}


def _as_read(trial: FrozenTrial) -> StudyTrial:
    told, names = trial.user_attrs, [name for name, quantity in QUANTITIES.items() if quantity.measured]
    measured, foretold = ({name: told[each] for name in names if (each := f"{name}{end}") in told} for end in ("", FORETOLD))
    accuracy = trial.values[0] if trial.state == TrialState.COMPLETE else None
    found = told.get("failure"), told.get("origin", ""), told.get("repeat_of"), measured, foretold
    return StudyTrial(trial.number, trial.params, accuracy, *found)


def told_apart_by(name: str, unusual: Mapping[str, Any]) -> str:
    """The name of a study with settings that are not the usual ones: a few digits of them stand behind its own."""
    return f"{name}-{hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:UNUSUAL]}" if unusual else name


def other_settings(name: str) -> bool:
    """Whether a study's name has such digits."""
    return re.search(rf"-[0-9a-f]{{{UNUSUAL}}}$", name) is not None


def _searched(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a search, in order; those of finalists, which older versions wrote into the same study, are no part of it.

    Raises:
        ValueError: one is not what was written.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if "rung" not in trial.user_attrs]
    for trial in trials:
        if trial.state.is_finished() and trial.system_attrs.get(DIGEST, digest := _digest(trial)) != digest:
            raise ValueError(f"trial {trial.number} is not what was written")
    return trials


def _digest(trial: FrozenTrial) -> str:
    """Of all that a trial holds but times: a database does not notice a flipped bit."""
    options = {name: str(each) for name, each in trial.distributions.items()}
    attributes = [trial.user_attrs, {name: value for name, value in trial.system_attrs.items() if name != DIGEST}]
    content = [trial.state.name, trial.values, trial.params, options, *attributes]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _attributes(trial: Trial, generation: int) -> dict[str, Any]:
    """What the dashboard shows of a trial beside values and parameters; numbers become columns and axes."""
    over = [f"{name} by {violation:.1%}" for name, violation in trial.constraints.items() if violation > 0]
    shown = {
        "over_budget": ", ".join(over) or None,  # the dashboard shows a trial's state and attributes, never its constraints
        "failure": trial.evaluation.failure if trial.evaluation else None,
        "arch_key": trial.architecture.key,
        "macs_m": round(trial.cost.macs / 1e6, 3),
        "params_m": round(trial.cost.params / 1e6, 3),
        "usage": round(trial.usage, 4),
        "generation": generation,
        "origin": trial.origin or None,
        "repeat_of": trial.repeat_of,
        **{f"{name}{FORETOLD}": round(value, 4) for name, value in trial.foretold.items()},
        **trial.measured,
    }
    return {name: value for name, value in shown.items() if value is not None}
