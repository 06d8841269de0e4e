"""A search space: which values each decision about a network may take, read from YAML.

`decisions` is the only place that knows which decisions exist. It is a fixed-length table, name -> options in ascending order of
cost; `decode` makes the canonical Architecture of a choice for every decision, `encode` is its inverse.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from nas.networks.architecture import (
    FORM_DEFAULTS,
    OPTION_DEFAULTS,
    Architecture,
    Frame,
    MergeKind,
    NormEps,
    NormKind,
    OptionalNorm,
    Scaled,
    ScaleInit,
    SplitPool,
    Stage,
    StemKind,
    TokenHidden,
)
from nas.networks.layers import LAYERS, LayerSpec, layer_specs, own_part
from nas.networks.mixers import NAMES, NO_MIXER, options_of
from nas.yaml_files import did_you_mean, read_yaml, validate

FORMAT = "search space 1"
Value = int | float | bool | str
Values = Mapping[str, Value]


def _as_list(given: object) -> object:
    """A list is a choice, a scalar is fixed."""
    return given if isinstance(given, list) else [given]


T = TypeVar("T")
Choice = Annotated[list[T], BeforeValidator(_as_list)]


class StageChoices(BaseModel):
    """One stage of a space file; every field takes one value or a list of them."""

    model_config = ConfigDict(extra="forbid")
    width: Choice[Annotated[StrictInt, Field(ge=1, le=65536)]]
    depth: Choice[Annotated[StrictInt, Field(ge=1, le=256)]]
    mixer: Choice[str]
    mlp_ratio: Choice[Annotated[StrictFloat, Field(gt=0, le=64, allow_inf_nan=False)]]  # a whole number is one too
    kernel: Choice[Annotated[StrictInt, Field(ge=1, le=255)]] = [3]
    head_width: Choice[Annotated[StrictInt, Field(ge=1, le=65536)]] = [32]
    heads: Choice[Annotated[StrictInt, Field(ge=1, le=65536)]] | None = None  # instead of head_width
    token_hidden: Choice[TokenHidden] = ["tokens"]
    split_pool: Choice[SplitPool] = ["mean"]
    cpe: Choice[StrictBool] = [False]
    sharing: Choice[StrictBool] = [False]


class SpaceFile(BaseModel):
    """A space file: the frame in which budgets are counted, the stem's patch, the stages, and the form of what stands around the mixers.

    The forms are those of `architecture.Architecture`.
    """

    model_config = ConfigDict(extra="forbid")
    format: str
    frame: Frame
    patch: Annotated[StrictInt, Field(ge=1, le=256)]
    mixer_per: Literal["block", "stage"] = "block"
    stem: Choice[StemKind] = [FORM_DEFAULTS["stem"]]
    stem_norm: Choice[OptionalNorm] = [FORM_DEFAULTS["stem_norm"]]
    norm: Choice[NormKind] = [FORM_DEFAULTS["norm"]]
    norm_eps: NormEps = FORM_DEFAULTS["norm_eps"]
    layer_scale: Choice[Scaled] = [FORM_DEFAULTS["layer_scale"]]
    layer_scale_init: ScaleInit = FORM_DEFAULTS["layer_scale_init"]
    merge: Choice[MergeKind] = [FORM_DEFAULTS["merge"]]
    final_norm: Choice[OptionalNorm] = [FORM_DEFAULTS["final_norm"]]
    stages: Annotated[list[StageChoices], Field(min_length=1, max_length=16)]


# The decisions of a stage besides its mixers, and which of them only some mixers read.
_STAGE_DECISIONS = ("width", "depth", "mlp_ratio", "kernel", "head_width", "heads", "token_hidden", "split_pool", "cpe", "sharing")
_MIXER_OPTIONS = tuple(OPTION_DEFAULTS)
# The decisions about all of a network: the forms that are names, which ascend in cost as their types list them.
_FORMS = {
    form: get_args(kind) for form, kind in get_type_hints(Architecture).items() if form in FORM_DEFAULTS and get_origin(kind) is Literal
}


class SearchSpace:
    """The networks that a space file allows.

    Attributes:
        name: the file's, without its ending.
        frame: images and classes in which its budgets are counted.
        decisions: name -> options, ascending in cost; decisions with one option are left out. `s1.width` is the width of
            stages[1], `s1.b0.mixer` the mixer of its first block (`s1.mixer` with `mixer_per: stage`).
        stride: pixels per token of the last stage, along one side: resolutions are multiples of it.
        fingerprint: changes with anything that changes what the decisions mean.

    Raises:
        ValueError: an error in the file (syntax and names first, then geometry), with its place.
    """

    def __init__(self, file: SpaceFile, name: str, place: str) -> None:
        self._file, self.name, self._place = file, name, place
        self.frame = file.frame
        self.stride = file.patch * 2 ** (len(file.stages) - 1)
        self._options = self._table()
        self.decisions: dict[str, tuple[Value, ...]] = {k: v for k, v in self._options.items() if len(v) > 1}
        self._fixed = {k: v[0] for k, v in self._options.items() if len(v) == 1}
        content = json.dumps([file.model_dump(mode="json")], sort_keys=True)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:12]
        self._check_geometry()

    @staticmethod
    def read(path: Path) -> SearchSpace:
        """Reads and checks a space file."""
        return SearchSpace(validate(SpaceFile, read_yaml(path, format=FORMAT), str(path)), path.stem, str(path))

    def at(self, frame: Frame) -> SearchSpace:
        """The same space for other images or classes; checks that its mixers take them."""
        if frame == self.frame:
            return self
        return SearchSpace(self._file.model_copy(update={"frame": frame}), self.name, self._place)

    # ---- decisions -------------------------------------------------------------------------------------------------

    def _table(self) -> dict[str, tuple[Value, ...]]:
        """Every decision with its options, fixed ones included, in a fixed order."""
        table: dict[str, tuple[Value, ...]] = {}
        for form, names in _FORMS.items():
            options = self._distinct(getattr(self._file, form), f"{self._place}: {form}")
            if form == "merge" and len(self._file.stages) == 1:  # nothing is merged
                options = [FORM_DEFAULTS[form]]
            table[form] = tuple(name for name in names if name in options)
        if len(table["stem"]) > 1:
            raise ValueError(
                f"{self._place}: stem: fixed, not searched: got {', '.join(map(str, table['stem']))}; accepted: one of them. "
                "The statistics of a batch norm that runs for some networks only would be those of a mixture."
            )
        for i, stage in enumerate(self._file.stages):
            where = f"{self._place}: stages[{i}]"
            for mixer in stage.mixer:
                if mixer not in NAMES:
                    raise ValueError(f"{where}.mixer: unknown mixer {mixer!r}; known: {', '.join(NAMES)}.{did_you_mean(mixer, NAMES)}")
            if stage.heads is not None and "head_width" in stage.model_fields_set:
                raise ValueError(f"{where}: 'heads' and 'head_width' say the same: got both. Keep one.")
            read = {option for mixer in stage.mixer for option in options_of(mixer)}
            unread = "heads" if stage.heads is None else "head_width"
            for field in (*_STAGE_DECISIONS, "mixer"):
                if field == unread:
                    continue
                options = self._distinct(getattr(stage, field), f"{where}.{field}")
                if field in _MIXER_OPTIONS and field not in read:
                    continue  # no mixer of the stage reads it
                # sharing saves parameters, so True comes before False: options ascend in cost
                options = [m for m in NAMES if m in options] if field == "mixer" else sorted(options, reverse=field == "sharing")
                table.update(dict.fromkeys(self._mixer_names(i) if field == "mixer" else [f"s{i}.{field}"], tuple(options)))
        return table

    @staticmethod
    def _distinct(options: list[Any], where: str) -> list[Any]:
        if not options or len(set(options)) < len(options):
            raise ValueError(f"{where}: options must be distinct and at least one: got {options}.")
        return options

    def _mixer_names(self, i: int) -> list[str]:
        """One decision name per block, up to the largest depth; with `mixer_per: stage` one for the stage."""
        depth = max(self._file.stages[i].depth)
        return [f"s{i}.b{j}.mixer" for j in range(depth)] if self._file.mixer_per == "block" else [f"s{i}.mixer"]

    @functools.cached_property
    def mixer_decisions(self) -> dict[str, tuple[Value, ...]]:
        """The decisions that choose a mixer; the others choose a size."""
        return {name: options for name, options in self.decisions.items() if name.endswith(".mixer")}

    def size(self) -> int:
        """How many choices there are, counting those that make equal networks each time."""
        product = 1
        for options in self.decisions.values():
            product *= len(options)
        return product

    def random(self, rng: random.Random) -> dict[str, Value]:
        """An option for every decision, uniformly."""
        return {name: rng.choice(options) for name, options in self.decisions.items()}

    # ---- architectures ---------------------------------------------------------------------------------------------

    def decode(self, values: Values) -> Architecture:
        """The canonical architecture of a choice for every decision: what has no effect is left out, so equal networks are equal.

        Raises:
            KeyError: a decision is missing.
        """
        full = {**self._fixed, **values}
        stages = tuple(self._stage(i, full) for i in range(len(self._file.stages)))
        forms: dict[str, Any] = {form: full[form] for form in _FORMS}
        return Architecture(
            self.frame, self._file.patch, stages, norm_eps=self._file.norm_eps, layer_scale_init=self._file.layer_scale_init, **forms
        )

    def _stage(self, i: int, full: Mapping[str, Any]) -> Stage:
        depth, names = full[f"s{i}.depth"], self._mixer_names(i)
        one = full[f"s{i}.sharing"] and depth > 1
        per_block = self._file.mixer_per == "block" and not one
        mixers = tuple(full[name] for name in names[:depth]) if per_block else (full[names[0]],) * depth
        read = {option for mixer in mixers for option in options_of(mixer)}
        given = {option: full[f"s{i}.{option}"] for option in sorted(read) if f"s{i}.{option}" in full}
        return Stage(full[f"s{i}.width"], mixers, float(full[f"s{i}.mlp_ratio"]), full[f"s{i}.cpe"], one and mixers[0] != NO_MIXER, **given)

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """The choice that makes this architecture; decisions without effect on it get their first option.

        Raises:
            ValueError: the architecture is not in the space.
        """
        architecture = dataclasses.replace(
            architecture.at(self.frame), stages=tuple(self._heads_as_here(i, stage) for i, stage in enumerate(architecture.stages))
        )
        values = {name: options[0] for name, options in self.decisions.items()}
        values.update({form: getattr(architecture, form) for form in _FORMS})
        if len(architecture.stages) == len(self._file.stages):
            for i, stage in enumerate(architecture.stages):
                values.update({f"s{i}.{field}": getattr(stage, field) for field in _STAGE_DECISIONS if getattr(stage, field) is not None})
                values.update(zip(self._mixer_names(i), stage.mixers, strict=False))  # one name may serve all, or blocks be too many
                if stage.sharing:
                    values.update({name: self.decisions[name][0] for name in self._mixer_names(i)[1:] if name in self.decisions})
        values = {name: value for name, value in values.items() if name in self.decisions}
        outside = f"{self._place}: architecture {architecture.key} is not in the space"
        for name, value in values.items():
            if value not in self.decisions[name]:
                raise ValueError(f"{outside}: {name}: got {value}; accepted: {', '.join(map(str, self.decisions[name]))}.")
        nearest = self.decode(values)
        if nearest != architecture:
            where, got, accepted = _difference(architecture, nearest)
            raise ValueError(f"{outside}: {where}: got {got}; accepted: {accepted}.")
        return values

    def _heads_as_here(self, i: int, stage: Stage) -> Stage:
        """The same stage with its heads told as this space tells them, by their number or by their width."""
        if stage.head_width and f"s{i}.heads" in self._options:
            return dataclasses.replace(stage, head_width=None, heads=stage.width // stage.head_width)
        if stage.heads and f"s{i}.head_width" in self._options:
            return dataclasses.replace(stage, heads=None, head_width=stage.width // stage.heads)
        return stage

    # ---- extremes and patterns -------------------------------------------------------------------------------------

    def smallest(self, measure: Callable[[Architecture], float]) -> Architecture:
        """The architecture with the smallest measure, where the measure is a cost: it grows with every width, depth, ratio
        and kernel, and adds up over stages."""
        return self._extreme(measure, sign=1)

    def largest(self, measure: Callable[[Architecture], float]) -> Architecture:
        """The architecture with the largest measure; same conditions."""
        return self._extreme(measure, sign=-1)

    def _extreme(self, measure: Callable[[Architecture], float], sign: int) -> Architecture:
        # One decision at a time until none improves. Exact for costs: sizes are monotone whatever the mixers, and at given
        # sizes the mixers' costs add up (tests compare with enumeration).
        values = {name: options[0 if sign == 1 else -1] for name, options in self.decisions.items()}
        best, previous = sign * measure(self.decode(values)), float("inf")
        while best < previous:
            previous = best
            for name, options in self.decisions.items():
                scores = [(sign * measure(self.decode({**values, name: option})), k) for k, option in enumerate(options)]
                best = min(scores)[0]
                if best < sign * measure(self.decode(values)):
                    values[name] = options[min(scores)[1]]
        return self.decode(values)

    def patterns(self) -> dict[str, dict[str, Value]]:
        """Names of mixer patterns -> the mixer decisions that make them: each mixer alone, and convolution (or no mixer, where the
        position encodings are the convolutions) in the first half of the stages with attention after it. A stage that does not allow the
        mixer takes conv, or else its first mixer."""
        stages = len(self._file.stages)
        kinds = [m for m in NAMES if any(m in stage.mixer for stage in self._file.stages)]
        wanted = {kind: [kind] * stages for kind in kinds}
        first = next((kind for kind in ("conv", NO_MIXER) if kind in kinds), None)
        if first and "attention" in kinds and stages > 1:
            wanted[f"{first}-then-attention"] = [first] * -(-stages // 2) + ["attention"] * (stages // 2)
        return {name: self._pattern(per_stage) for name, per_stage in wanted.items()}

    def _pattern(self, per_stage: list[str]) -> dict[str, Value]:
        fixed: dict[str, Value] = {}
        for i, kind in enumerate(per_stage):
            for name in self._mixer_names(i):
                if name in self.decisions:
                    options = self.decisions[name]
                    fixed[name] = next(k for k in (kind, "conv", options[0]) if k in options)
        return fixed

    # ---- layers ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def largest_layers(self) -> dict[str, LayerSpec]:
        """The largest layer of every place, by `home`: what a supernet holds."""
        layers: dict[str, LayerSpec] = {}
        largest = {name: options[-1] for name, options in self.decisions.items()}
        # kinds, of which no option is larger than the others for certain
        kinds = [name for name in self.decisions if name in _FORMS or name.endswith(".token_hidden")]
        choices = [{}, *({name: option} for name in kinds for option in self.decisions[name])]
        shared = {name: options[0] for name, options in self.decisions.items() if name.endswith(".sharing")}
        for fixed, sharing, choice in itertools.product(self.patterns().values(), ({}, shared), choices):
            for spec in layer_specs(self.decode({**largest, **fixed, **sharing, **choice})):
                known = layers.get(spec.home)
                if known is None or _params(spec) > _params(known):
                    layers[spec.home] = spec
        return layers

    def _check_geometry(self) -> None:
        """Builds each distinct layer on the meta device, and cuts it out of the largest of its place.

        Raises:
            ValueError: a mixer cannot take a width or grid, or its channels do not nest.
        """
        try:
            largest = {home: dict(_build(spec).named_parameters()) for home, spec in self.largest_layers.items()}
            for spec in self._distinct_layers():
                module = _build(spec)
                for name, _ in module.named_parameters():
                    own_part(module, name, largest[spec.home][name])
        except AssertionError as error:
            raise ValueError(f"{self._place}: {spec.place}: the widths do not nest: got {error}. Take multiples of 28 or of 32.") from None
        except ValueError as error:
            raise ValueError(f"{self._place}: at resolution {self.frame.resolution}: {error}") from None

    def _distinct_layers(self) -> list[LayerSpec]:
        """One spec for every shape and place that any architecture can have."""
        found: dict[Any, LayerSpec] = {}
        base = {name: options[-1] for name, options in self.decisions.items()}
        # two blocks show all that twelve would; one could not share
        base |= {
            name: next((d for d in options if int(d) > 1), options[-1])
            for name, options in self.decisions.items()
            if name.endswith(".depth")
        }
        for i, stage in enumerate(self._file.stages):
            # A layer depends on its stage's width and on few other decisions: their whole product would take a wide space half a minute.
            others = {("mlp_ratio",), ("cpe",), *(options_of(mixer) for mixer in stage.mixer)}
            groups = [(f"s{i - 1}.width",), *(tuple(f"s{i}.{field}" for field in group) for group in sorted(others))]
            groups += [(form,) for form in _FORMS if form in self.decisions]
            for fixed, group in itertools.product(self.patterns().values(), groups):
                names = [name for name in (f"s{i}.width", f"s{i}.sharing", *group) if name in self.decisions]
                for choice in itertools.product(*(self.decisions[name] for name in names)):
                    values = {**base, **fixed, **dict(zip(names, choice, strict=True))}
                    for spec in layer_specs(self.decode(values)):
                        place = spec.place if spec.kind in ("stem", "head") else spec.weights.split(".blocks.")[0]
                        found.setdefault((spec.shape, place), spec)
        return list(found.values())


def _difference(one: Architecture, other: Architecture) -> tuple[str, object, object]:
    """The first field in which two architectures differ, with the two values."""
    if len(one.stages) != len(other.stages):
        return "stages", f"{len(one.stages)} stages", len(other.stages)
    pairs: list[tuple[str, Any, Any]] = [
        ("", one, other),
        *((f"stages[{i}].", *both) for i, both in enumerate(zip(one.stages, other.stages, strict=True))),
    ]
    return next(
        (f"{prefix}{field.name}", a, b)
        for prefix, first, second in pairs
        for field in dataclasses.fields(first)
        if field.name != "stages" and (a := getattr(first, field.name)) != (b := getattr(second, field.name))
    )


def _params(spec: LayerSpec) -> int:
    return LAYERS[spec.kind].cost(**dict(spec.settings)).params  # type: ignore[attr-defined]


def _build(spec: LayerSpec) -> torch.nn.Module:
    """The spec's module on the meta device; an error of geometry is told with its place."""
    with torch.device("meta"):
        try:
            return spec.build()
        except ValueError as error:
            raise ValueError(f"{spec.place}: {error}") from None


def with_frame(space: SearchSpace, **changes: int) -> SearchSpace:
    """The space with some of its frame's fields changed."""
    return space.at(dataclasses.replace(space.frame, **changes))
