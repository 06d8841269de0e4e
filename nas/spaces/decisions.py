"""A search space: which values each decision about a network may take, and which network they make.

`SearchSpace.decisions` is a fixed-length table, name -> options; `decode` makes the canonical Architecture of a choice for every decision,
`encode` is its inverse.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nas.networks.architecture import FORM_DEFAULTS, Architecture, Frame, Stage
from nas.networks.layers import LayerSpec
from nas.networks.mixers import MIXERS, NO_MIXER, Value, known_options, mixer_names, options_of
from nas.spaces import geometry
from nas.spaces.schema import FORMAT, SpaceFile, Values, decisions_of, mixer_decision_names, space_file
from nas.yaml_files import read_yaml

_CHECKED: set[str] = set()  # fingerprints: a command makes the same space several times, and a check of a large one takes half a second


class SearchSpace:
    """The networks that a space file allows.

    Attributes:
        name: the file's, without its ending.
        frame: images and classes in which its budgets are counted.
        decisions: name -> options, sizes in ascending order of cost; decisions with one option are left out. `s1.width` is the width of
            stages[1], `s1.b0.mixer` the mixer of its first block (`s1.mixer` with `mixer_per: stage`).
        mixer_decisions: those that choose a mixer; the others choose a size or a form.
        stride: pixels per token of the last stage, along one side: resolutions are multiples of it.
        fingerprint: of what the decisions mean: equal for equal files, whatever their names.

    Raises:
        ValueError: an error in the file (syntax and names first, then geometry), with its place.
    """

    def __init__(self, file: SpaceFile, name: str, place: str) -> None:
        self._file, self.name, self._place = file, name, place
        self.frame = file.frame
        self.stride = file.patch * 2 ** (len(file.stages) - 1)
        self._table = decisions_of(file, place)
        self._free = {name: decision for name, decision in self._table.items() if len(decision.options) > 1}
        self._fixed = {name: decision.options[0] for name, decision in self._table.items() if name not in self._free}
        self._mixer_names = [mixer_decision_names(file, i) for i in range(len(file.stages))]
        self.decisions: dict[str, tuple[Value, ...]] = {name: decision.options for name, decision in self._free.items()}
        self._first = {name: options[0] for name, options in self.decisions.items()}
        self.mixer_decisions = {name: decision.options for name, decision in self._free.items() if decision.field == "mixer"}
        self._of_stage = [[name for name, decision in self._table.items() if decision.stage == i] for i in range(len(file.stages))]
        # Who fits sizes to a budget asks for each network many times, and for networks that differ in one stage.
        self._decoded = functools.lru_cache(maxsize=5_000)(self._decode)
        self._stage = functools.lru_cache(maxsize=20_000)(self._make_stage)
        content = [dataclasses.astuple(file.frame), file.patch, [(name, decision.options) for name, decision in self._table.items()]]
        self.fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
        if self.fingerprint not in _CHECKED:
            try:
                geometry.check(self._table, self.decode, self.patterns(), self.largest_layers)
            except ValueError as error:
                raise ValueError(f"{place}: at resolution {self.frame.resolution}: {error}") from None
            _CHECKED.add(self.fingerprint)

    @staticmethod
    def read(path: Path) -> SearchSpace:
        """Reads and checks a space file."""
        return SearchSpace.from_data(read_yaml(path, format=FORMAT), path.stem, str(path))

    @staticmethod
    def from_data(data: object, name: str, place: str) -> SearchSpace:
        """The space of what a space file holds; `place` begins the messages."""
        return SearchSpace(space_file(data, place), name, place)

    def __reduce__(self) -> tuple[Any, ...]:
        # The class of the file's model is made for the mixers that there are: another process makes its own.
        return SearchSpace.from_data, (self._file.model_dump(mode="json", exclude_none=True), self.name, self._place)

    def at(self, frame: Frame) -> SearchSpace:
        """The same space for other images or classes; checks that its mixers take them."""
        return self if frame == self.frame else SearchSpace(self._file.model_copy(update={"frame": frame}), self.name, self._place)

    def at_side(self, resolution: int) -> SearchSpace:
        """The same space for images of another size; checks that its mixers take them."""
        return self.at(dataclasses.replace(self.frame, resolution=resolution))

    def fixing(self, values: Values) -> SearchSpace:
        """The same space with some decisions about stages made."""
        stages = list(self._file.stages)
        for name, value in values.items():
            stage, field, *_ = self._table[name]
            assert stage is not None and field != "mixer", name
            stages[stage] = stages[stage].model_copy(update={field: [value]})
        return SearchSpace(self._file.model_copy(update={"stages": stages}), self.name, self._place) if values else self

    @property
    def sizes(self) -> list[str]:
        """The decisions whose options ascend in cost."""
        return [name for name, decision in self._free.items() if decision.ascending]

    @property
    def depths(self) -> list[str]:
        """The decisions about how many blocks a stage has."""
        return [name for name, decision in self._free.items() if decision.field == "depth"]

    @property
    def fields(self) -> set[str]:
        """What of each stage has more than one option, the mixers of its blocks together."""
        return {f"stage {each.stage}: {'mixers' if each.field == 'mixer' else each.field}" for each in self._free.values()}

    def called(self, name: str) -> str:
        """A decision, for people."""
        stage, field, *_ = self._table[name]
        block = re.fullmatch(r"s\d+\.b(\d+)\..+", name)
        where = f"stage {stage}{f', block {block[1]}' if block else ''}: "
        return field if stage is None else f"{where}{field}"

    def random(self, rng: random.Random) -> dict[str, Value]:
        """An option for every decision, uniformly."""
        return {name: rng.choice(options) for name, options in self.decisions.items()}

    # ---- architectures ---------------------------------------------------------------------------------------------

    def decode(self, values: Values) -> Architecture:
        """The canonical architecture of a choice for every decision: what has no effect is left out, so equal networks are equal.

        Raises:
            KeyError: a decision is missing.
        """
        return self._decoded(frozenset(values.items()))

    def _decode(self, values: frozenset[tuple[str, Value]]) -> Architecture:
        full = {**self._fixed, **dict(values)}
        stages = tuple(self._stage(i, tuple(full[name] for name in names)) for i, names in enumerate(self._of_stage))
        forms: dict[str, Any] = {form: full[form] for form in FORM_DEFAULTS}
        return Architecture(self.frame, self._file.patch, stages, **forms)

    def _make_stage(self, i: int, values: tuple[Any, ...]) -> Stage:
        """Of an option for each of the stage's decisions, in their order."""
        full = dict(zip(self._of_stage[i], values, strict=True))
        depth, names = full[f"s{i}.depth"], self._mixer_names[i]
        one = full[f"s{i}.sharing"] and depth > 1
        per_block = self._file.mixer_per == "block" and not one
        mixers = tuple(full[name] for name in names[:depth]) if per_block else (full[names[0]],) * depth
        read = {option for mixer in mixers for option in options_of(mixer)}
        options = {option: full[f"s{i}.{option}"] for option in read if f"s{i}.{option}" in full}
        sharing = one and mixers[0] != NO_MIXER
        return Stage(full[f"s{i}.width"], mixers, full[f"s{i}.mlp_ratio"], full[f"s{i}.cpe"], sharing, options)

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """The choice that makes this architecture; decisions without effect on it get their first option.

        Raises:
            ValueError: the architecture is not in the space.
        """
        return self._first | self.effective(architecture)

    def effective(self, architecture: Architecture) -> dict[str, Value]:
        """The same without the decisions that have no effect on it, such as the mixer of a block that it does not have.

        Raises:
            ValueError: the architecture is not in the space.
        """
        stages = tuple(self._options_as_here(i, stage) for i, stage in enumerate(architecture.stages))
        architecture = dataclasses.replace(architecture.at(self.frame), stages=stages)
        values: dict[str, Value] = {form: getattr(architecture, form) for form in FORM_DEFAULTS}
        if len(stages) == len(self._file.stages):
            for i, stage in enumerate(stages):
                values.update(self._stage_values(i, stage))
        values = {name: values[name] for name in self.decisions if name in values}
        outside = f"{self._place}: architecture {architecture.key} is not in the space"
        for name, value in values.items():
            if value not in self.decisions[name]:
                raise ValueError(f"{outside}: {name}: got {value}; accepted: {', '.join(map(str, self.decisions[name]))}.")
        if (nearest := self.decode(self._first | values)) != architecture:
            got, accepted = _flat(architecture), _flat(nearest)
            where = next(field for field in got | accepted if got.get(field) != accepted.get(field))
            raise ValueError(f"{outside}: {where}: got {got.get(where)}; accepted: {accepted.get(where)}.")
        return values

    def _stage_values(self, i: int, stage: Stage) -> dict[str, Value]:
        """What a stage says, by the names of decisions; decisions that it says nothing of are left out."""
        read = {name for mixer in stage.mixers if mixer in MIXERS for name in options_of(mixer)}
        fields = {**stage.to_dict(), "depth": stage.depth, **{name: stage.option(name) for name in read}}
        values = {f"s{i}.{field}": value for field, value in fields.items() if value is not None}
        # one name may serve all blocks, and where they share, the first block's does
        return values | dict(zip(self._mixer_names[i], stage.mixers[:1] if stage.sharing else stage.mixers, strict=False))

    def _options_as_here(self, i: int, stage: Stage) -> Stage:
        """The same stage with its options told as this space tells them: heads by their number or by their width."""
        others = {name: option.instead_of for name, option in known_options().items() if option.instead_of}
        for given, wanted in (*others.items(), *((other, name) for name, other in others.items())):
            value = stage.option(given)
            if value is not None and f"s{i}.{wanted}" in self._table:
                options = {name: its for name, its in stage.options if name != given} | {wanted: stage.width // int(value)}
                return dataclasses.replace(stage, options=tuple(options.items()))
        return stage

    # ---- extremes and patterns -------------------------------------------------------------------------------------

    def smallest(self, measure: Callable[[Architecture], float]) -> Architecture:
        """The architecture with the smallest measure, which is a cost: it grows with every size, and adds up over stages."""
        return geometry.extreme(self._free, self.decode, measure, sign=1)

    def largest(self, measure: Callable[[Architecture], float]) -> Architecture:
        """The architecture with the largest measure; same conditions."""
        return geometry.extreme(self._free, self.decode, measure, sign=-1)

    def covering(self, *beside: str) -> Iterator[Architecture]:
        """Architectures that have, together, layers of every shape at every place, as `geometry.covering`."""
        return geometry.covering(self._free, self.decode, self.patterns(), beside)

    @functools.cached_property
    def largest_layers(self) -> dict[str, LayerSpec]:
        """The largest layer of every place, by `home`: what a supernet holds."""
        return geometry.largest_layers(self._free, self.decode, self.patterns())

    def patterns(self) -> dict[str, dict[str, Value]]:
        """Names of mixer patterns -> the mixer decisions that make them: each mixer alone, and convolution (or no mixer, where the
        position encodings are the convolutions) in the first half of the stages with attention after it. A stage that does not allow the
        mixer takes conv, or else its first mixer."""
        stages = len(self._file.stages)
        kinds = [mixer for mixer in mixer_names() if any(mixer in stage.mixer for stage in self._file.stages)]
        wanted = {kind: [kind] * stages for kind in kinds}
        first = next((kind for kind in ("conv", NO_MIXER) if kind in kinds), None)
        if first and "attention" in kinds and stages > 1:
            wanted[f"{first}-then-attention"] = [first] * -(-stages // 2) + ["attention"] * (stages // 2)
        return {
            pattern: {
                name: next(kind for kind in (per_stage[decision.stage], "conv", decision.options[0]) if kind in decision.options)
                for name, decision in self._free.items()
                if decision.field == "mixer" and decision.stage is not None
            }
            for pattern, per_stage in wanted.items()
        }


def _flat(architecture: Architecture) -> dict[str, object]:
    """Every field by its place."""
    fields = {field.name: getattr(architecture, field.name) for field in dataclasses.fields(architecture) if field.name != "stages"}
    for i, stage in enumerate(architecture.stages):
        fields |= {f"stages[{i}].{name}": value for name, value in stage.to_dict().items()}
    return fields
