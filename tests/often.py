"""Cases of a law that hold alike for many things: a few are looked at in every run of the tests, the others in the slow ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def often(cases: Iterable[Any], kept: Callable[[Any], bool]) -> list[Any]:
    return [case if kept(case) else pytest.param(case, marks=pytest.mark.slow) for case in cases]


# One published network of each system, the smallest of several.
ONE_OF_EACH = {
    "mixer_s_32",
    "resmlp_s12",
    "spach_conv_ms_xxs",
    "spach_trans_xxs",
    "s2_mlp_deep",
    "s2_mlpv2_small_7",
    "as_mlp_t",
    "vip_small_7",
}
