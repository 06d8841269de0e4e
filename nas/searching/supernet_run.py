"""A space, a setting and a run: what `train` and `search` have in common, and the supernet between them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from nas.cost import cost
from nas.cost.latency import built
from nas.data import DataSource
from nas.networks.architecture import Architecture
from nas.quantities import Budget, format_quantity, parse_budget
from nas.runs.folder import Run, default_name, now
from nas.runs.records import RunRecord, SupernetRecord, read_record, same_as_begun
from nas.searching.proposals import largest_that_fits
from nas.searching.search import check_budgets
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import Levels, unrewarded
from nas.spaces.schema import Values
from nas.spaces.supernet import Supernet
from nas.training.given import Given
from nas.training.paths import drawn, path_of_step
from nas.training.report import Report
from nas.training.setting import SMALL_IMAGES, Setting, look_at_images, open_device, open_setting, open_source, shipped
from nas.training.train_supernet import CHECKPOINT, load_supernet, supernet_steps, train_supernet

SPACE = "hybrid"
SMALL_SPACES = {"cpu": ("cifar_small", "cifar"), "cuda": ("cifar",)}  # for images up to 64 px, the cheapest first
SPACES = ("photos", SPACE)  # for larger ones
LAST_LINES = 10_000  # bytes of a log in which the last step surely is


@dataclass(frozen=True)
class SupernetRun:
    """A supernet's space, setting and run; nothing is trained or written before `trained` is called.

    Attributes:
        space: in the frame in which budgets are counted.
        space_name: how the space was named: a path, or a name in search_spaces/.
        levels: the costs that it is trained for; None: those of the whole space.
        fixed: decisions of the named space that `space` does not have, since no budget could reward them.
        budgets: those of the command line that some network of the space exceeds.
        unlimited: the others.
        notes: what was chosen by data and budgets, and why, a sentence each.
    """

    space: SearchSpace
    space_name: str
    setting: Setting
    run: Run
    levels: Levels | None = None
    fixed: Values = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    unlimited: tuple[Budget, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def range(self) -> Levels:
        """The costs that it is trained for."""
        return self.levels or Levels.whole(self.space, cost)

    def path(self, step: int) -> tuple[Architecture]:
        """The network that a step trains."""
        return (path_of_step(self.space, self.range, self.setting.seed, step).at(self.setting.frame),)

    @cached_property
    def trained_space(self) -> SearchSpace:
        """The space for the images that the supernet is trained on."""
        return self.space.at(self.setting.frame)

    @property
    def identity(self) -> str:
        """What a checkpoint must be of."""
        frame, setting = self.setting.frame, self.setting
        return (
            f"supernet of {self.space.name} {self.space.fingerprint} at {frame.resolution} px, {frame.channels} channels, "
            f"{frame.classes} classes, images {setting.source.fingerprint}, seed {setting.seed}"
        )

    def recorded(self) -> RunRecord:
        return read_record(self.run)

    def record(self) -> SupernetRecord:
        recipe = self.setting.recipe.model_dump(mode="json", exclude_none=True)
        space: Any = {"space": self.space_name, "space_fingerprint": self.space.fingerprint, "fixed": dict(self.fixed)}
        levels = dict(self.levels.ends) if self.levels else None
        return SupernetRecord(recipe_content=recipe, levels=levels, **space, **self.setting.record())

    def check_begun(self) -> None:
        """Refuses a run that was begun with something else."""
        same_as_begun(self.run, self.recorded().supernet, self.record())

    def begin(self) -> None:
        """Writes with what the run is begun, where that is not written yet."""
        begun = self.recorded().supernet or self.record()
        self.run.record(supernet=begun.model_dump(mode="json", exclude_none=True))

    def check_frame(self) -> None:
        """Refuses a resolution for which the space has no geometry, or at which one image takes too much."""
        _ = self.trained_space
        if self.setting.resolution > self.space.frame.resolution:
            for each in self.ends(self.range).values():
                self.setting.check(each)

    def check_at(self, setting: Setting) -> None:
        """As `check_frame`, for the same run with another setting."""
        replace(self, setting=setting).check_frame()

    @property
    def checkpoint(self) -> Path:
        return self.run.folder / CHECKPOINT

    def finished(self) -> bool:
        return self.recorded().supernet_finished is not None and self.checkpoint.exists()

    def done(self) -> int:
        """Steps that were trained, by the end of the log."""
        logged = self.run.metrics("supernet", last_bytes=LAST_LINES) if self.recorded().supernet else []
        return supernet_steps(self.setting) if self.finished() else int(logged[-1]["step"]) if logged else 0

    def loaded(self) -> Supernet | None:
        """The supernet where it is trained; nothing is written."""
        supernet = self._fresh()
        return supernet.eval() if self.finished() and load_supernet(supernet, self.setting, self.identity, self.run) else None

    def _fresh(self) -> Supernet:
        torch.manual_seed(self.setting.seed)
        return built(partial(Supernet, self.trained_space), self.setting.device)

    def trained(self, stop: Callable[[], bool]) -> Supernet:
        """The trained supernet, trained now as far as it is not; of several processes the first one gets its averaged weights.

        Raises:
            ValueError: images that cannot be used; no run has begun.
            Stopped: interrupted; a checkpoint is there.
        """
        setting, phase = self.setting, self.setting.recipe.supernet
        steps = supernet_steps(setting)
        look_at_images(setting, self.run, phase.augmentation, stop)
        supernet = self._fresh()
        if not (self.finished() and load_supernet(supernet, setting, self.identity, self.run)):
            self.begin()
            levels = self.range
            ends = (f"{format_quantity(name, low)} to {format_quantity(name, high)}" for name, (low, high) in levels.ends.items())
            print(
                f"Training the supernet: {self.space.name}, {setting.images.size('fit')} images at {setting.resolution} px, {steps} steps of "
                f"{phase.batch_size} images, each a network of {' and '.join(ends)}, on {setting.where}.",
                flush=True,
            )

            judged = {name: (each.at(setting.frame),) for name, each in self.ends(levels).items()}
            train_supernet(supernet, setting, self.identity, self.path, judged, self.run, Report(self.run, "supernet", stop))
            if not setting.ranks.first:
                return supernet.eval()
            load_supernet(supernet, setting, self.identity, self.run)  # its averaged weights, where the recipe wants these
            self.run.log("supernet drawn", **drawn(self.space, levels, setting.seed, steps))
            self.run.record(supernet_finished=now())
        if curve := [line for line in self.run.metrics("supernet rung") if {"smallest", "largest"} <= line.keys()]:
            small, large = curve[-1]["smallest"], curve[-1]["largest"]
            if large <= small:
                print(
                    f"The supernet is not ready: its largest network ({large:.1%}) does not lead its smallest ({small:.1%}), so that it ranks quick "
                    "learners high. Train it longer: give --steps or --epochs with another --run."
                )
        return supernet.eval()

    def ends(self, levels: Levels) -> dict[str, Architecture]:
        """The smallest, the median and the largest network of the range, with the mixers of one pattern, so that only sizes differ."""
        fixed, low = next(iter(self.space.patterns().values())), levels.low

        def used(values: Values, level: float) -> float:
            return levels.of(cost(self.space.decode(values))) / (1.001 * level)

        wanted = {"smallest": low, "median": low**0.5, "largest": 1.0}
        found = {name: largest_that_fits(self.space, fixed, partial(used, level=level)) for name, level in wanted.items()}
        return {name: self.space.decode(values) for name, values in found.items() if values is not None}


def open_supernet_run(
    given: Given,
    space_name: str | None,
    name: str | None,
    length: tuple[float | None, int | None],
    budgets: Sequence[Budget] = (),
    floor: float = 0.0,
) -> SupernetRun:
    """The supernet's run of a command line.

    Args:
        given: what was said of the setting.
        space_name: a name in search_spaces/ or a YAML file.
        name: the run's; what a run of that name was begun with counts where nothing else is said.
        length: of the training in epochs or in steps; with neither, the recipe's, or what the run was begun with.
        budgets: what it is trained for where it is not trained yet; with none, the whole space. A run that nobody named and that was trained
            for others is left alone, and another one named after these budgets.
        floor: share of the tightest budget that a winner uses at least.

    Raises:
        ValueError: an option, the space, the data or the recipe cannot be used, or the run's supernet was trained for other costs; one line.
    """
    named = partial(Run, writes=given.ranks.first)
    run = named(name) if name is not None else None
    begun = read_record(run).supernet if run else None
    content = begun.recipe_content if begun and given.recipe is None and not given.smoke else None
    said, given = given, given.or_else(begun) if begun else given
    source, notes = open_source(given), tuple[str, ...]()
    if space_name is None and begun is None:
        space_name, notes = usual_space(source, open_device(given.device), budgets)
    elif space_name is None and begun:
        space_name = begun.space
    assert space_name is not None
    space = SearchSpace.read(shipped("search_spaces", space_name, "--space"))
    texts = [each.text for each in budgets]
    budgets, unlimited = check_budgets(space, cost, budgets)
    setting = open_setting(given, space.stride, space.frame.resolution, content, source, space.at_side)
    if run is None:
        parts = [space.name, setting.source.name, setting.recipe_name, str(setting.seed), *said.unusual()]
        run = named(default_name(*parts))
        begun = read_record(run).supernet
        if begun and texts and not _covers(begun, budgets, floor):
            run = named(default_name(*parts, *texts))
            begun = read_record(run).supernet
    if begun and texts and not _covers(begun, budgets, floor):  # where none was said it is as it was begun
        ends = (f"{format_quantity(name, low)} to {format_quantity(name, high)}" for name, (low, high) in (begun.levels or {}).items())
        asked = " and ".join(texts)
        raise ValueError(
            f"--budget: not what the supernet of {run.folder} was trained for: got {asked}; accepted: {', '.join(ends)}. Begin another --run."
        )
    epochs, steps = length
    if epochs is None and steps is None and begun:  # a run keeps the length that it was begun with
        epochs, steps = (begun.recipe_content.get("supernet", {}).get(each) for each in ("epochs", "steps"))
    recipe = setting.recipe.model_copy(update={"supernet": setting.recipe.supernet.with_length(epochs, steps)})
    fixed = begun.fixed if begun else unrewarded(space, cost, budgets)
    space = space.fixing(fixed)
    levels = (Levels(begun.levels) if begun.levels else None) if begun else Levels.around(budgets)
    opened = SupernetRun(space, space_name, replace(setting, recipe=recipe), run, levels, fixed, budgets, unlimited, notes)
    opened.check_frame()
    return opened


def middle(space: SearchSpace) -> Budget:
    """A budget between the smallest and the largest network of a space, where nobody gave one."""
    ends = [cost(end(lambda architecture: cost(architecture).macs)).macs for end in (space.smallest, space.largest)]
    return parse_budget(f"{math.sqrt(ends[0] * ends[1]):.1e}MACs")


def usual_space(source: DataSource, device: torch.device, budgets: Sequence[Budget]) -> tuple[str, tuple[str, ...]]:
    """The space where nobody named one, and why: the first whose networks lie on both sides of each budget.

    Those for images of their size come first. Where a budget is too small or too large for all, it is the one that comes nearest.
    """
    small, large = SMALL_SPACES[device.type], SPACES
    if device.type == "cuda" and all(budget.quantity.measured for budget in budgets):
        large = SPACES[::-1]  # nobody knows what times the smaller one has; a GPU has time for the other
    holding = list[str]()
    for name in (*small, *large) if source.resolution <= SMALL_IMAGES else (*large, *small):
        space = SearchSpace.read(shipped("search_spaces", name, "--space"))
        with contextlib.suppress(ValueError):  # a budget below the smallest
            unlimited = check_budgets(space, cost, budgets)[1]
            if not unlimited:
                return name, (f"Space {name}, for images of {source.resolution} px and these budgets; --space names another.",)
            holding.append(name)
    name = next((each for each in reversed((*small, *SPACES)) if each in holding), small[0])
    return name, (f"Space {name}, since no space has networks on both sides of these budgets; --space names another.",)


def _covers(begun: SupernetRecord, budgets: Sequence[Budget], floor: float) -> bool:
    return begun.levels is None or Levels(begun.levels).covers(budgets, floor)
