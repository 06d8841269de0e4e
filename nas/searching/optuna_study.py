"""Optuna's room: the samplers, and the study that a run leaves in SQLite for `optuna-dashboard` to open.

The sampler works on a study in memory, since an ask on SQLite costs 80 ms and one in memory 1 to 4; each finished trial is then
written to the file at once and whole, in one transaction. A study that is continued is asked all over again from its first
generation, with a sampler made anew from (seed, generation) for each: so it comes to the same state as one never interrupted.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState

from nas.searching.search import Asked, Proposal, Stored, Trial, Value

DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")
METRICS = ("accuracy", "macs")
# Optuna's own messages (a study was created, a trial finished) would stand between ours.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def _nsga2(seed: int, population: int) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=max(2, population))


def _tpe(seed: int, population: int) -> BaseSampler:
    # constant_liar: the trials of a generation are asked together, and without it they would crowd at one place. Independent
    # TPE, Optuna's default for several objectives, was both slower (290 against 45 ms a trial) and weaker.
    with _without_experimental_warnings():
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _random(seed: int, population: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {"nsga2": _nsga2, "tpe": _tpe, "random": _random}


@contextlib.contextmanager
def open_study(
    path: Path,
    name: str,
    decisions: Mapping[str, Sequence[Value]],
    *,
    sampler: str,
    seed: int,
    population: int,
    facts: Mapping[str, Any],
) -> Iterator[OptunaStudy]:
    """Opens or begins a study in an SQLite file, which may hold several.

    Only one process may write to the file; any number may read it meanwhile.

    Args:
        path: of the file; its folder exists.
        name: of the study, unique in the file.
        decisions: options per decision.
        sampler: one of `SAMPLERS`.
        seed: of everything that is sampled.
        population: trials of a generation, at least 2.
        facts: what else has to be the same when the study is continued (space, fingerprint, budgets, weights ...): plain
            values by name, kept as attributes of the study.

    Raises:
        ValueError: the file is damaged, or the study in it was begun with other facts.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"--sampler: unknown sampler: got {sampler!r}; accepted: {', '.join(SAMPLERS)}. Choose one of these.")
    facts = json.loads(json.dumps({**facts, "sampler": sampler, "seed": seed, "population": population}))
    with _readable_errors(path):
        _check_file(path)
        storage = _connect(path)
    try:
        with _readable_errors(path), _without_experimental_warnings():
            study = optuna.create_study(study_name=name, storage=storage, directions=list(DIRECTIONS), load_if_exists=True)
            trials = study.get_trials(deepcopy=False)
            if not trials:  # new, or killed while it was begun
                study.set_metric_names(list(METRICS))
                for fact, value in facts.items():
                    study.set_user_attr(fact, value)
        place = f"{path}: study '{name}'"
        for fact, value in facts.items():
            begun = study.user_attrs.get(fact)
            if begun != value:
                raise ValueError(f"{place}: begun with another {fact}: got {value!r}; accepted: {begun!r}. Take that, or another --run.")
        stored = {}
        for number, trial in enumerate(trials):
            if trial.number != number or trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
                raise ValueError(
                    f"{place}: trial {trial.number} was changed by another program: got state {trial.state.name}; "
                    "accepted: finished trials without gaps. Take another --run."
                )
            accuracy = trial.values[0] if trial.state == TrialState.COMPLETE else None
            stored[number] = Stored(accuracy, trial.user_attrs.get("latency_ms"))
        yield OptunaStudy(place, study, decisions, SAMPLERS[sampler], seed, population, stored)
    finally:
        # The last connection to close folds the write-ahead log into the file, so that copying study.db alone loses nothing.
        storage.remove_session()
        storage.engine.dispose()


