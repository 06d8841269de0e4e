"""The figures that docs/results.md prints are those of the raw files beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import kendalltau

from nas.networks.architecture import Architecture

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "results.md").read_text(encoding="utf-8")
ALONE: list[dict[str, Any]] = json.loads((DOCS / "results/alone-cifar10-5MMACs.json").read_text())["trainings"]


def rows(columns: str) -> dict[str, list[str]]:
    """Of the table with these heads: its cells by network."""
    lines = iter(TEXT.split(f"| {columns} |\n", 1)[1].splitlines()[1:])
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in iter(lambda: next(lines), ""))
    return {key: others for key, *others in cells}


def percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f}%"


def test_raw_networks_are_what_their_keys_say() -> None:
    assert all(Architecture.from_dict(each["architecture"], "raw").key == each["key"] for each in ALONE)


@pytest.mark.parametrize(
    ("columns", "figures"),
    [
        ("network | from | supernet | 2 epochs alone | 5 epochs | 15 epochs", lambda r: [r["even"], r["rungs"].get("2"), r["rungs"].get("5"), r["accuracy"]]),
        ("network of the truth, 20 epochs alone | accuracy | supernet | supernet with even depths", lambda r: [r["accuracy"], r["plain"], r["even"]]),
    ],
    ids=["ladder", "truth"],
)  # fmt: skip
def test_every_figure_of_a_network_is_printed_as_it_was_measured(columns: str, figures: Any) -> None:
    epochs = int(max(re.findall(r"(\d\d) epochs", columns)))
    raw = {each["key"]: each for each in ALONE if each["epochs"] == epochs}
    printed = rows(columns)
    assert printed
    for key, cells in printed.items():
        assert cells[-len(figures(raw[key])) :] == [percent(each) for each in figures(raw[key])], key


def test_correlations_of_the_ladder_are_those_of_its_networks() -> None:
    columns = "network | from | supernet | 2 epochs alone | 5 epochs | 15 epochs"
    ended = [each for each in ALONE if each["epochs"] == 15 and each["accuracy"] and each["key"] in rows(columns)]
    (said,) = re.findall(
        r"Kendall's tau with their last figures is (\S+) after ten epochs, (\S+) after five, (\S+) after two, (\S+) for", TEXT
    )
    scores = [[each["rungs"][epochs] for each in ended] for epochs in ("10", "5", "2")] + [[each["even"] for each in ended]]
    assert [f"{kendalltau(each, [one['accuracy'] for one in ended]).statistic:.2f}" for each in scores] == list(said)
    assert len(ended) == 10
