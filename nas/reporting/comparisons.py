"""What a comparison says: its table, one sentence and a picture, from the entries of comparison.json alone."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nas.quantities import format_quantity
from nas.reporting import drawings
from nas.reporting.drawings import INK, save
from nas.reporting.figures import plain
from nas.searching.comparison import ASKED, PATTERN, PRESET, RANDOM, WINNER, Lead, Standing, standings
from nas.searching.trained_alone import AGAIN

COLORS = {
    WINNER: drawings.WINNER,
    ASKED: drawings.ASKED,
    PATTERN: drawings.BY_HAND,
    PRESET: drawings.PUBLISHED,
    RANDOM: drawings.RANDOM,
}
CALLED = {
    WINNER: "the search's winner",
    ASKED: "asked for",
    PATTERN: "drawn by hand",
    PRESET: "published",
    RANDOM: "random, of the same budget",
}


def table(networks: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> list[str]:
    """The lines of the table, then a line for each failure and each second try; the best mean first."""
    head = ["network", "MACs", "params", "latency", "test accuracy %", *(f"seed {seed}" for seed in seeds), "winner's lead, points"]
    rows = [head, *(_row(each) for each in standings(networks))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in rows
    ]
    return [*lines, *(note for each in standings(networks) for note in _notes(each, seeds))]


def _row(row: Standing) -> list[str]:
    costs = [format_quantity(name, row.entry[name]) for name in ("macs", "params")]
    latency = "does not fit" if row.entry["latency_ms"] is None else format_quantity("latency_ms", row.entry["latency_ms"])
    each = ["failed" if accuracy is None else f"{100 * accuracy:.2f}" for accuracy in row.entry["accuracies"]]
    lead = "" if row.lead is None else f"{100 * row.lead.value:+.2f}{_more_or_less(row.lead.error)}"
    accuracy = "none" if row.mean is None else f"{100 * row.mean:.2f}{_more_or_less(row.deviation)}"
    return [row.label, *costs, latency, accuracy, *each, lead]


def _more_or_less(share: float | None) -> str:
    return "" if share is None else f" +- {100 * share:.2f}"


def _notes(row: Standing, seeds: Sequence[int]) -> list[str]:
    """What went wrong with a network."""
    tried = list(zip(seeds, row.entry["failures"], row.entry["second_tries"], strict=True))
    failed = [f"{row.label}, seed {seed}: no accuracy: {failure}." for seed, failure, _ in tried if failure]
    again = [f"{row.label}, seed {seed}: {AGAIN}." for seed, no, twice in tried if twice and not no]
    unfit = [f"{row.label}: latency: {row.entry['latency_failure']}."] if row.entry["latency_failure"] else []
    return [*failed, *again, *unfit]


def sentence(networks: Sequence[Mapping[str, Any]]) -> str:
    """Whether the winner is above every network drawn by hand, by how much over the best of them, and whether that is more than noise."""
    rows = standings(networks)
    winner = next(row for row in rows if row.is_a(WINNER))
    if winner.mean is None:
        return "The winner has no accuracy: whether it is above the networks drawn by hand is not known."
    by_hand = [row for row in rows if _by_hand(row) and row is not winner]
    itself = f"The winner is a network drawn by hand itself ({winner.label}). " if _by_hand(winner) else ""
    if not (known := [(row.lead, row) for row in by_hand if row.lead is not None]):
        return f"{itself}No other network drawn by hand has an accuracy to hold the winner against."
    missing = f" that have an accuracy ({len(known)} of {len(by_hand)})" if len(known) < len(by_hand) else ""
    lead, best = min(known, key=lambda pair: pair[0].value)
    others = "every other network" if itself else "every network"
    points = f"{100 * abs(lead.value):.2f} points"
    if lead.value > 0:
        said = f"The winner is above {others} drawn by hand{missing}: by {points} over the best of them, {best.label}"
    elif lead.value < 0:
        said = f"The winner is not above {others} drawn by hand{missing}: the best of them, {best.label}, is {points} above it"
    else:
        said = f"The winner is not above {others} drawn by hand{missing}: the best of them, {best.label}, is as good"
    return f"{itself}{said}; {_noise(lead)}."


def _by_hand(row: Standing) -> bool:
    """Published networks are drawn by hand too, by others."""
    return row.is_a(PATTERN) or row.is_a(PRESET)


def _noise(lead: Lead) -> str:
    if lead.interval is None:
        return f"how much of this is noise is not told by {lead.num_seeds} seed{'s' * (lead.num_seeds > 1)}: give more --seeds"
    low, high = lead.interval
    exceeds = "more than" if low > 0 or high < 0 else "no more than"
    return f"this is {exceeds} the noise of {lead.num_seeds} seeds (95% interval of the lead: {100 * low:+.2f} to {100 * high:+.2f} points)"


def picture(networks: Sequence[Mapping[str, Any]], title: str) -> Any:
    """A matplotlib figure: a line for each network, the best above, with a dot for each seed and a bar at their mean."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = standings(networks)
    labels = ["\n".join(textwrap.wrap(f"{row.label} ({format_quantity('macs', row.entry['macs'])})", 42)) for row in rows]
    lines = sum(1 + 0.5 * label.count("\n") for label in labels)
    figure = Figure(figsize=(9, 1.9 + 0.36 * lines), dpi=150, layout="constrained")
    axes = plain(figure.add_subplot())
    kinds = [next(kind for kind in COLORS if row.is_a(kind)) for row in rows]
    for y, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        there = [100 * each for each in row.entry["accuracies"] if each is not None]
        if kind == WINNER:
            axes.axhspan(y - 0.45, y + 0.45, color=COLORS[WINNER], alpha=0.1, lw=0)
        axes.plot(there, [y] * len(there), "o", color=COLORS[kind], ms=5, mec="none", gid="seeds")
        if row.mean is None:
            axes.text(0.5, y, "no accuracy", transform=axes.get_yaxis_transform(), ha="center", va="center", color=INK)
        else:
            axes.plot([100 * row.mean], [y], "|", color=COLORS[kind], ms=17, mew=2.5, gid="mean")
            axes.annotate(f"{row.mean:.2%}", (1.01, y), xycoords=axes.get_yaxis_transform(), va="center", color=INK)
    axes.set_yticks(range(len(rows)), labels)
    for label, kind in zip(axes.get_yticklabels(), kinds, strict=True):
        label.set_fontweight("bold" if kind == WINNER else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.05)
    axes.grid(axis="x", alpha=0.3)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("test accuracy, %: a dot for each seed, a bar at the mean")
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    shown = [Line2D([], [], marker="o", ls="", color=COLORS[kind], label=CALLED[kind]) for kind in COLORS if kind in kinds]
    figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), frameon=False, fontsize=9, labelcolor=INK)
    return figure


def png(networks: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """The picture as a file's content."""
    return save(picture(networks, title), "png")
