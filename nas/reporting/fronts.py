"""Pictures of a search's networks: their accuracies against what they cost, and how the finalists climbed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nas.networks.architecture import Architecture
from nas.quantities import QUANTITIES, format_quantity
from nas.reporting.drawings import BY_HAND, CHOSEN, INK, WINNER
from nas.reporting.figures import legend, one_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas.searching.story import Climber, Search

NEAR = 0.95  # of the least that a winner uses: cheaper networks are left out of the picture of the front
KINDS = {
    "finalists": (CHOSEN, "s"),
    "drawn by hand": (BY_HAND, "^"),
    "winner": (WINNER, "*"),
}  # colours and markers; the last lies above the others


def front(search: Search, quantity: str) -> Figure:
    """Accuracy with the supernet's weights against a cost: all that was evaluated, the front, the budget and its band, the finalists."""
    figure, axes = one_plot(7, 4.6)
    values = [(each.known(quantity), each.accuracy) for each in search.candidates]
    seen = sorted((known.value, 100 * accuracy) for known, accuracy in values if known and accuracy is not None)
    if seen:
        costs, accuracies = zip(*seen, strict=True)
        hows = dict.fromkeys(known.how for known, accuracy in values if known and accuracy is not None)
        how = " or ".join("evaluated" if each == "counted" else each for each in hows)  # what cannot win may be neither
        axes.plot(costs, accuracies, "o", ms=4, mec="none", color=INK, alpha=0.5, label=f"{len(seen)} networks {how}", gid="evaluated")
        best = [(known.value, 100 * (each.accuracy or 0.0)) for each in search.front(quantity) if (known := each.known(quantity))]
        steps = [*best, (costs[-1], best[-1][1])]
        axes.step(*zip(*steps, strict=True), where="post", color=INK, lw=1.0, label="front", gid="front")
    names: list[tuple[float, float, str]] = []
    marked = list(_marked(search, quantity))
    for kind, (tint, marker) in KINDS.items():
        points = [point for its, point in marked if its == kind]
        if points:
            xs, ys, _ = zip(*points, strict=True)
            axes.plot(xs, ys, marker, ms=13 if kind == "winner" else 6, color=tint, mec="#FFFFFF", mew=0.6, ls="", label=kind, gid=kind)
            names += points if kind == "drawn by hand" else []
    if search.winner and search.winners_score is None and (cost := search.known(search.winner.architecture, quantity)):
        tint, marker = KINDS["winner"]
        axes.plot(
            [cost.value], [0.0], marker, ms=13, color=tint, mec="#FFFFFF", mew=0.6, ls="", transform=axes.get_xaxis_transform(), clip_on=False,
            label="winner: no supernet accuracy", gid="winner",
        )  # fmt: skip
    _limits(axes, search, quantity)
    _beside(axes, names, axes.get_xlim()[1])
    axes.set_xlabel(QUANTITIES[quantity].called)
    axes.xaxis.set_major_formatter(lambda value, _: format_quantity(quantity, value) if value > 0 else "")
    axes.locator_params(axis="x", nbins=6)
    axes.set_ylabel("accuracy with the supernet's weights, %")
    legend(figure)
    return figure


def _marked(search: Search, quantity: str) -> Iterator[tuple[str, tuple[float, float, str]]]:
    """Of each network that stands out: its kind, and what it costs, its accuracy in percent and its name. Without a ladder those drawn by hand are
    those that the search began with."""
    found: dict[str, tuple[str, Architecture, float | None, str]] = {}
    for each in search.in_band:
        if each.by_hand:
            found[each.architecture.key] = "drawn by hand", each.architecture, each.accuracy, each.origin
    for climber in search.ladder:
        found[climber.architecture.key] = _kind(climber, search), climber.architecture, climber.supernet, climber.origin
    if search.winner:
        architecture = search.winner.architecture
        *_, origin = found.get(architecture.key, ("",))
        found[architecture.key] = "winner", architecture, search.winners_score, origin
    for kind, architecture, accuracy, origin in found.values():
        known = search.known(architecture, quantity)
        if known and accuracy is not None:
            yield kind, (known.value, 100 * accuracy, origin)


