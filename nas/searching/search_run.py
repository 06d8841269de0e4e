"""One search of a run's supernet: from its request to a winner's file, which is written once and read back whenever it is asked for again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from nas.cost import cost
from nas.cost.latency import measure_latency, timed
from nas.cost.measured import measures
from nas.cost.targets import Target
from nas.data.decoding import QUIET_SECONDS
from nas.machine import pasted
from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.quantities import Budget, format_quantity
from nas.runs.folder import now
from nas.runs.interrupt import Stopped
from nas.runs.records import HOW, SearchRecord, digest, read_winner, winner_path, write_architecture
from nas.searching.candidates import Candidates, Looks, candidates
from nas.searching.evaluating import open_evaluator
from nas.searching.finalist_study import Climber, write_finalists
from nas.searching.finals import Finals, save_inherited, table
from nas.searching.known_networks import baselines
from nas.searching.latency_table import TableRun
from nas.searching.optuna_study import OptunaStudy, open_study, told_apart_by
from nas.searching.proposals import usage
from nas.searching.ray_cluster import Crew
from nas.searching.search import Instruments, Result, SearchRequest, Trial, failures, measured_values, search
from nas.searching.study_queue import Queue
from nas.searching.study_storage import Place, Server, connected, place_of
from nas.searching.supernet_run import SupernetRun
from nas.searching.targeted import TIMES
from nas.searching.trained_alone import OWN
from nas.searching.winner import Winner, choose_winner, standard_error
from nas.spaces.supernet import Supernet
from nas.training.recipe import Phase
from nas.training.setting import DIGITS, look_at_images
from nas.yaml_files import validate

LONG_TIMING = 300.0  # seconds that nobody waits for before anything begins
PASSES = 35  # by which a network is timed
ALONE = "alone"  # in a study's name: without a supernet


class WonElsewhere(Exception):
    """Another driver has written the winner meanwhile, where this one does not see it."""


@dataclass(frozen=True)
class SearchRun:
    """A search of a supernet: `request` has the budgets that bind, `budgets` are all that were given, `asked` names the starts that the user chose;
    `finalists` besides those drawn by hand are trained alone, with 0 the supernet chooses."""

    supernet: SupernetRun
    request: SearchRequest
    budgets: tuple[Budget, ...]
    asked: tuple[str, ...] = ()
    target: Target = field(default_factory=Target)  # where latency and memory are limited
    table: str = ""  # digest of the latency table that foretells them; "": none does
    crew: Crew = field(default_factory=Crew)
    finalists: int = 0
    storage: str = ""  # of the study: address of a database server; "": where the run has its studies

    @cached_property
    def place(self) -> Place:
        """Of the study."""
        return place_of(self.supernet.run, self.storage)

    @cached_property
    def study(self) -> str:
        """The study's name: budgets and sampler; whatever else makes another study stands behind them as a few digits where it is not the usual."""
        recipe, begun = self.supernet.setting.recipe, (self.supernet.recorded().supernet or self.supernet.record()).recipe_content
        settings, before = recipe.search.model_dump(exclude={"trials", "finalists"}), begun.get("search", {})
        usual = {"floor": SearchRequest.floor, "start": [], "search": {key: before.get(key, value) for key, value in settings.items()}}
        here = {"floor": self.request.floor, "start": sorted(self._keys()[name] for name in self.asked), "search": settings}
        usual |= {"target": str(Target(str(self.supernet.setting.device)))}
        if self.finalists:
            # An earlier version may have had other entries.
            known = {key: value for key, value in begun.get("retrain", {}).items() if key in Phase.model_fields}
            here["retrain"], usual["retrain"] = _schedule(recipe.retrain), _schedule(validate(Phase, known, "run.yaml: recipe.retrain"))
        unusual = {key: value for key, value in {**here, **self._measured()}.items() if value != usual.get(key)}
        name = "-".join([*(each.text for each in self.budgets), self.request.sampler if self.request.trials else ALONE])
        return told_apart_by(name, unusual)

    def _keys(self) -> dict[str, str]:
        return {name: self.supernet.space.decode(values).key for name, values in self.request.starts.items()}

    def _measured(self) -> dict[str, str]:
        """What measured budgets depend on besides the network."""
        found = {"target": str(self.target), "table": self.table} if any(each.quantity.measured for each in self.budgets) else {}
        return {name: value for name, value in found.items() if value}

    def facts(self, supernet: Supernet | None) -> dict[str, Any]:
        """What has to be the same when the study is continued, besides the request. A study on a server may be met by another supernet."""
        weights = {"weights_digest": _digest(supernet)} if supernet and isinstance(self.place, Server) else {}
        return {"space": self.supernet.space.fingerprint, "weights": self.supernet.identity, **weights, **self._measured()}

    @property
    def measure(self) -> dict[str, Callable[[Architecture], float]]:
        """By name, how a measured quantity is found out; while nothing else runs."""
        return measures(self.target)

    def check_measured(self) -> None:
        """Times the smallest network of each pattern of mixers, before anything is trained: one has to be within what is measured and limited.

        Raises:
            ValueError: none is, or so many images at a time would take minutes or do not fit.
        """
        budgets = [each for each in self.request.budgets if each.quantity.measured]
        if not budgets:
            return
        space = self.supernet.space
        values = space.encode(space.smallest(lambda architecture: cost(architecture).macs))
        smallest = {each.key: each for each in (space.decode({**values, **pattern}) for pattern in space.patterns().values())}
        self._check_batch(list(smallest.values()), sum(each.quantity.name in TIMES for each in budgets))
        for budget in budgets:
            times = []
            with Progress(f"smallest networks for {budget.text}", len(smallest), "network", quiet=QUIET_SECONDS) as progress:
                for each in smallest.values():
                    times.append(self.measure[budget.quantity.name](each))
                    progress.advance()
            if min(times) > budget.limit:
                least = format_quantity(budget.quantity.name, min(times))
                raise ValueError(
                    f"--budget {budget.text}: no network of space {space.name} was found that obeys it here: got {budget.text}; accepted: {least}, what "
                    f"the fastest of {len(times)} smallest networks needs on {self.target}, or more. Raise the budget."
                )

    def _check_batch(self, networks: Sequence[Architecture], budgets: int) -> None:
        """What it takes to time these networks, for each of so many budgets, is foretold by a pass over a single image."""
        target, batch = self.target, self.target.batch
        accepted = f"accepted: what is timed in {LONG_TIMING / 60:.0f} minutes. Take fewer images."
        try:
            one = measure_latency(networks[0], replace(target, batch=1), partial(timed, warmup=1, runs=3)) / 1000
            passes = 1 + budgets * len(networks) * PASSES
            if (seconds := passes * batch * one / (1 if target.kind == "cpu" else 100)) > LONG_TIMING:
                got = f"got batch={batch}, some {seconds / 60:.0f} minutes for the smallest networks alone"
                most = max(1, int(0.9 * batch * LONG_TIMING / seconds))  # another time it takes a little longer
                raise ValueError(f"--target: too many images for a pass: {got}; {accepted.rstrip('.')}, such as batch={most}.")
            measure_latency(networks[0], target, partial(timed, warmup=0, runs=1))
        except MemoryError:
            raise ValueError(f"--target: no memory for so many images: got batch={batch}; {accepted}") from None

    def done(self) -> SearchRecord | None:
        """Its winner, where it came to its end with as many trials and finalists as are wanted.

        Raises:
            ValueError: its file was changed.
        """
        done, wanted = self.supernet.recorded().searches.get(self.study), (self.request.trials, self.finalists)
        if done and (done.trials, done.finalists) == wanted and (self.supernet.finished() or not self.request.trials):
            return read_winner(self.supernet.run, self.study)
        return None

    def begun(self) -> bool:
        """Whether it was ever begun; of an earlier version, whether its evaluations ended."""
        run = self.supernet.run
        return any(line["study"] == self.study for kind in ("search begun", "search") for line in run.metrics(kind))

    def goes_on(self) -> bool:
        """Whether it was interrupted: what will be done was said when it began. One that ended may be asked for more."""
        return self.begun() and self.study not in self.supernet.recorded().searches

    def winner(self, stop: Callable[[], bool], helping: bool = False) -> SearchRecord:
        """The winner, searched now as far as it was not; trains the supernet first where the run has none.

        Raises:
            InUse: another driver leads the study.
            WonElsewhere: another driver led it to its end, which this one was `helping`; it would train all finalists once more.
            ValueError: no network evaluated obeys the budgets, or a file of the run cannot be used.
            Stopped: interrupted; what was evaluated is stored.
        """
        request, run = self.request, self.supernet.run
        if winner := self.done():
            print(f"This search is done ({winner_path(run, self.study)}); its result again:")
            return winner
        if self.supernet.setting.data == DIGITS:
            print("The data are scikit-learn's digits: this shows the machine working; a ranking means little. --data gives a real one.")
        setting = self.supernet.setting
        if not request.trials:  # all trainings are other processes'
            look_at_images(setting, run, None, stop)
        supernet = self.supernet.trained(stop) if request.trials else None
        held_out = setting.images.size("held_out")
        latency = self.measure
        measured = partial(measured_values, budgets=request.budgets, measure=latency)
        looks = Looks(run, self.study, request.budgets, measured, stop, TableRun(self.target).digest if self._measured() else "")
        with self._opened(supernet) as (study, queue):
            if helping and queue and queue.has_won(request.trials, self.finalists):
                raise WonElsewhere(f"The winner of study {self.study} is in the run's folder of the driver that led it.")
            if not self.begun():
                run.log("search begun", study=self.study)
            if supernet is None:
                self.supernet.begin()
                result, who = Result([], "trials", 0, 0.0, 0.0), candidates(self.supernet, request, self.finalists, [], None, looks)
            else:
                if queue:
                    queue.open()
                batches = setting.images.kept("held_out", setting.recipe.search.batch_size)
                with open_evaluator(supernet, batches, setting.recipe, setting.device, self.crew, stop) as evaluator:
                    evaluate = queue.beside(evaluator.evaluate) if queue else evaluator.evaluate
                    instruments = Instruments(cost, evaluate, {name: evaluator.alone(measure) for name, measure in latency.items()})
                    result = self._search(study, instruments, stop, held_out)
                    if queue:
                        queue.close(request.trials)
                    if self.finalists:
                        who = candidates(self.supernet, request, self.finalists, result.trials, evaluator, looks)
                    else:
                        best = choose_winner(result.trials, request, num_heldout=held_out, measure=instruments.measure)
                        choice = self._by_supernet(best, supernet)
            if self.finalists:
                finals = Finals(self.supernet, self.study, request, self.finalists, self.crew, looks)
                choice = self._by_ladder(finals, supernet, who, held_out)
            self._write(result, choice, held_out)
            if queue:
                queue.won(request.trials, self.finalists)
        written = read_winner(run, self.study)
        assert written is not None
        return written

    @contextlib.contextmanager
    def _opened(self, supernet: Supernet | None) -> Iterator[tuple[OptunaStudy, Queue | None]]:
        """The study, and on a server the place of a queue from which other drivers take networks to evaluate."""
        place = self.place
        with (
            open_study(place, self.study, self.supernet.space.decisions, self.request, self.facts(supernet)) as study,
            contextlib.ExitStack() as held,
        ):
            queue = None
            if isinstance(place, Server):
                self.supernet.run.record(storage=place.recorded)
                queue = Queue(place, held.enter_context(connected(place)), self.study)
            yield study, queue

    def _search(self, study: OptunaStudy, instruments: Instruments, stop: Callable[[], bool], held_out: int) -> Result:
        """Evaluates networks with the supernet's weights, and tells how it went."""
        request, space = self.request, self.supernet.space
        budgets, held = " and ".join(each.text for each in self.budgets), f"{held_out} held-out training images"
        print(f"Searching {space.name} for {budgets}: {request.trials} networks on {held}, study {self.study}.", flush=True)
        if request.starts:
            print(f"Starting with networks that the space contains: {', '.join(request.starts)}.")
        with Progress("search", request.trials, "evaluation") as progress:
            result = search(space, study, request, instruments, stop, partial(_show, progress))
            if result.ending == "exhausted":
                progress.total = result.num_evaluated
        for reason, count in failures(result.trials).most_common():
            print(f"{count} of {result.num_evaluated} networks could not be evaluated: {reason}.")
        if result.ending == "stopped":
            raise Stopped(f"search stopped after {result.num_evaluated} of {request.trials} evaluations")
        if result.ending == "exhausted":
            print(f"The space has no more networks to offer within the budget: {result.num_evaluated} evaluated.")
        seconds = {"seconds": result.seconds, "evaluate_seconds": result.evaluate_seconds}
        self.supernet.run.log("search", study=self.study, evaluations=result.num_evaluated, trials=len(result.trials), **seconds)
        return result

    @property
    def _inherited(self) -> Path:
        """Where the winner's weights lie, beside its file."""
        return self.supernet.run.folder / f"{self.study}.safetensors"

    def _by_supernet(self, winner: Winner, supernet: Supernet) -> _Choice:
        setting = self.supernet.setting
        save_inherited(self._inherited, supernet.subnet(winner.trial.architecture.at(setting.frame)).eval(), setting)
        found = {
            "accuracy_supernet": round(winner.trial.objectives[0], 4), "standard_error": round(winner.standard_error, 4),
            "trial": winner.trial.number, "usage": round(winner.usage, 4), "reason": winner.reason,
        }  # fmt: skip
        return _Choice(winner.trial.architecture, winner.measured, found)

    def _by_ladder(self, finals: Finals, supernet: Supernet | None, who: Candidates, held_out: int) -> _Choice:
        """Trains finalists alone, writes them into a study and the winner's fine-tuned weights beside its file, and prints a table."""
        alone = finals.alone
        epochs = alone.phase.epochs
        print(
            f"Training {finals.num} finalists and {len(who.by_hand)} networks that one would draw by hand, each alone: up to {epochs:g} epoch{'s' * (epochs != 1)} "
            f"({alone.steps} steps of {alone.phase.batch_size}), of three at a rung one goes on.",
            flush=True,
        )
        ladder = finals.climb(supernet, who)
        winner, measured = finals.winner(ladder)
        seed = self.supernet.setting.seed
        climbers = [
            Climber(
                each.architecture,
                each.origin,
                each.by_hand,
                each.supernet,
                each.fine_tuned,
                alone.known(each.architecture, seed),
                alone.digest,
            )
            for each in ladder.asked
        ]
        write_finalists(self.place, self.study, self.supernet.space, climbers, winner.key)
        print("\n".join(table(ladder, alone)))
        kept = finals.keep(supernet, winner, self._inherited) if supernet is not None else None
        accuracy = ladder.accuracies(winner)[-1]
        usages = [usage(winner.architecture, cost(winner.architecture), self.request.budgets)]
        usages += [measured[each.quantity.name] / each.limit for each in self.request.budgets if each.quantity.measured]
        found = {
            "accuracy_supernet": winner.supernet, "accuracy_at_once": kept, "accuracy_alone": round(accuracy, 4),
            "epochs_alone": epochs, "finalists": len(ladder.asked), "origin": winner.origin, "usage": round(max(usages), 4),
            "standard_error": round(standard_error(accuracy, held_out), 4), "reason": "the most accurate of the finalists, each trained alone",
        }  # fmt: skip
        return _Choice(winner.architecture, measured, found)

    def _write(self, result: Result, choice: _Choice, held_out: int) -> None:
        """Writes the baselines and the winner."""
        opened, run = self.supernet, self.supernet.run
        found = {
            **choice.found, **_spread(choice.measured), "held_out_images": held_out, "evaluations": result.num_evaluated,
            "failures": failures(result.trials).total(), "floor": self.request.floor,
        }  # fmt: skip
        entries = {
            "budgets": [each.text for each in self.budgets], "found": found, "space": opened.space_name,
            "space_fingerprint": opened.space.fingerprint, **opened.setting.record(), "run": run.name, "study": self.study,
            "device": str(opened.setting.device), **self._measured(),
        }  # fmt: skip

        def write(name: str, architecture: Architecture, title: str, costs: Any, **changed: Any) -> None:
            path = run.folder / f"{name}.yaml"
            counted = {"costs": {**cost(architecture)._asdict(), **{each: float(value) for each, value in costs.items()}}}
            write_architecture(path, architecture, {**counted, **entries, **changed}, f"{title} Retrain it: {pasted('retrain', path)}")

        for each in baselines(opened.space, self.request.budgets, self.request.floor, opened.setting.frame):
            write(f"baselines/{self.study}/{each.name}", each.architecture, each.title, {}, found=each.found)
        write(self.study, choice.architecture, "The winner of a search.", choice.measured)
        done = {name: record.model_dump() for name, record in opened.recorded().searches.items()}
        finished = {"finished": now(), "winner": digest(winner_path(run, self.study))}
        run.record(searches={**done, self.study: {"trials": self.request.trials, "finalists": self.finalists, **finished}})


def _schedule(retrain: Phase) -> dict[str, Any]:
    """What finalists are trained with, as a recipe's retraining says it."""
    return retrain.model_dump(mode="json", exclude=HOW | OWN)


def _digest(supernet: Supernet) -> str:
    """Twelve hexadecimal digits of its weights."""
    told = hashlib.sha256()
    for name, tensor in sorted(supernet.state_dict().items()):
        told.update(name.encode() + tensor.cpu().numpy().tobytes())
    return told.hexdigest()[:12]


def _spread(measured: Mapping[str, float]) -> dict[str, float]:
    """How far the winner's passes were apart, where it was timed."""
    spread = getattr(measured.get("latency_ms"), "spread", None)
    return {} if spread is None else {"latency_spread": spread}


@dataclass(frozen=True)
class _Choice:
    """A winner, what was measured of it, and how it was found."""

    architecture: Architecture
    measured: Mapping[str, float]
    found: Mapping[str, Any]


def _show(progress: Progress, trial: Trial, evaluated: int, best: Trial | None) -> None:
    if not progress.done:
        progress.skip(evaluated - 1)  # what is stored is not shown
    if evaluated > progress.done:
        progress.reach(evaluated, f"best {best.objectives[0]:.2%}" if best else None)