class OptunaStudy:
    """A study for `nas.searching.search.search`: `ask` and `tell` as it wants them."""

    def __init__(
        self,
        place: str,
        written: optuna.Study,
        decisions: Mapping[str, Sequence[Value]],
        make_sampler: Callable[[int, int], BaseSampler],
        seed: int,
        population: int,
        stored: dict[int, Stored],
    ) -> None:
        self.stored = stored
        self._place, self._written = place, written
        self._make_sampler, self._seed, self._population = make_sampler, seed, population
        self._memory = optuna.create_study(storage=InMemoryStorage(), directions=list(DIRECTIONS))
        self._table: dict[str, BaseDistribution] = {name: CategoricalDistribution(tuple(options)) for name, options in decisions.items()}
        self._earlier = {trial.number: trial for trial in written.get_trials(deepcopy=False)}
        self._asked: dict[int, tuple[optuna.Trial, int]] = {}  # number -> trial in memory, generation
        self._last_told = datetime.datetime.now()

    def ask(self, generation: int, proposals: Sequence[Proposal], num: int) -> list[Asked]:
        """The next `num` trials, the proposals first; the same for the same seed, generation and trials told.

        Raises:
            ValueError: a stored trial is not the one that is asked now, as after an upgrade in the middle of a generation.
        """
        first = len(self._memory.get_trials(deepcopy=False))
        earlier = [self._earlier[number] for number in range(first, first + num) if number in self._earlier]
        if len(earlier) == num:
            # A whole generation is taken as it is stored. It would be asked the same, but for a change of versions in between.
            proposals = [Proposal(trial.params, trial.user_attrs.get("origin", "")) for trial in earlier]
        digest = hashlib.sha256(f"{self._seed}/{generation}".encode()).digest()
        self._memory.sampler = sampler = self._make_sampler(int.from_bytes(digest[:4], "big"), self._population)
        if isinstance(sampler, NSGAIISampler):
            # NSGA-II counts only COMPLETE trials and takes a generation for unfinished until it has population_size of them;
            # over-budget trials being PRUNED, it would breed from the same parents again. Selection keeps its own count.
            sampler.population_size = 1
        for proposal in proposals:
            self._memory.enqueue_trial(dict(proposal.values))

        asked = []
        origins = [proposal.origin for proposal in proposals] + [""] * (num - len(proposals))
        for number, origin in enumerate(origins, first):
            trial = self._memory.ask(self._table)
            if isinstance(sampler, NSGAIISampler):
                _ = trial.relative_params  # is what enters a trial into a generation; without it an enqueued one is in none
            assert trial.number == number, "the memory holds a trial that was not asked here"
            if number in self._earlier and self._earlier[number].params != trial.params:
                raise ValueError(
                    f"{self._place}: trial {number} is not what seed {self._seed} gives now: got other values than are stored; "
                    "accepted: the versions of nas, optuna and numpy that began it. Use those, or another --run."
                )
            self._asked[number] = trial, generation
            asked.append(Asked(number, trial.params, origin))
        return asked

    def tell(self, trial: Trial) -> None:
        """Tells the sampler and, if the trial is not in the file yet, writes it there.

        Raises:
            ValueError: the file cannot be written.
        """
        asked, generation = self._asked.pop(trial.number)
        _set_constraints(asked, trial.constraints)
        for name, value in _attributes(trial, generation).items():
            asked.set_user_attr(name, value)
        if trial.accuracy is None:
            finished = self._memory.tell(asked, state=TrialState.PRUNED)
        else:
            finished = self._memory.tell(asked, trial.objectives)
        if trial.number not in self.stored:
            # Since the trial before: the dashboard's timeline then shows what each took; a generation is asked at one moment.
            finished.datetime_start, self._last_told = self._last_told, datetime.datetime.now()
            with _readable_errors(self._place):
                self._written.add_trial(finished)


