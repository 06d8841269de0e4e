"""Budgets: what is written is what is meant, and what is not a budget is refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.quantities import QUANTITIES, Budget, Cost, counted, format_quantity, parse_budget, parse_budgets


@pytest.mark.parametrize(
    ("text", "quantity", "limit", "canonical"),
    [
        ("4.5GFLOPs", "macs", 4_500_000_000, "4.5GMACs"),
        ("4.5GMACs", "macs", 4_500_000_000, "4.5GMACs"),
        ("300MMACs", "macs", 300_000_000, "300MMACs"),
        ("1.2e9MACs", "macs", 1_200_000_000, "1.2GMACs"),
        ("2TFLOPs", "macs", 2e12, "2TMACs"),
        ("28Mparams", "params", 28_000_000, "28Mparams"),
        ("28.1Mparams", "params", 28_100_000, "28.1Mparams"),
        ("500kparams", "params", 500_000, "500kparams"),
        ("500Kparam", "params", 500_000, "500kparams"),
        (" 4.5 gflops ", "macs", 4_500_000_000, "4.5GMACs"),
        ("5mactivations", "activations", 5e6, "5Mactivations"),
        ("8ms", "latency_ms", 8, "8ms"),
        ("8MS", "latency_ms", 8, "8ms"),
        ("500us", "latency_ms", 0.5, "500us"),
        ("500µs", "latency_ms", 0.5, "500us"),
        ("0.01s", "latency_ms", 10, "10ms"),
        ("1.5s", "latency_ms", 1500, "1.5s"),
        ("+.5GMACs", "macs", 5e8, "500MMACs"),
        ("120img/s", "image_ms", 1000 / 120, "120ips"),
        ("30 FPS", "image_ms", 1000 / 30, "30ips"),
        ("2GB", "memory_bytes", 2e9, "2GB"),
        ("512mb", "memory_bytes", 512e6, "512MB"),
    ],
)
def test_a_budget_means_what_the_papers_mean(text: str, quantity: str, limit: float, canonical: str) -> None:
    assert parse_budget(text) == Budget(QUANTITIES[quantity], float(limit), canonical)


def test_a_multiply_add_counts_once() -> None:
    assert parse_budget("4.5GFLOPs") == parse_budget("4.5GMACs")


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(st.floats(1e-9, 1e15), st.sampled_from(["MACs", "MMACs", "GFLOPs", "kparams", "ms", "us", "s", "img/s", "MB"]))
def test_canonical_text_reads_back_as_the_same_budget(number: float, unit: str) -> None:
    budget = parse_budget(f"{number!r}{unit}")
    again = parse_budget(budget.text)
    assert (again.limit, again.text, again.quantity.name) == (budget.limit, budget.text, budget.quantity.name)
    assert not set(budget.text) & set(" /\\+:*")  # it becomes part of a file name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4.5GFLAPs", "Did you mean '4.5GFLOPs'?"),
        ("28Mparms", "Did you mean '28Mparams'?"),
        ("28M", "Did you mean '28MMACs' or '28Mparams'?"),
        ("8msec", "unknown unit 'msec'"),
        ("4.5G", "unknown unit 'G'"),
        ("4.5", "no unit"),
        ("", "not a number with a unit"),
        ("GFLOPs", "not a number with a unit"),
        ("4,5GFLOPs", "not a number with a unit"),
        ("1_000MACs", "not a number with a unit"),
        ("٣GMACs", "not a number with a unit"),
        ("4.5GFLOPs/s", "unknown unit 'GFLOPs/s'"),
        ("0GMACs", "positive finite"),
        ("-0.0ms", "positive finite"),
        ("-4.5GFLOPs", "positive finite"),
        ("nanGFLOPs", "positive finite"),
        ("infMACs", "positive finite"),
        ("-infinity ms", "positive finite"),
        ("1e400MACs", "positive finite"),
        ("1e306TMACs", "positive finite"),
        ("1e-400MACs", "positive finite"),
        ("1e99999999999999999999ms", "positive finite"),
        ("4.5\nGPUs", "unknown unit"),
    ],
)
def test_what_is_no_budget_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_budget(text, "--budget")
    message = str(raised.value)
    assert message.startswith("--budget: ") and says in message and "accepted" in message and len(message.splitlines()) == 1


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(st.text(max_size=20))
def test_any_text_is_a_budget_or_a_one_line_error(text: str) -> None:
    try:
        assert parse_budget(text).limit > 0
    except ValueError as error:
        assert len(str(error).splitlines()) == 1


def test_budgets_come_in_one_order_and_once_per_quantity() -> None:
    budgets = parse_budgets(["8ms", "28Mparams", "4.5GFLOPs"])
    assert [budget.text for budget in budgets] == ["4.5GMACs", "28Mparams", "8ms"]
    assert parse_budgets([]) == ()
    assert parse_budgets(["4.5GFLOPs", "4.5GMACs"]) == parse_budgets(["4500MMACs"]), "the same limit twice is one limit"
    with pytest.raises(ValueError, match=r"two limits on multiply-adds: got 4\.5GMACs and 300MMACs"):
        parse_budgets(["4.5GFLOPs", "8ms", "300MMACs"])


def test_exact_quantities_are_the_fields_of_a_cost() -> None:
    assert [name for name, quantity in QUANTITIES.items() if not quantity.measured] == list(Cost._fields)
    assert all(dict(each.scale)[each.unit] == 1 for each in QUANTITIES.values() if not each.rate)
    assert all(each.name == name for name, each in QUANTITIES.items())


def test_another_quantity_is_one_more_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUANTITIES, "energy", counted("energy", "J", "Joules.", "joules", measured=True))
    budgets = parse_budgets(["12MJ", "8ms"])
    assert [(budget.text, budget.quantity.measured) for budget in budgets] == [("8ms", True), ("12MJ", True)]
    assert parse_budget("3kjoules").limit == 3000
    assert format_quantity("energy", 12_345_678) == "12.3 MJ" and format_quantity("energy", 12) == "12 J"


def test_violation_is_the_share_over_the_limit() -> None:
    budget = parse_budget("200MMACs")
    assert [budget.violation(value) for value in (100e6, 200e6, 300e6)] == [-0.5, 0.0, 0.5]


@pytest.mark.parametrize(
    ("quantity", "value", "printed"),
    [
        ("macs", 4_480_000_000, "4.48 GMACs"),
        ("macs", 300_000_000, "300 MMACs"),
        ("macs", 999_900_000, "1.00 GMACs"),
        ("macs", 512, "512 MACs"),
        ("macs", 0, "0 MACs"),
        ("params", 28_123_456, "28.1 Mparams"),
        ("activations", 5_118_000, "5.12 Mactivations"),
        ("latency_ms", 7.934, "7.93 ms"),
        ("latency_ms", 0.25, "250 us"),
        ("latency_ms", 1500, "1.50 s"),
        ("latency_ms", 1e6, "1000 s"),
        ("latency_ms", float("nan"), "nan ms"),
    ],
)
def test_quantities_print_with_three_figures(quantity: str, value: float, printed: str) -> None:
    assert format_quantity(quantity, value) == printed
