"""One search of a run's supernet: from its request to a winner's file, which is written once and read back whenever it is asked for again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from nas.cost import cost
from nas.cost.latency import measure_latency
from nas.machine import pasted
from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.quantities import Budget
from nas.runs.folder import now
from nas.runs.interrupt import Stopped
from nas.runs.records import SearchRecord, digest, read_winner, winner_path, write_architecture
from nas.searching.evaluating import open_evaluator
from nas.searching.known_networks import baselines
from nas.searching.optuna_study import open_study
from nas.searching.search import Instruments, Result, SearchRequest, Trial, failures, search
from nas.searching.supernet_run import SupernetRun
from nas.searching.winner import Winner, choose_winner
from nas.training.setting import DIGITS

STUDY_FILE = "study.db"


@dataclass(frozen=True)
class SearchRun:
    """A search of a supernet: `request` has the budgets that bind, `budgets` are all that were given, `asked` names the starts that the user chose."""

    supernet: SupernetRun
    request: SearchRequest
    budgets: tuple[Budget, ...]
    asked: tuple[str, ...] = ()
    latency_batch: int = 1
    workers: int = 0

    @cached_property
    def study(self) -> str:
        """The study's name: budgets and sampler; whatever else makes another study stands behind them as a few digits where it is not the usual."""
        begun = (self.supernet.recorded().supernet or self.supernet.record()).recipe_content.get("search", {})
        settings = self.supernet.setting.recipe.search.model_dump(exclude={"trials"})
        usual = {"floor": SearchRequest.floor, "start": [], "search": {key: begun.get(key, value) for key, value in settings.items()}}
        here = {"floor": self.request.floor, "start": sorted(self._keys()[name] for name in self.asked), "search": settings}
        unusual = {key: value for key, value in {**here, **self._measured()}.items() if value != {**usual, "batch": 1}.get(key)}
        name = "-".join([*(each.text for each in self.budgets), self.request.sampler])
        return f"{name}-{hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:6]}" if unusual else name

    def _keys(self) -> dict[str, str]:
        return {name: self.supernet.space.decode(values).key for name, values in self.request.starts.items()}

    def _measured(self) -> dict[str, int]:
        """What measured budgets depend on besides the network."""
        return {"batch": self.latency_batch} if any(each.quantity.measured for each in self.budgets) else {}

    def _facts(self) -> dict[str, Any]:
        """What has to be the same when the study is continued, besides the request."""
        device = {"device": str(self.supernet.setting.device)} if self._measured() else {}
        weights = {"space": self.supernet.space.fingerprint, "weights": self.supernet.identity}
        return {**weights, **self._measured(), **device}

    def winner(self, stop: Callable[[], bool]) -> SearchRecord:
        """The winner, searched now as far as it was not; trains the supernet first where the run has none.

        Raises:
            ValueError: no network evaluated obeys the budgets, or a file of the run cannot be used.
            Stopped: interrupted; what was evaluated is stored.
        """
        request, run, path = self.request, self.supernet.run, winner_path(self.supernet.run, self.study)
        done = self.supernet.recorded().searches.get(self.study)
        if done and done.trials == request.trials and self.supernet.finished() and (winner := read_winner(run, self.study)):
            print(f"This search is done ({path}); its result again:")
            return winner
        if self.supernet.setting.data == DIGITS:
            print("The data are scikit-learn's digits: this shows the machine working; a ranking means little. --data gives a real one.")
        setting, space, supernet = self.supernet.setting, self.supernet.space, self.supernet.trained(stop)
        held_out = setting.images.size("held_out")
        with contextlib.ExitStack() as stack:
            batches = list(setting.images.evaluation_batches("held_out", setting.recipe.search.batch_size))
            evaluator = stack.enter_context(open_evaluator(supernet, batches, setting.recipe, setting.device, self.workers))
            latency = evaluator.alone(partial(measure_latency, device=setting.device, batch=self.latency_batch))
            instruments = Instruments(cost, evaluator.evaluate, {"latency_ms": latency})
            study = stack.enter_context(open_study(run.folder / STUDY_FILE, self.study, space.decisions, request, self._facts()))
            budgets = " and ".join(each.text for each in self.budgets)
            held = f"{held_out} held-out training images"
            print(f"Searching {space.name} for {budgets}: {request.trials} networks on {held}, study {self.study}.", flush=True)
            if request.starts:
                print(f"Starting with networks that the space contains: {', '.join(request.starts)}.")
            progress = stack.enter_context(Progress("search", request.trials, "evaluation"))
            result = search(space, study, request, instruments, stop, partial(_show, progress))
            for reason, count in failures(result.trials).most_common():
                print(f"{count} of {result.num_evaluated} networks could not be evaluated: {reason}.")
            if result.ending == "stopped":
                raise Stopped(f"search stopped after {result.num_evaluated} of {request.trials} evaluations")
            if result.ending == "exhausted":
                print(f"The space has no more networks to offer within the budget: {result.num_evaluated} evaluated.")
            chosen = choose_winner(result.trials, request, num_heldout=held_out, measure=instruments.measure)
        seconds = {"seconds": result.seconds, "evaluate_seconds": result.evaluate_seconds}
        run.log("search", study=self.study, evaluations=result.num_evaluated, trials=len(result.trials), **seconds)
        self._write(result, chosen, held_out)
        written = read_winner(run, self.study)
        assert written is not None
        return written

    def _write(self, result: Result, winner: Winner, held_out: int) -> None:
        """Writes the baselines and the winner."""
        opened, run, chosen = self.supernet, self.supernet.run, winner.trial
        found = {
            "accuracy_supernet": round(chosen.objectives[0], 4), "standard_error": round(winner.standard_error, 4),
            "held_out_images": held_out, "trial": chosen.number, "evaluations": result.num_evaluated,
            "failures": failures(result.trials).total(), "usage": round(winner.usage, 4), "floor": self.request.floor, "reason": winner.reason,
        }  # fmt: skip
        entries = {
            "budgets": [each.text for each in self.budgets], "found": found, "space": opened.space_name,
            "space_fingerprint": opened.space.fingerprint, **opened.setting.record(), "run": run.name, "study": self.study,
            "device": str(opened.setting.device),
        }  # fmt: skip

        def write(name: str, architecture: Architecture, title: str, costs: Any, **changed: Any) -> None:
            path = run.folder / f"{name}.yaml"
            counted = {"costs": {**cost(architecture)._asdict(), **costs}}
            write_architecture(path, architecture, {**counted, **entries, **changed}, f"{title} Retrain it: {pasted('retrain', path)}")

        for each in baselines(opened.space, self.request.budgets, self.request.floor, opened.setting.frame):
            write(f"baselines/{self.study}/{each.name}", each.architecture, each.title, {}, found=each.found)
        write(self.study, chosen.architecture, "The winner of a search.", winner.measured)
        done = {name: record.model_dump() for name, record in opened.recorded().searches.items()}
        finished = {"trials": self.request.trials, "finished": now(), "winner": digest(winner_path(run, self.study))}
        run.record(searches={**done, self.study: finished})


def _show(progress: Progress, trial: Trial, evaluated: int, best: Trial | None) -> None:
    if evaluated > progress.done:
        progress.reach(evaluated, f"best {best.objectives[0]:.2%}" if best else None)