def _attributes(trial: Trial, generation: int) -> dict[str, Any]:
    """What the dashboard shows of a trial beside values and parameters; numbers become columns and axes."""
    over = [f"{quantity} by {violation:.1%}" for quantity, violation in trial.constraints.items() if violation > 0]
    shown = {
        "over_budget": ", ".join(over) or None,  # the dashboard shows a trial's state and attributes, never its constraints
        "arch_key": trial.architecture.key,
        "macs_m": round(trial.cost.macs / 1e6, 3),
        "params_m": round(trial.cost.params / 1e6, 3),
        "usage": round(trial.usage, 4),
        "generation": generation,
        "origin": trial.origin or None,
        "repeat_of": trial.repeat_of,
        "latency_ms": trial.latency_ms,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _set_constraints(trial: optuna.Trial, constraints: Mapping[str, float]) -> None:
    """Sets value / limit - 1 per budget, for Optuna by name and for its dashboard as a list.

    optuna-dashboard 0.21 reads nothing but the list that older versions of Optuna wrote and shows a trial without one as feasible.
    With both, Optuna counts each violation twice, for all trials alike. `test_dashboard_still_needs_the_list` says when the
    list can go.
    """
    for name, value in constraints.items():
        trial.set_constraint(name, value)
    trial.storage.set_trial_system_attr(trial._trial_id, "constraints", list(constraints.values()))


# ---- the file ----------------------------------------------------------------------------------------------------------


_distribution_text = functools.cache(distribution_to_json)


class _QuickStorage(RDBStorage):
    """RDBStorage that writes a trial's parameters and attributes without looking up each one first.

    The look-ups guard against other writers and changed options, which one writer and a fingerprint rule out here. They are 34
    of the 41 ms that a trial with 30 parameters takes. Should Optuna rename these two, writing becomes slow again, not wrong.
    """

    def _set_trial_param_without_commit(
        self, session, trial_id, param_name, param_value_internal, distribution, previous_distribution=None
    ):  # type: ignore[no-untyped-def]
        text = _distribution_text(distribution)  # the same few, over and over
        session.add(
            models.TrialParamModel(trial_id=trial_id, param_name=param_name, param_value=param_value_internal, distribution_json=text)
        )

    def _set_trial_attr_without_commit(self, session, model_cls, trial_id, key, value):  # type: ignore[no-untyped-def]
        session.add(model_cls(trial_id=trial_id, key=key, value_json=json.dumps(value)))


def _connect(path: Path) -> RDBStorage:
    """A storage on the file, whose connections alone get our settings."""

    def connection() -> sqlite3.Connection:
        # With a write-ahead log readers do not block the writer, and a commit waits for no disk: a kill loses nothing, a power
        # cut the last trials at most.
        made = sqlite3.connect(path, timeout=30, check_same_thread=False)
        for setting in ("journal_mode=WAL", "synchronous=NORMAL"):
            made.execute(f"PRAGMA {setting}")
        return made

    return _QuickStorage(f"sqlite:///{path.resolve()}", engine_kwargs={"creator": connection})


def _check_file(path: Path) -> None:
    """Refuses a file that SQLite finds damaged, before anything is written to it.

    Raises:
        ValueError: it is not SQLite, or torn.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError:
        raise  # locked, or no permission: not damaged
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        first = str(found).splitlines()[0]
        raise ValueError(
            f"{path}: damaged: got '{first}'; accepted: an SQLite study. Move it away (the search then begins anew) or restore a copy."
        )


@contextlib.contextmanager
def _readable_errors(place: object) -> Iterator[None]:
    """Turns what SQLAlchemy and Optuna raise about the file into one line.

    Raises:
        ValueError: instead.
    """
    try:
        yield
    except (sqlite3.OperationalError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        cause = error.__cause__ or error
        text = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        raise ValueError(
            f"{place}: cannot be used: got '{text}'; accepted: an SQLite study that can be written. "
            "Check free space and permissions, and that its version of Optuna is not newer."
        ) from error


@contextlib.contextmanager
def _without_experimental_warnings() -> Iterator[None]:
    """Optuna calls metric names and multivariate TPE experimental; both are wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
