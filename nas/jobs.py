"""The commands that train, as functions: train a supernet, search it, retrain a winner.

Each takes the options of the command line by name and gives the exit status. A run's folder tells its own story:

    runs/<run>/run.yaml           what was run, with what, where
    runs/<run>/metrics.jsonl      loss by step, evaluations
    runs/<run>/supernet.pt        the supernet's training, and `supernet.pt.previous`
    runs/<run>/study.db           one Optuna study per budget
    runs/<run>/best.yaml          the last search's winner; `<study>.yaml` each search's, `baselines/<study>/` what to hold it against
    runs/<run>/weights.safetensors, result.yaml    of a retraining
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, StrictInt, StrictStr
from torch import Tensor

from nas.cost import cost
from nas.cost.latency import measure_latency
from nas.networks.architecture import FORMAT as ARCHITECTURE_FORMAT
from nas.networks.architecture import MAX_RESOLUTION, Architecture, describe, read_architecture
from nas.networks.network import Network
from nas.networks.weight_files import save_weights
from nas.progress import Progress
from nas.published.presets import Preset, read_presets
from nas.quantities import Budget, format_quantity, parse_budgets
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import Run, now, provenance
from nas.runs.interrupt import Interrupt
from nas.searching.optuna_study import open_study
from nas.searching.ray_workers import Workers, check_workers, cores
from nas.searching.search import Trial, check_budgets, choose_winner, largest_that_fits, usage
from nas.searching.search import search as search_loop
from nas.setting import RUNS, Setting, Stopped, architecture_file, make_setting, open_run, same_as_begun, shipped, short_name, with_length
from nas.spaces.decisions import SearchSpace, Values
from nas.spaces.supernet import Supernet
from nas.training.loop import Batches, Phase, evaluate
from nas.training.loop import train as train_model
from nas.training.paths import paths_of_step
from nas.yaml_files import validate, write_atomically, write_yaml

# ---- the supernet ------------------------------------------------------------------------------------------------------


@dataclass
class SupernetJob:
    """A space with a setting and a run: what `train` and `search` have in common."""

    space: SearchSpace  # in the frame in which budgets are counted
    space_name: str
    setting: Setting
    run: Run
    phase: Phase

    @cached_property
    def trained_space(self) -> SearchSpace:
        return self.space.at(self.setting.frame)

    @property
    def checkpoint(self) -> Path:
        return self.run.folder / "supernet.pt"

    @property
    def identity(self) -> str:
        frame = self.setting.frame
        return f"supernet of {self.space.name} {self.space.fingerprint} at {frame.resolution} px, {frame.channels} channels, {frame.classes} classes, seed {self.setting.seed}"

    def record(self) -> dict[str, Any]:
        """What has to be the same when the run is continued."""
        return {
            "space": self.space_name,
            "fingerprint": self.space.fingerprint,
            **self.setting.record(),
            "bf16": self.setting.recipe.bf16,
            "phase": self.phase.model_dump(mode="json", exclude_none=True),
        }

    def finished(self) -> bool:
        return "supernet_finished" in self.run.recorded() and self.checkpoint.exists()

    def trained(self, stop: Callable[[], bool]) -> Supernet:
        """The trained supernet, trained now as far as it is not.

        Raises:
            Stopped: interrupted; a checkpoint is there.
        """
        setting, batch_size = self.setting, self.phase.batch_size
        steps = self.phase.num_steps(setting.data.steps_per_epoch("fit", batch_size))
        torch.manual_seed(setting.seed)
        supernet = Supernet(self.trained_space).to(setting.device)
        if self.finished():
            state = load_checkpoint(self.checkpoint, map_location=setting.device)
            # Where the last checkpoint was damaged this is the one before it, from which the end is trained again.
            if state is not None and state["identity"] == self.identity and state["step"] == steps:
                supernet.load_state_dict(state["model"])
                return supernet.eval()
        batches = setting.data.batches("fit", batch_size, setting.seed, self.phase.augmentation)
        self.run.record(supernet=self.record())  # only now: with data that cannot be used no run has begun
        print(
            f"Training the supernet: {self.space.name}, {setting.data.size('fit')} images at {setting.resolution} px, {steps} steps of "
            f"{batch_size} images, {len(paths_of_step(self.trained_space, 0, 0))} paths each, on {setting.device}.",
            flush=True,
        )
        with Progress("supernet", steps, "step") as progress:
            _, done = train_model(
                supernet,
                batches,
                self.phase,
                steps=steps,
                seed=setting.seed,
                autocast=setting.autocast,
                paths=lambda step: [(path,) for path in paths_of_step(self.trained_space, setting.seed, step)],
                checkpoint=self.checkpoint,
                identity=self.identity,
                report=partial(_report_step, self.run, "supernet", progress),
                stop=stop,
            )
        if done < steps:
            raise Stopped(f"supernet stopped at step {done} of {steps}")
        self.run.record(supernet_finished=now())
        return supernet.eval()


def _report_step(run: Run, kind: str, progress: Progress, step: int, loss: float, lr: float) -> None:
    if step - progress.done > 1 and progress.done == 0:
        progress.resume(step - 1)
    progress.advance(step - progress.done, f"loss {loss:.3f}")
    run.log(kind, step=step, loss=round(loss, 5), lr=lr)


def _supernet_job(options: dict[str, Any]) -> SupernetJob:
    space_path = shipped("search_spaces", options["space"], "--space")
    space = SearchSpace.read(space_path)
    smoke = options["smoke"]
    setting = make_setting(
        options["data"],
        options["data_root"],
        options["recipe"],
        options["resolution"],
        options["device"],
        options["seed"],
        space.stride,
        space.frame.resolution,
        smoke,
    )
    run = open_run(
        options["run"], [space.name, setting.source.name, short_name(setting.recipe_name), str(setting.seed)], options["resolution"], smoke
    )
    phase = setting.recipe.supernet
    if options["epochs"] is None and options["steps"] is None:  # a run keeps the length that it was begun with
        begun = run.recorded().get("supernet", {}).get("phase", {})
        phase = with_length(phase, begun.get("epochs"), begun.get("steps"))
    job = SupernetJob(space, options["space"], setting, run, with_length(phase, options["epochs"], options["steps"]))
    _ = job.trained_space  # geometry at the resolution trained at
    return job


def train(**options: Any) -> int:
    """The supernet alone."""
    job = _supernet_job(options)
    with job.run.lock(), Interrupt() as interrupt:
        same_as_begun(job.run, "supernet", job.record())
        try:
            job.trained(lambda: interrupt.requested)
        except Stopped as stopped:
            return _stopped(str(stopped), interrupt)
    print(f"The supernet is trained: {job.checkpoint}")
    print(f"Next: python launch.py search --run {job.run.name} with the same options and --budget")
    return 0


def _stopped(what: str, interrupt: Interrupt) -> int:
    print(f"{what[0].upper()}{what[1:]}; the same command continues.", flush=True)
    return interrupt.exit_status or 130


# ---- search ------------------------------------------------------------------------------------------------------------


def search(
    *,
    budget: list[str],
    floor: float,
    start: list[str] | None,
    trials: int | None,
    sampler: str,
    workers: int,
    latency_batch: int,
    **options: Any,
) -> int:
    """Searches the run's supernet under budgets; trains it first if the run has none."""
    budgets = parse_budgets(budget)
    if not 0 <= floor < 1:
        raise ValueError(f"--floor: out of range: got {floor}; accepted: 0 up to, not including, 1.")
    check_workers(workers)
    job = _supernet_job(options)
    binding, unlimited = check_budgets(job.space, cost, budgets)
    starts = _starting_points(job.space, binding, start or [])
    for each in unlimited:
        measure = partial(_quantity, each.quantity)
        most = format_quantity(each.quantity, measure(job.space.largest(measure)))
        print(f"--budget {each.text} is no limit: the largest network of {job.space.name} has {most}.")
    with job.run.lock(), Interrupt() as interrupt:
        same_as_begun(job.run, "supernet", job.record())
        study_name = "-".join([*(each.text for each in budgets), sampler])
        try:
            return _search(job, budgets, binding, study_name, floor, starts, trials, sampler, workers, latency_batch, interrupt)
        except Stopped as stopped:
            return _stopped(str(stopped), interrupt)


