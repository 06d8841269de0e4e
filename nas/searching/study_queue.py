"""Several drivers on one study: who leads it puts the networks of a generation into a queue on the server, and whoever is there evaluates them.

The queue is a study beside that of the search. A network in it is taken by one driver, since Optuna lets a waiting trial begin once. What is found
out goes to the leader alone, who tells the search's study in order: so the study is the one that a single driver gives. A driver that dies leaves a
network taken; the leader evaluates it itself where it waits longer than it should.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.networks.architecture import Architecture
from nas.runs.interrupt import Stopped
from nas.searching.search import Evaluation
from nas.searching.study_storage import QUEUE, Server, full_name, is_led, readable_errors

PAUSE = 0.5  # seconds between two looks at what others have done
PATIENCE = 10.0  # seconds that others may take at least, and three times what the leader took itself for its slowest
LEADER = "leader"  # attribute of what a leader has taken: there is one at a time, so what an earlier one left is nobody's
OF = "of"  # attribute of a queue: the study's number, of which a server gives none twice
ENDED = "nas:evaluated"  # attribute of a search's study on a server: how many networks were wanted when it had evaluated them all
WON = "nas:won"  # likewise, when its winner was written: these, and how many finalists

Evaluate = Callable[[Iterable[Architecture]], Iterator[Evaluation]]


@dataclass(frozen=True)
class Queue:
    """Networks that wait for an evaluation.

    Attributes:
        place: the server.
        storage: connected to it.
        study: of the search.
    """

    place: Server
    storage: RDBStorage
    study: str

    @property
    def _name(self) -> str:
        return full_name(self.place, self.study) + QUEUE

    def _id(self) -> int | None:
        """Of the queue's study; None where there is none."""
        try:
            return self.storage.get_study_id_from_name(self._name)
        except KeyError:
            return None

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        queue = self._id()
        try:
            return [] if queue is None else self.storage.get_all_trials(queue, deepcopy=False, states=states or None)
        except KeyError:  # removed meanwhile
            return []

    # ---- for everyone ----------------------------------------------------------------------------------------------

    def _taken(self, mine: deque[int], leader: bool = False) -> Iterator[Architecture]:
        """Takes what waits, one after the other, and notes which."""
        while True:
            with readable_errors(self.place):
                trial = next((each for each in self._trials(TrialState.WAITING) if self._take(each._trial_id, leader)), None)
            if trial is None:
                return
            mine.append(trial._trial_id)
            yield Architecture.from_dict(trial.user_attrs["architecture"], f"{self.place}: {self._name}")

    def _take(self, number: int, leader: bool) -> bool:
        try:
            taken = self.storage.set_trial_state_values(number, TrialState.RUNNING)
            if taken and leader:
                self.storage.set_trial_user_attr(number, LEADER, True)
            return taken
        except (KeyError, optuna.exceptions.UpdateFinishedTrialError):
            return False

    def _done(self, number: int, evaluation: Evaluation) -> None:
        """Keeps what was found out, unless somebody else was first."""
        with readable_errors(self.place), contextlib.suppress(KeyError, optuna.exceptions.UpdateFinishedTrialError):
            if evaluation.accuracy is None:
                self.storage.set_trial_user_attr(number, "failure", evaluation.failure)
                self.storage.set_trial_state_values(number, TrialState.FAIL)
            else:
                self.storage.set_trial_state_values(number, TrialState.COMPLETE, [evaluation.accuracy])

    # ---- for the leader --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Makes the queue; of an earlier leader's what is found out stays, and what it had taken waits again. One that was left of a study that
        was removed is not taken for it: its accuracies may be of other weights."""
        with readable_errors(self.place):
            study, queue = self.storage.get_study_id_from_name(full_name(self.place, self.study)), self._id()
            if queue is not None and self.storage.get_study_user_attrs(queue).get(OF) != study:
                self.storage.delete_study(queue)
                queue = None
            if queue is None:
                self.storage.set_study_user_attr(self.storage.create_new_study([StudyDirection.MAXIMIZE], self._name), OF, study)
            for each in self._trials(TrialState.RUNNING):
                if LEADER in each.user_attrs:
                    self.storage.set_trial_state_values(each._trial_id, TrialState.WAITING)

    def close(self, trials: int) -> None:
        """Notes that of so many that were wanted all are evaluated, and removes the queue."""
        with readable_errors(self.place):
            study = self.storage.get_study_id_from_name(full_name(self.place, self.study))
            self.storage.set_study_system_attr(study, ENDED, trials)
            if (queue := self._id()) is not None:
                self.storage.delete_study(queue)

    def won(self, trials: int, finalists: int) -> None:
        """Notes that the winner of so many is written."""
        with readable_errors(self.place):
            study = self.storage.get_study_id_from_name(full_name(self.place, self.study))
            self.storage.set_study_system_attr(study, WON, [trials, finalists])

    def beside(self, evaluate: Evaluate) -> Evaluate:
        """Evaluates as `evaluate` does, in the order of the architectures, and lets others evaluate what waits meanwhile."""

        def evaluated(architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
            wanted, mine = list(architectures), deque[int]()
            places = self._put(wanted)
            here, slowest, since = evaluate(self._taken(mine, leader=True)), 0.0, dict[str, float]()
            for architecture in wanted:
                key = architecture.key
                while (found := self._outcome(places[key])) is None:
                    begun = time.monotonic()
                    if (own := next(here, None)) is not None:
                        slowest = max(slowest, time.monotonic() - begun)
                        self._done(mine.popleft(), own)
                    elif begun - since.setdefault(key, begun) > max(PATIENCE, 3 * slowest):
                        self._done(places[key], next(evaluate([architecture])))
                    else:
                        time.sleep(PAUSE)
                yield found

        return evaluated

    def _put(self, architectures: Iterable[Architecture]) -> dict[str, int]:
        """Lets networks wait, those that are not there; numbers in the storage by their keys."""
        with readable_errors(self.place):
            there = {each.user_attrs["key"]: each._trial_id for each in self._trials()}
            for each in architectures:
                if each.key not in there:
                    told = {"key": each.key, "architecture": each.to_dict()}
                    waiting = optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=told)
                    queue = self._id()
                    assert queue is not None, "a leader opens it first"
                    there[each.key] = self.storage.create_new_trial(queue, waiting)
        return there

    def _outcome(self, number: int) -> Evaluation | None:
        with readable_errors(self.place):
            trial = self.storage.get_trial(number)
        if trial.state == TrialState.FAIL:
            return Evaluation(failure=trial.user_attrs["failure"])
        return Evaluation(trial.value) if trial.state == TrialState.COMPLETE else None

    # ---- for others ------------------------------------------------------------------------------------------------

    def begun(self) -> Mapping[str, Any] | None:
        """The facts that the search's study was begun with; None where nobody leads it, or there is no queue yet or any more."""
        with readable_errors(self.place):
            if self._id() is None or not is_led(self.place, self.study, self.storage):
                return None
            try:
                return self.storage.get_study_user_attrs(self.storage.get_study_id_from_name(full_name(self.place, self.study)))
            except KeyError:
                return None

    def ended(self, trials: int) -> bool:
        """Whether the search has evaluated all, of so many that are wanted."""
        return bool(self._noted(ENDED, 0) >= trials)

    def has_won(self, trials: int, finalists: int) -> bool:
        """Whether its winner of so many is written, wherever that was."""
        return bool(self._noted(WON, None) == [trials, finalists])

    def over(self, trials: int, finalists: int) -> bool:
        """Whether nothing is left to evaluate: the winner is written, or whoever leads trains finalists."""
        return self.has_won(trials, finalists) or (self.ended(trials) and is_led(self.place, self.study, self.storage))

    def _noted(self, name: str, otherwise: Any) -> Any:
        with readable_errors(self.place), contextlib.suppress(KeyError):
            study = self.storage.get_study_id_from_name(full_name(self.place, self.study))
            return self.storage.get_study_system_attrs(study).get(name, otherwise)
        return otherwise

    def help(self, evaluate: Evaluate, trials: int, stop: Callable[[], bool], show: Callable[[int], None]) -> bool:
        """Evaluates what waits until the search has evaluated all that are wanted; False where before that nobody leads it any more.

        Raises:
            Stopped: `stop` became true; what was taken waits again.
        """
        count, mine = 0, deque[int]()
        try:
            while not self.ended(trials):
                for evaluation in evaluate(self._taken(mine)):
                    number = mine.popleft()
                    if evaluation.failure is None:  # which may be this machine's alone: the leader sees for itself
                        self._done(number, evaluation)
                    count += 1
                    show(count)
                    if stop():
                        break
                if stop():
                    raise Stopped(f"evaluating for another driver stopped after {count} networks")
                if self.begun() is None:
                    return self.ended(trials)
                time.sleep(PAUSE)
            return True
        finally:
            for number in mine:
                with contextlib.suppress(KeyError, optuna.exceptions.OptunaError, sqlalchemy.exc.SQLAlchemyError):  # the server may be gone
                    self.storage.set_trial_state_values(number, TrialState.WAITING)
