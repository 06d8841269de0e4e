"""What networks cost, and limits on it: ``4.5GFLOPs``, ``28Mparams``, ``8ms``, ``120img/s``, ``2GB`` - parsed, checked and printed.

A multiply-add counts once, as the papers count it: ``4.5GFLOPs`` and ``4.5GMACs`` are the same budget.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from nas.yaml_files import brief


class Cost(NamedTuple):
    """What a network, or a part of one, costs for one image.

    Attributes:
        macs: multiply-adds, each counted once.
        params: trainable numbers.
        activations: output elements of convolutions, linears and of attention's product with the values.
    """

    macs: int
    params: int
    activations: int


@dataclass(frozen=True)
class Quantity:
    """Something that a network costs, to be limited by a budget: the less, the better.

    It is exact (arithmetic knows it before a network runs) or measured (found out by running the network, and never twice quite the same).
    """

    name: str  # its key in `QUANTITIES`; of an exact quantity also the field of `Cost`
    unit: str  # what values and limits are kept in, or of a rate, what they are written in
    measured: bool  # otherwise exact
    how: str  # one sentence for help and reports: what is counted or measured
    scale: tuple[tuple[str, Decimal], ...]  # the units it is written in, ascending, each with its factor to `unit`
    spellings: Mapping[str, str]  # further spellings of units -> the unit that they mean
    rate: bool = False  # written as so many a second, and kept as the time of one: its scale's factor over the number

    @property
    def called(self) -> str:
        """By people: for the axes of pictures and the heads of tables."""
        return _CALLED.get(self.name, self.name)


def counted(name: str, unit: str, how: str, *words: str, measured: bool = False) -> Quantity:
    """A quantity in whole units, written with k, M, G and T; `words` are further words for the unit."""
    prefixes = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    scale = tuple((prefix + unit, Decimal(factor)) for prefix, factor in prefixes.items())
    return Quantity(name, unit, measured, how, scale, {prefix + word: prefix + unit for word in words for prefix in prefixes})


_CALLED = {
    "macs": "multiply-adds",
    "params": "parameters",
    "latency_ms": "latency",
    "image_ms": "images a second",
    "memory_bytes": "memory",
}
_TIMES = (("us", Decimal("0.001")), ("ms", Decimal(1)), ("s", Decimal(1000)))
_MICRO = {"µs": "us", "μs": "us"}  # the micro sign and the Greek letter
_RATES = {"ips": "img/s", "fps": "img/s", "images/s": "img/s", "imgs/s": "img/s"}  # the first has no slash: for file names
_ALL = (
    counted("macs", "MACs", "Multiply-adds of one image, each counted once; papers call them FLOPs.", "MAC", "FLOPs", "FLOP"),
    counted("params", "params", "Trainable numbers; what blocks share counts once.", "param"),
    counted("activations", "activations", "Output elements, for one image, of all that multiplies.", "activation"),
    Quantity("latency_ms", "ms", True, "Median time of a forward pass on the target, which does nothing else.", _TIMES, _MICRO),
    Quantity(
        "image_ms", "img/s", True, "The same for one image of the pass: so many images a second.", (("img/s", Decimal(1000)),), _RATES, True
    ),
    counted("memory_bytes", "B", "Weights, and tensors alive at once, of a forward pass on the target.", "byte", "bytes", measured=True),
)
# Every quantity, in the order in which several budgets are named. An entry more is a kind of budget more: if it is exact, a field of `Cost`
# of that name, if it is measured, a function that the command hands to the search.
QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _ALL}


@dataclass(frozen=True)
class Budget:
    """An upper limit on one quantity."""

    quantity: Quantity
    limit: float  # in the quantity's unit; positive and finite
    text: str  # canonical print, equal for equal limits, fit for file names and for `parse_budget`: ``4.5GMACs``
    # Of a measured quantity, what arithmetic foretells of an `Architecture` (given a latency table, say), in the quantity's unit.
    foretell: Callable[[Any], float] | None = field(default=None, compare=False, repr=False)

    @property
    def by_arithmetic(self) -> bool:
        """Whether `value` judges networks before any runs."""
        return not self.quantity.measured or self.foretell is not None

    def value(self, architecture: Any, cost: Cost) -> float:
        """What arithmetic says that the network of this cost has of the quantity."""
        return getattr(cost, self.quantity.name) if self.foretell is None else self.foretell(architecture)

    def violation(self, value: float) -> float:
        """How far `value` is over the limit, as a share of the limit: 0.1 is 10% over, 0 or less is within."""
        return value / self.limit - 1.0


_EXAMPLES = "Write it like 4.5GFLOPs, 300MMACs, 28Mparams, 8ms, 120img/s or 2GB."
_BUDGET = re.compile(r"\s*([+-]?(?:nan|inf(?:inity)?|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?))\s*([^\W\d_]*(?:/s)?)\s*", re.I)


def parse_budget(text: str, place: str = "--budget") -> Budget:
    """Reads one budget: a positive number and a unit, ``4.5GFLOPs``, ``1.2e9MACs``, ``28Mparams``, ``500us``.

    Args:
        text: what the user wrote; upper and lower case are the same (a milli-MAC and a megasecond are nobody's budget), a space before the
            unit is allowed.
        place: where it stands, to begin the error with.

    Raises:
        ValueError: not a number, an unknown unit, or not positive and finite.
    """
    accepted = f"a number and a unit: {', '.join(quantity.unit for quantity in QUANTITIES.values())}, with k, M, G or T before a count"
    matched = _BUDGET.fullmatch(text)
    if matched is None:
        raise ValueError(f"{place}: not a number with a unit: got {brief(text)}; accepted: {accepted}. {_EXAMPLES}")
    number, unit = matched.groups()
    units = _units()
    if unit.lower() not in units:
        what = f"unknown unit {unit!r}" if unit else "no unit"
        close = [
            spelling for spelling, _, _ in units.values() if unit and spelling.lower() in (f"{unit}macs".lower(), f"{unit}params".lower())
        ]
        close = close or [units[each][0] for each in difflib.get_close_matches(unit.lower(), units, n=1)]
        advice = f"Did you mean {' or '.join(repr(number + each) for each in close)}?" if close else _EXAMPLES
        raise ValueError(f"{place}: {what}: got {brief(text)}; accepted: {accepted}. {advice}")
    _, quantity, factor = units[unit.lower()]
    # Decimal, so that 28.1M is 28100000 to the last bit and not 28.1 * 1e6.
    limit = float(number)
    if limit and math.isfinite(limit):
        exact = Decimal(number)
        limit = float(factor / Decimal(f"{exact:.9g}") if quantity.rate else exact * factor)
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"{place}: not a limit: got {brief(text)}; accepted: a positive finite number. {_EXAMPLES}")
    return Budget(quantity, limit, _canonical(quantity, limit))


def parse_budgets(texts: Iterable[str], place: str = "--budget") -> tuple[Budget, ...]:
    """Reads several budgets, at most one per quantity, and puts them in the order of `QUANTITIES`.

    Raises:
        ValueError: as `parse_budget`, or two limits for one quantity.
    """
    budgets: dict[str, Budget] = {}
    for text in texts:
        budget = parse_budget(text, place)
        first = budgets.setdefault(budget.quantity.name, budget)
        if first.limit != budget.limit:
            raise ValueError(
                f"{place}: two limits on {budget.quantity.called}: got {first.text} and {budget.text}; "
                f"accepted: one for each of {', '.join(each.called for each in QUANTITIES.values())}. Keep the smaller one."
            )
    return tuple(budgets[name] for name in QUANTITIES if name in budgets)


def format_quantity(name: str, value: float) -> str:
    """Prints a value of the quantity with three figures and its unit: ``4.48 GMACs``, ``28.1 Mparams``, ``7.93 ms``, ``512 MACs``."""
    quantity = QUANTITIES[name]
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {quantity.unit}"
    if quantity.rate:
        number = float(quantity.scale[0][1]) / value
        return f"{number:{'.3g' if number < 1000 else '.0f'}} {quantity.unit}"
    # Rounded before the prefix is chosen, so that 999.9 million prints as 1.00 G and not as 1000 M.
    rounded = Decimal(f"{value:.2e}")
    unit, factor = _largest_unit(quantity, abs(rounded))
    figures = f"{float(rounded / factor):#.3g}" if abs(rounded / factor) < 1000 else f"{float(rounded / factor):g}"
    if unit == quantity.unit == quantity.scale[0][0]:
        figures = f"{value:g}"  # counts below a thousand are whole
    return f"{figures.rstrip('.')} {unit}"


def _units() -> dict[str, tuple[str, Quantity, Decimal]]:
    """Every spelling of a unit in lower case -> how it is printed, its quantity, its factor."""
    units = {}
    for quantity in QUANTITIES.values():
        factors = dict(quantity.scale)
        for spelling, unit in {**{unit: unit for unit in factors}, **quantity.spellings}.items():
            units[spelling.lower()] = (spelling, quantity, factors[unit])
    return units


def _largest_unit(quantity: Quantity, value: Decimal) -> tuple[str, Decimal]:
    """The largest unit that leaves at least one before the point, or the smallest unit there is."""
    return next((entry for entry in reversed(quantity.scale) if value >= entry[1]), quantity.scale[0])


def _canonical(quantity: Quantity, limit: float) -> str:
    """The exact limit in its handiest unit: no figure is rounded away, since two limits must not share a file name."""
    exact = Decimal(repr(limit))
    if quantity.rate:  # nine figures were read, of a number whose inverse is kept
        return f"{float(quantity.scale[0][1] / exact):.9g}{next(iter(quantity.spellings))}".replace("e+", "E")
    unit, factor = _largest_unit(quantity, exact)
    number = exact / factor
    handy = Decimal("1e-6") <= number < Decimal("1e6")
    return f"{number.normalize():{'f' if handy else 'E'}}".replace("E+", "E") + unit