def _starting_points(space: SearchSpace, budgets: list[Budget], asked: list[str]) -> dict[str, Values]:
    """What the first generation is to have, by name: the networks asked for, and the published ones that the space contains within budget.

    Raises:
        ValueError: a network that was asked for is not in the space, or over budget.
    """
    starts: dict[str, Values] = {}
    for name in asked:
        architecture, _ = read_architecture(architecture_file(Path(name)))
        try:
            starts[name] = space.encode(architecture)
        except ValueError as error:
            raise ValueError(f"--start {name}: {error} Give one whose every choice the space offers, or widen the space.") from None
        used = usage(cost(architecture.at(space.frame)), budgets)
        if used > 1:
            raise ValueError(f"--start {name}: over budget: got {used:.3g} times the tightest limit; accepted: networks within it.")
    for preset in read_presets():
        with contextlib.suppress(ValueError):  # most are of another space
            values = space.encode(preset.architecture)
            if usage(cost(space.decode(values)), budgets) <= 1 and values not in starts.values():
                starts[preset.name] = values
    return starts


def _published_baselines(job: SupernetJob, budgets: list[Budget], floor: float) -> Iterator[Preset]:
    """The published networks that use as much of the budget as a winner does, and that the images of the run suit."""
    for preset in read_presets():
        with contextlib.suppress(ValueError), torch.device("meta"):  # a grid that its mixers cannot take
            used = usage(cost(preset.architecture.at(job.space.frame)), budgets)
            if max(floor, 1e-9) <= used <= 1:
                Network(preset.architecture.at(job.setting.frame))
                yield preset


