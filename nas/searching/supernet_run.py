"""A space, a setting and a run: what `train` and `search` have in common, and the supernet between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nas.networks.architecture import Architecture
from nas.runs.folder import Run, default_name, now
from nas.runs.records import RunRecord, SupernetRecord, read_record, same_as_begun
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.paths import paths_of_step
from nas.training.report import Report
from nas.training.setting import Given, Setting, open_setting, shipped
from nas.training.train_supernet import CHECKPOINT, load_supernet, supernet_steps, train_supernet

SPACE = "hybrid"


@dataclass(frozen=True)
class SupernetRun:
    """A supernet's space, setting and run; nothing is trained or written before `trained` is called.

    Attributes:
        space: in the frame in which budgets are counted.
        space_name: how the space was named: a path, or a name in search_spaces/.
    """

    space: SearchSpace
    space_name: str
    setting: Setting
    run: Run

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
        space: Any = {"space": self.space_name, "space_fingerprint": self.space.fingerprint}
        return SupernetRecord(recipe_content=recipe, **space, **self.setting.record())

    def check_begun(self) -> None:
        """Refuses a run that was begun with something else."""
        same_as_begun(self.run, self.recorded().supernet, self.record())

    @property
    def checkpoint(self) -> Path:
        return self.run.folder / CHECKPOINT

    def finished(self) -> bool:
        return self.recorded().supernet_finished is not None and self.checkpoint.exists()

    def trained(self, stop: Callable[[], bool]) -> Supernet:
        """The trained supernet, trained now as far as it is not.

        Raises:
            Stopped: interrupted; a checkpoint is there.
        """
        setting, space = self.setting, self.trained_space
        steps, paths = supernet_steps(setting), len(paths_of_step(space, 0, 0))  # with data that cannot be used no run has begun
        torch.manual_seed(setting.seed)
        supernet = Supernet(space).to(setting.device)
        if not (self.finished() and load_supernet(supernet, setting, self.identity, self.run)):
            begun = self.recorded().supernet or self.record()
            self.run.record(supernet=begun.model_dump(mode="json", exclude_none=True))
            print(
                f"Training the supernet: {space.name}, {setting.images.size('fit')} images at {setting.resolution} px, {steps} steps of "
                f"{setting.recipe.supernet.batch_size} images, {paths} paths each, on {setting.device}.",
                flush=True,
            )

            def paths_of(step: int) -> list[tuple[Architecture]]:
                return [(path,) for path in paths_of_step(space, setting.seed, step)]

            train_supernet(supernet, setting, self.identity, paths_of, self.run, Report(self.run, "supernet", stop))
            self.run.record(supernet_finished=now())
        return supernet.eval()


def open_supernet_run(given: Given, space_name: str | None, name: str | None, epochs: float | None, steps: int | None) -> SupernetRun:
    """The supernet's run of a command line.

    Args:
        given: what was said of the setting.
        space_name: a name in search_spaces/ or a YAML file.
        name: the run's; what a run of that name was begun with counts where nothing else is said.
        epochs: length of the training, or `steps`; with neither, the recipe's, or what the run was begun with.

    Raises:
        ValueError: an option, the space, the data or the recipe cannot be used; one line.
    """
    run = Run(name) if name is not None else None
    begun = read_record(run).supernet if run else None
    content = begun.recipe_content if begun and given.recipe is None and not given.smoke else None
    said, given = given, given.or_else(begun) if begun else given
    space_name = space_name or (begun.space if begun else SPACE)
    space = SearchSpace.read(shipped("search_spaces", space_name, "--space"))
    setting = open_setting(given, space.stride, space.frame.resolution, content)
    if run is None:
        run = Run(default_name(space.name, setting.source.name, setting.recipe_name, setting.seed, *said.unusual()))
        begun = read_record(run).supernet
    if epochs is None and steps is None and begun:  # a run keeps the length that it was begun with
        epochs, steps = (begun.recipe_content.get("supernet", {}).get(length) for length in ("epochs", "steps"))
    recipe = setting.recipe.model_copy(update={"supernet": setting.recipe.supernet.with_length(epochs, steps)})
    opened = SupernetRun(space, space_name, replace(setting, recipe=recipe), run)
    _ = opened.trained_space  # its geometry at the resolution trained at
    return opened
