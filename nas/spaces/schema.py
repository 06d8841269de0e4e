"""What a space file may say, and the decisions that follow from it.

A list is a choice, a scalar is fixed. The options of the mixers are keys of a stage, as `nas.networks.mixers.MIXERS` declares them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, create_model

from nas.networks.architecture import FORM_DEFAULTS, Architecture, Frame, Patch, Ratio, Width
from nas.networks.mixers import MIXERS, Mixer, Value, check_mixer, known_options, mixer_names, options_of
from nas.yaml_files import validate

FORMAT = "search space 1"
Values = Mapping[str, Value]  # an option for every decision, by name

T = TypeVar("T")
Choice = Annotated[list[T], BeforeValidator(lambda given: given if isinstance(given, list) else [given])]
_choice: Any = Choice  # of a type that is known at run time only
_FORM_TYPES = {form: get_type_hints(Architecture, include_extras=True)[form] for form in FORM_DEFAULTS}
# Not searched: a batch norm that ran for some networks only would have the statistics of a mixture, and the others are no part of the weights.
FIXED_FORMS = ("stem", "norm_eps", "layer_scale_init")


def _words(of: Any) -> tuple[Any, ...] | None:
    """The words of a Literal, in order; None for a number or a switch."""
    return get_args(of) if get_origin(of) is Literal else None


class StageChoices(BaseModel):
    """One stage of a space file; every field takes one value or a list of them. The mixers' options are further fields, None where not said."""

    model_config = ConfigDict(extra="forbid")
    width: Choice[Width]
    depth: Choice[Annotated[StrictInt, Field(ge=1, le=256)]]
    mixer: Choice[str]
    mlp_ratio: Choice[Ratio]
    cpe: Choice[StrictBool] = [False]
    sharing: Choice[StrictBool] = [False]


class SpaceFile(BaseModel):
    """A space file: the frame in which budgets are counted, the stem's patch, the stages. The forms of an architecture are further fields."""

    model_config = ConfigDict(extra="forbid")
    format: str
    frame: Frame
    patch: Patch
    mixer_per: Literal["block", "stage"] = "block"
    stages: list[StageChoices]


def space_file(data: object, place: str) -> SpaceFile:
    """Checks names and values, not geometry.

    Raises:
        ValueError: a key or value is not a space's; `place` begins the message.
    """
    return validate(_model(tuple(MIXERS.values())), data, place)


@functools.cache
def _model(mixers: tuple[Mixer, ...]) -> type[SpaceFile]:
    """What a space file may say where there are these mixers."""
    options: dict[str, Any] = {name: (_choice[option.type], None) for name, option in known_options().items()}
    stage: Any = create_model("StageChoices", __base__=StageChoices, **options)
    forms: dict[str, Any] = {form: (_choice[kind], [FORM_DEFAULTS[form]]) for form, kind in _FORM_TYPES.items()}
    stages: Any = (Annotated[list[stage], Field(min_length=1, max_length=16)], ...)
    return create_model("SpaceFile", __base__=SpaceFile, **forms, stages=stages)


class Decision(NamedTuple):
    """The options for one field of a stage, or with `stage` None of the whole network.

    Where they are `ascending` the options ascend in cost, which `geometry.check` verifies; elsewhere they are kinds, in no order.
    """

    stage: int | None
    field: str
    options: tuple[Value, ...]
    ascending: bool


def decisions_of(file: SpaceFile, place: str) -> dict[str, Decision]:
    """Every decision by name, those with one option included, in a fixed order.

    Raises:
        ValueError: options that occur twice, or that cannot be searched; `place` begins the message.
    """
    table: dict[str, Decision] = {}
    for form, kind in _FORM_TYPES.items():
        options = getattr(file, form)
        table[form] = _decision(None, form, options, place, _words(kind), ascending=False)
        if form in FIXED_FORMS and len(options) > 1:
            raise ValueError(f"{place}: {form}: fixed, not searched: got {', '.join(map(str, options))}; accepted: one of them.")
        if form == "merge" and len(file.stages) == 1:  # nothing is merged
            table[form] = Decision(None, form, (FORM_DEFAULTS[form],), ascending=False)
    for i, stage in enumerate(file.stages):
        for decision in _stage_decisions(i, stage, f"{place}: stages[{i}]"):
            names = mixer_decision_names(file, i) if decision.field == "mixer" else [f"s{i}.{decision.field}"]
            table.update(dict.fromkeys(names, decision))
    return table


def _stage_decisions(i: int, stage: StageChoices, place: str) -> Iterator[Decision]:
    for mixer in stage.mixer:
        check_mixer(mixer, f"{place}.mixer")
    yield from (_decision(i, field, getattr(stage, field), place) for field in ("width", "depth", "mlp_ratio"))
    known, read = known_options(), {name for mixer in stage.mixer for name in options_of(mixer)}
    replaced = {option.instead_of for name, option in known.items() if getattr(stage, name) is not None}
    for name, option in known.items():
        options = getattr(stage, name)
        if options is None and option.default is not None and name not in replaced:
            options = [option.default]
        if options is not None:
            decision = _decision(i, name, options, place, _words(option.type), option.ascending)
            yield from [decision] if name in read else []
    yield _decision(i, "cpe", stage.cpe, place)
    yield _decision(i, "sharing", stage.sharing, place, (True, False))  # it saves parameters
    yield _decision(i, "mixer", stage.mixer, place, mixer_names(), ascending=False)


def _decision(
    stage: int | None, field: str, options: list[Any], place: str, order: Sequence[Value] | None = None, ascending: bool = True
) -> Decision:
    """The decision with its options in the given order; numbers without one ascend."""
    if not options or len(set(options)) < len(options):
        where = f"{place}: {field}" if stage is None else f"{place}.{field}"
        raise ValueError(f"{where}: options must be distinct and at least one: got {options}.")
    return Decision(stage, field, tuple(option for option in order or sorted(options) if option in options), ascending)


def mixer_decision_names(file: SpaceFile, i: int) -> list[str]:
    """One decision per block of a stage, up to the largest depth; with `mixer_per: stage` one for the stage."""
    return [f"s{i}.b{j}.mixer" for j in range(max(file.stages[i].depth))] if file.mixer_per == "block" else [f"s{i}.mixer"]