def _quantity(quantity: str, architecture: Architecture) -> float:
    return getattr(cost(architecture), quantity)


def _search(
    job: SupernetJob,
    budgets: tuple[Budget, ...],
    binding: list[Budget],
    study_name: str,
    floor: float,
    starts: dict[str, Values],
    trials: int | None,
    sampler: str,
    workers: int,
    latency_batch: int,
    interrupt: Interrupt,
) -> int:
    setting, run, settings = job.setting, job.run, job.setting.recipe.search
    wanted = trials or settings.trials
    winner_file = run.folder / f"{study_name}.yaml"
    asked = {
        "trials": wanted,
        "floor": floor,
        "starts": {name: job.space.decode(values).key for name, values in starts.items()},
        **({"latency_batch": latency_batch} if any(b.quantity == "latency_ms" for b in budgets) else {}),
    }
    done = (run.recorded().get("searches") or {}).get(study_name, {})
    if winner_file.exists() and asked.items() <= done.items() and job.finished():
        print(f"This search is done ({winner_file}); its result again:")
        return _finish(job, winner_file, study_name, workers)
    if setting.data_name == "digits":
        print(
            "The data are scikit-learn's digits: this shows the machine working; a ranking on them means little. --data gives a real one."
        )
    supernet = job.trained(lambda: interrupt.requested)
    facts = {
        "space": job.space.name,
        "fingerprint": job.space.fingerprint,
        "budgets": [each.text for each in budgets],
        "floor": floor,
        "starts": asked["starts"],
        "weights": job.identity,
        **({"latency": f"{setting.device}, batch {latency_batch}"} if any(b.quantity == "latency_ms" for b in budgets) else {}),
    }
    held_out = setting.data.size("held_out")
    with contextlib.ExitStack() as stack:
        batches = list(setting.data.evaluation_batches("held_out", settings.batch_size))
        evaluator, settle = _evaluator(job, supernet, batches, workers, stack)

        def latency(architecture: Architecture) -> float:
            settle()  # taken by itself
            return measure_latency(architecture, setting.device, batch=latency_batch)

        study = stack.enter_context(
            open_study(
                run.folder / "study.db",
                study_name,
                job.space.decisions,
                sampler=sampler,
                seed=setting.seed,
                population=settings.population,
                facts=facts,
            )
        )
        print(
            f"Searching {job.space.name} for {' and '.join(each.text for each in budgets)}: {wanted} networks on {held_out} held-out training images, study {study_name}.",
            flush=True,
        )
        if starts:
            print(f"Starting with networks that the space contains: {', '.join(starts)}.")
        progress = stack.enter_context(Progress("search", wanted, "evaluation"))

        def report(trial: Trial, evaluated: int, best: Trial | None) -> None:
            if evaluated > progress.done:
                if progress.done == 0:
                    progress.resume(evaluated - 1)
                progress.advance(evaluated - progress.done, f"best {best.accuracy:.2%}" if best and best.accuracy is not None else None)

        result = search_loop(
            job.space, study, cost, binding, evaluator, trials=wanted, population=settings.population, seed=setting.seed, floor=floor, starts=starts,
            measure_latency=latency, stop=lambda: interrupt.requested, report=report,
        )  # fmt: skip
        if result.ending == "stopped":
            raise Stopped(f"search stopped after {result.num_evaluated} of {wanted} evaluations")
        if result.ending == "exhausted":
            print(f"The space has no more networks to offer within the budget: {result.num_evaluated} evaluated.")
        run.log(
            "search",
            study=study_name,
            evaluations=result.num_evaluated,
            trials=len(result.trials),
            seconds=result.seconds,
            evaluate_seconds=result.evaluate_seconds,
        )
        winner = choose_winner(result.trials, binding, num_heldout=held_out, floor=floor, measure_latency=latency)
    chosen = winner.trial
    found = {
        "accuracy_supernet": round(chosen.accuracy or 0.0, 4),
        "standard_error": round(winner.standard_error, 4),
        "held_out_images": held_out,
        "trial": chosen.number,
        "evaluations": result.num_evaluated,
        "usage": round(winner.usage, 4),
        "floor": floor,
        "reason": winner.reason,
    }
    entries = {
        "budgets": [each.text for each in budgets],
        "found": found,
        "space": job.space_name,
        "space_fingerprint": job.space.fingerprint,
        **setting.record(),
        "run": run.name,
        "study": study_name,
        "device": str(setting.device),
    }
    baselines = run.folder / "baselines" / study_name
    for name, fixed in job.space.patterns().items():
        values = largest_that_fits(job.space, fixed, lambda v: usage(cost(job.space.decode(v)), binding) if binding else 0.0)
        if values is not None:
            _write_architecture(
                baselines / f"{name}.yaml",
                job.space.decode(values),
                None,
                {**entries, "found": {"pattern": name}},
                "The largest network of one pattern of mixers within the budget, to hold a winner against.",
            )
    for preset in _published_baselines(job, binding, floor):
        _write_architecture(
            baselines / f"{preset.name}.yaml",
            preset.architecture.at(job.space.frame),
            None,
            {**entries, "found": {"preset": preset.name}},
            f"{preset.published.name}, a published network of the same budget, to hold a winner against.",
        )
    _write_architecture(winner_file, chosen.architecture, winner.latency_ms, entries, "The winner of a search.")
    run.record(searches={**(run.recorded().get("searches") or {}), study_name: {**asked, "finished": now()}})
    return _finish(job, winner_file, study_name, workers)


