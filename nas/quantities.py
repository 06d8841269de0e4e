"""Costs and budgets: ``4.5GFLOPs``, ``28Mparams``, ``8ms`` - parsed, checked and printed.

A multiply-add counts once, as the papers count it: ``4.5GFLOPs`` and ``4.5GMACs`` are the same budget.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple


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
class Budget:
    """An upper limit on one quantity.

    Attributes:
        quantity: ``"macs"``, ``"params"`` or ``"latency_ms"``.
        limit: in MACs, parameters or milliseconds; positive and finite.
        text: canonical print, equal for equal limits, fit for file names and for `parse_budget`: ``4.5GMACs``.
    """

    quantity: str
    limit: float
    text: str

    def violation(self, value: float) -> float:
        """How far `value` is over the limit, as a share of the limit: 0.1 is 10% over, 0 or less is within."""
        return value / self.limit - 1.0


# Written unit of each quantity, and the prefixes it is printed with: (prefix, factor to the unit the limit is kept in).
_COUNT_PREFIXES = (("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9), ("T", 10**12))
_PRINTED: dict[str, tuple[tuple[str, Decimal], ...]] = {
    quantity: tuple((prefix + unit, Decimal(factor)) for prefix, factor in _COUNT_PREFIXES)
    for quantity, unit in (("macs", "MACs"), ("params", "params"), ("activations", "activations"))
}
_PRINTED["latency_ms"] = (("us", Decimal("0.001")), ("ms", Decimal(1)), ("s", Decimal(1000)))

# The order in which several budgets are named, whatever the order they were given in.
QUANTITIES = ("macs", "params", "latency_ms")
_ACCEPTED = "a number and one of MACs, FLOPs, params (with k, M, G or T before it), s, ms, us"
_EXAMPLES = "Write it like 4.5GFLOPs, 300MMACs, 28Mparams or 8ms."

# Spelling without regard to case -> (printed spelling, quantity, factor). No unit needs the case to be told apart:
# a milli-MAC and a megasecond are nobody's budget.
_UNITS: dict[str, tuple[str, str, Decimal]] = {}
for _word, _quantity in (("MACs", "macs"), ("FLOPs", "macs"), ("params", "params")):
    for _prefix, _factor in _COUNT_PREFIXES:
        for _spelling in (_word, _word[:-1]):
            _UNITS[(_prefix + _spelling).lower()] = (_prefix + _word, _quantity, Decimal(_factor))
for _spelling, _time in _PRINTED["latency_ms"]:
    _UNITS[_spelling] = (_spelling, "latency_ms", _time)
_UNITS["µs"] = _UNITS["μs"] = _UNITS["us"]  # the micro sign and the Greek letter

_BUDGET = re.compile(r"\s*([+-]?(?:nan|inf(?:inity)?|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?))\s*([^\W\d_]*)\s*", re.I)


def parse_budget(text: str, place: str = "--budget") -> Budget:
    """Reads one budget: a positive number and a unit, ``4.5GFLOPs``, ``1.2e9MACs``, ``28Mparams``, ``500us``.

    Args:
        text: what the user wrote; upper and lower case are the same, a space before the unit is allowed.
        place: where it stands, to begin the error with.

    Raises:
        ValueError: not a number, an unknown unit, or not positive and finite.
    """
    matched = _BUDGET.fullmatch(text)
    if matched is None:
        raise ValueError(f"{place}: not a number with a unit: got {_short(text)}; accepted: {_ACCEPTED}. {_EXAMPLES}")
    number, unit = matched.groups()
    if unit.lower() not in _UNITS:
        what = f"unknown unit {unit!r}" if unit else "no unit"
        close = difflib.get_close_matches(unit.lower(), _UNITS, n=1)
        advice = f"Did you mean '{_UNITS[close[0]][0]}'?" if close else _EXAMPLES
        raise ValueError(f"{place}: {what}: got {_short(text)}; accepted: {_ACCEPTED}. {advice}")
    _, quantity, factor = _UNITS[unit.lower()]
    # Decimal, so that 28.1M is 28100000 to the last bit and not 28.1 * 1e6.
    limit = float(number)
    if limit and math.isfinite(limit):
        limit = float(Decimal(number) * factor)
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"{place}: not a limit: got {_short(text)}; accepted: a positive finite number. {_EXAMPLES}")
    return Budget(quantity, limit, _canonical(quantity, limit))


def parse_budgets(texts: Iterable[str], place: str = "--budget") -> tuple[Budget, ...]:
    """Reads several budgets, at most one per quantity, and puts them in the order of `QUANTITIES`.

    Raises:
        ValueError: as `parse_budget`, or two limits for one quantity.
    """
    budgets: dict[str, Budget] = {}
    for text in texts:
        budget = parse_budget(text, place)
        if budget.quantity in budgets:
            both = f"{budgets[budget.quantity].text} and {budget.text}"
            raise ValueError(
                f"{place}: two limits on {budget.quantity}: got {both}; accepted: one for each of {', '.join(QUANTITIES)}. "
                "Keep the smaller one."
            )
        budgets[budget.quantity] = budget
    return tuple(budgets[quantity] for quantity in QUANTITIES if quantity in budgets)


def format_quantity(quantity: str, value: float) -> str:
    """Prints a value with three figures and its unit: ``4.48 GMACs``, ``28.1 Mparams``, ``7.93 ms``, ``512 MACs``.

    Args:
        quantity: ``"macs"``, ``"params"``, ``"activations"`` or ``"latency_ms"``.
        value: in MACs, parameters, elements or milliseconds.
    """
    units = _PRINTED[quantity]
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {units[1 if quantity == 'latency_ms' else 0][0]}"
    # Rounded before the prefix is chosen, so that 999.9 million prints as 1.00 G and not as 1000 M.
    rounded = Decimal(f"{value:.2e}")
    unit, factor = _largest_unit(units, abs(rounded))
    figures = f"{float(rounded / factor):#.3g}" if abs(rounded / factor) < 1000 else f"{float(rounded / factor):g}"
    if unit == units[0][0] and quantity != "latency_ms":
        figures = f"{value:g}"  # counts below a thousand are whole
    return f"{figures.rstrip('.')} {unit}"


def _largest_unit(units: tuple[tuple[str, Decimal], ...], value: Decimal) -> tuple[str, Decimal]:
    """The largest unit that leaves at least one before the point, or the smallest unit there is."""
    return next((entry for entry in reversed(units) if value >= entry[1]), units[0])


def _canonical(quantity: str, limit: float) -> str:
    """The exact limit in its handiest unit: no figure is rounded away, since two limits must not share a file name."""
    exact = Decimal(repr(limit))
    unit, factor = _largest_unit(_PRINTED[quantity], exact)
    number = exact / factor
    handy = Decimal("1e-6") <= number < Decimal("1e6")
    return f"{number.normalize():{'f' if handy else 'E'}}".replace("E+", "E") + unit


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