def _limits(axes: Axes, search: Search, quantity: str) -> None:
    """The budget as a line, what is over it shaded, and the band in which a winner lies; networks much cheaper than that are left out."""
    for budget in search.budgets:
        if budget.quantity.name == quantity:
            axes.margins(x=0.08)
            right = max(axes.get_xlim()[1], 1.05 * budget.limit)
            axes.axvspan(budget.limit, right, color=INK, alpha=0.18, lw=0, gid="over budget")
            axes.axvline(budget.limit, color=INK, lw=1.0)
            if len(search.budgets) == 1:  # of several budgets it is the tightest that a winner uses
                asked = f"a winner uses {search.floor:.0%} or more"
                axes.axvline(search.floor * budget.limit, color=INK, lw=0.8, ls=":", label=asked, gid="floor")
            axes.annotate(
                f"budget {budget.text}", (budget.limit, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                fontsize=8, color=INK, ha="center",
            )  # fmt: skip
            shown = [each.known(quantity) for each in search.in_band] + [
                search.known(each.architecture, quantity) for each in search.ladder
            ]
            shown += [search.known(search.winner.architecture, quantity)] if search.winner else []
            near = [known.value for known in shown if known]
            axes.set_xlim(left=max(axes.get_xlim()[0], NEAR * min([search.floor * budget.limit, *near])), right=right)


def _kind(climber: Climber, search: Search) -> str:
    if search.winner and climber.architecture.key == search.winner.architecture.key:
        return "winner"
    return "drawn by hand" if climber.by_hand else "finalists"


def ladder(search: Search) -> Figure:
    """The finalists' accuracies on the held-out images while they were trained alone, by the steps of their training."""
    figure, axes = one_plot(7, 4.6)
    names: list[tuple[float, float, str]] = []
    for each in reversed(search.ladder):  # the winner's lies above the others
        kind, steps = _kind(each, search), climbed(each)
        if steps:
            xs, ys = zip(*((step, 100 * accuracy) for step, accuracy in steps), strict=True)
            won = kind == "winner"
            axes.plot(xs, ys, "-o", ms=2.5, color=KINDS[kind][0], gid=kind, lw=2.2 if won else 1.0)
            if won or each.by_hand:  # the others are in the table
                said = ["winner"] * won + [each.origin] * each.by_hand
                names.append((xs[-1], ys[-1], ", ".join(said)))
    axes.margins(x=0.16)
    _beside(axes, names)
    axes.set_xlabel("training steps alone")
    axes.set_ylabel("held-out accuracy, %")
    for kind in (kind for kind in KINDS if kind in {_kind(each, search) for each in search.ladder}):
        axes.plot([], [], "-", color=KINDS[kind][0], label=kind)
    legend(figure)
    return figure


def climbed(each: Climber) -> list[tuple[int, float]]:
    """Its accuracies by steps, that at the end of its training included."""
    steps = list(each.trained.rungs)
    if each.trained.ended and each.trained.ended.accuracy is not None:
        steps.append((each.trained.steps, each.trained.ended.accuracy))
    return steps


def _beside(axes: Axes, points: Sequence[tuple[float, float, str]], at: float | None = None) -> None:
    """Names to the right of points (or of `at`, for all of them), moved apart where they would lie on each other, with a line to their point."""
    low, high = axes.get_ylim()
    gap, room = 0.03 * (axes.get_xlim()[1] - axes.get_xlim()[0]), 0.038 * (high - low)
    for column in sorted({x if at is None else at for x, *_ in points}):
        these = sorted((y, x, text) for x, y, text in points if at is not None or x == column)
        heights = _apart([y for y, *_ in these], room)
        for (y, x, text), height in zip(these, heights, strict=True):
            line = {"arrowstyle": "-", "color": INK, "lw": 0.5, "shrinkA": 1, "shrinkB": 2, "relpos": (0.0, 0.5)}
            axes.annotate(
                text, (x, y), xytext=(column + gap, height), fontsize=7.5, color=INK, va="center", arrowprops=line, annotation_clip=False,
                parse_math=False,
            )  # fmt: skip


def _apart(heights: Sequence[float], room: float) -> list[float]:
    """Ascending heights, moved as little as it takes to lie `room` apart: neighbours that touch share their middle."""
    groups: list[list[float]] = []  # each: first height of the group, how many
    for height in heights:
        groups.append([height, 1])
        while len(groups) > 1 and groups[-1][0] - (groups[-2][0] + room * (groups[-2][1] - 1)) < room:
            (first, count), (then, more) = groups[-2], groups[-1]
            middle = (first + room * (count - 1) / 2) * count + (then + room * (more - 1) / 2) * more
            groups[-2:] = [[middle / (count + more) - room * (count + more - 1) / 2, count + more]]
    return [first + room * k for first, count in groups for k in range(int(count))]