def _write_architecture(path: Path, architecture: Architecture, latency_ms: float | None, entries: dict[str, Any], title: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = provenance()
    costs: dict[str, Any] = dict(cost(architecture)._asdict())
    if latency_ms is not None:
        costs["latency_ms"] = round(latency_ms, 3)
    write_yaml(
        path,
        {
            "format": ARCHITECTURE_FORMAT,
            "architecture": architecture.to_dict(),
            "costs": costs,
            **entries,
            "command": made["command"],
            "versions": made["versions"],
            "written": now(),
        },
        header=f"{title} Retrain it: python launch.py retrain {path}",
    )


def _evaluator(
    job: SupernetJob, supernet: Supernet, batches: list[Any], workers: int, stack: contextlib.ExitStack
) -> tuple[Callable[[list[Architecture]], Iterator[float]], Callable[[], None]]:
    """What gives the accuracies of sub-networks, and what to call before a latency is taken."""
    setting = job.setting
    if workers == 0:
        one = partial(_accuracy, supernet, batches, setting.autocast)
        return lambda architectures: (one(architecture) for architecture in architectures), lambda: None
    payload = {
        "space": job.trained_space,
        "weights": {name: tensor.cpu().numpy() for name, tensor in supernet.state_dict().items()},
        "batches": [(images.cpu().numpy(), targets.cpu().numpy()) for images, targets in batches],
        "device": str(setting.device),
        "recipe": setting.recipe,
        "threads": max(1, cores() // workers),
    }
    gpus = 0.0 if setting.device.type == "cpu" else min(1.0, torch.cuda.device_count() / workers)
    pool = stack.enter_context(Workers(workers, make_evaluator, payload, num_gpus=gpus))
    return pool.evaluate, pool.settle


def make_evaluator(payload: dict[str, Any]) -> Callable[[Architecture], float]:
    """In a worker: the supernet and the held-out images, held once."""
    torch.set_num_threads(payload["threads"])
    device = torch.device("cuda" if payload["device"].startswith("cuda") else "cpu")  # Ray shows a worker its own GPUs alone
    supernet = Supernet(payload["space"])
    # Ray's arrays are read-only views of its store; torch wants its own.
    supernet.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in payload["weights"].items()})
    batches = [(torch.from_numpy(x.copy()).to(device), torch.from_numpy(y.copy()).to(device)) for x, y in payload["batches"]]
    return partial(_accuracy, supernet.to(device).eval(), batches, lambda: payload["recipe"].autocast(device))


def _accuracy(supernet: Supernet, batches: list[Any], autocast: Callable[[], Any], architecture: Architecture) -> float:
    """Accuracy of the sub-network on the held-out images, with inherited weights."""
    return evaluate(supernet.subnet(architecture.at(supernet.space.frame)), batches, autocast)


def _finish(job: SupernetJob, winner_file: Path, study_name: str, workers: int) -> int:
    """Copies the winner to where `retrain` looks for it, and prints it."""
    architecture, entries = read_architecture(winner_file)
    if not {"found", "costs"} <= entries.keys():
        raise ValueError(
            f"{winner_file}: changed by hand: no key 'found' or 'costs'. Delete it: the same command writes it anew from the study."
        )
    found, costs = entries["found"], entries["costs"]
    for copy in (job.run.folder / "best.yaml", RUNS / "best.yaml"):
        write_atomically(copy, winner_file.read_bytes())
    print(
        f"\nWinner: {found['accuracy_supernet']:.2%} of {found['held_out_images']} held-out images with the supernet's weights (standard error {found['standard_error']:.2%})"
    )
    share = f"; it uses {found['usage']:.0%} of the tightest budget (a winner uses {found['floor']:.0%} or more)"
    print(f"  chosen as {found['reason']}{share if found['usage'] else ''}")  # with no budget that binds there is nothing to use
    for line in describe(architecture):
        print(f"  {line}")
    print(
        "  "
        + ", ".join(format_quantity(name, value) for name, value in costs.items())
        + f" at {architecture.frame.resolution} px, {architecture.frame.classes} classes"
    )
    print(
        f"Written to {job.run.folder / 'best.yaml'} and {RUNS / 'best.yaml'}; baselines of the same budget in {job.run.folder / 'baselines' / study_name}/"
    )
    print(f"Why:  optuna-dashboard sqlite:///{job.run.folder / 'study.db'}")
    print(f"Next: python launch.py retrain {RUNS / 'best.yaml'}")
    return 0


# ---- retrain -----------------------------------------------------------------------------------------------------------


class FoundWith(BaseModel):
    """What an architecture file may say of the training that it was found in."""

    data: StrictStr | None = None
    data_root: Path | None = None
    recipe: StrictStr | None = None
    resolution: Annotated[StrictInt, Field(ge=1, le=MAX_RESOLUTION)] | None = None


def retrain(
    *,
    file: Path,
    data: str | None,
    data_root: Path | None,
    recipe: str | None,
    resolution: int | None,
    run: str | None,
    device: str,
    seed: int,
    epochs: float | None,
    steps: int | None,
    smoke: bool,
) -> int:
    """The network of an architecture file, from scratch with the full recipe, tested once at the end."""
    file = architecture_file(file)
    architecture, entries = read_architecture(file)
    resolution_given = resolution
    if data is None:
        found = validate(FoundWith, entries, str(file))
        data, data_root, resolution = found.data, data_root or found.data_root, resolution or found.resolution
        recipe = found.recipe if recipe is None else recipe
    setting = make_setting(data, data_root, recipe, resolution, device, seed, architecture.stride, architecture.frame.resolution, smoke)
    trained = architecture.at(setting.frame)
    with torch.device("meta"):
        Network(trained)  # geometry at the resolution trained at, before anything is loaded
    phase = with_length(setting.recipe.retrain, epochs, steps)
    folder = open_run(
        run, ["retrain", architecture.key, setting.source.name, short_name(setting.recipe_name), str(seed)], resolution_given, smoke
    )
    with folder.lock(), Interrupt() as interrupt:
        wanted = {"architecture": architecture.key, **setting.record(), "bf16": setting.recipe.bf16}
        begun = folder.recorded().get("retrain", {})
        if epochs is None and steps is None and begun:
            phase = with_length(phase, begun["phase"].get("epochs"), begun["phase"].get("steps"))
        wanted["phase"] = phase.model_dump(mode="json", exclude_none=True)
        same_as_begun(folder, "retrain", wanted)
        result_file, weights = folder.folder / "result.yaml", folder.folder / "weights.safetensors"
        if result_file.exists() and weights.exists():
            print(f"This retraining is done ({result_file}); its result again:")
        else:
            batches = setting.data.batches("train", phase.batch_size, setting.seed, phase.augmentation)
            folder.record(retrain=wanted, architecture=architecture.to_dict())  # only now: with data that cannot be used no run has begun
            try:
                _retrain(trained, architecture, setting, folder, phase, batches, file, lambda: interrupt.requested)
            except Stopped as stopped:
                return _stopped(str(stopped), interrupt)
        _, result = read_architecture(result_file)
        print(
            f"Test accuracy: {result['result']['test_accuracy']:.2%} of {result['result']['test_images']} images ({setting.source.name} at {setting.resolution} px, {result['result']['steps']} steps)"
        )
        print(f"Weights: {weights}")
    return 0


def _retrain(
    trained: Architecture,
    architecture: Architecture,
    setting: Setting,
    run: Run,
    phase: Phase,
    batches: Batches,
    file: Path,
    stop: Callable[[], bool],
) -> None:
    torch.manual_seed(setting.seed)
    network = Network(trained, phase.drop_path).to(setting.device)
    data = setting.data
    per_epoch = data.steps_per_epoch("train", phase.batch_size)
    steps = phase.num_steps(per_epoch)
    costs = cost(architecture)
    print(
        f"Retraining {architecture.key} ({format_quantity('macs', costs.macs)}, {format_quantity('params', costs.params)} at {architecture.frame.resolution} px) "
        f"from scratch: {data.size('train')} images at {setting.resolution} px, {steps} steps of {phase.batch_size} ({steps / per_epoch:.3g} epochs), on {setting.device}.",
        flush=True,
    )
    for line in describe(architecture):
        print(f"  {line}")
    with Progress("retrain", steps, "step") as progress:
        model, done = train_model(
            network,
            batches,
            phase,
            steps=steps,
            seed=setting.seed,
            autocast=setting.autocast,
            checkpoint=run.folder / "checkpoint.pt",
            identity=f"network {architecture.key} at {setting.resolution} px, seed {setting.seed}",
            report=partial(_report_step, run, "retrain", progress),
            stop=stop,
        )
    if done < steps:
        raise Stopped(f"retraining stopped at step {done} of {steps}")
    with Progress("test", data.size("test"), "image") as progress:
        batches_of_test = data.evaluation_batches("test", setting.recipe.search.batch_size)
        accuracy = evaluate(model, _watched(batches_of_test, progress, stop), setting.autocast)
    metadata = {
        "architecture": json.dumps(trained.to_dict()),
        "classes": json.dumps(list(data.classes)),
        "mean": json.dumps(list(data.mean)),
        "std": json.dumps(list(data.std)),
    }
    save_weights(run.folder / "weights.safetensors", {name: tensor.cpu() for name, tensor in model.state_dict().items()}, metadata)
    result = {"test_accuracy": round(accuracy, 4), "test_images": data.size("test"), "steps": steps, "epochs": round(steps / per_epoch, 3)}
    run.log("result", **result)
    _write_architecture(
        run.folder / "result.yaml", architecture, None,
        {"result": result, "from": str(file), **setting.record(), "run": run.name, "device": str(setting.device)}, "A retrained network.",
    )  # fmt: skip
    run.record(finished=now())


def _watched(batches: Iterable[tuple[Tensor, Tensor]], progress: Progress, stop: Callable[[], bool]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches, shown as they are done; large networks take minutes for a test."""
    for images, targets in batches:
        if stop():
            raise Stopped(f"test stopped after {progress.done} of {progress.total} images")
        yield images, targets
        progress.advance(len(targets))
