"""Pictures of a search: what it looked at, its ladder, which mixers it found where, what mattered, and how its supernet learnt.

Every function gives a matplotlib figure on a transparent background, in colours that can be read on white and on black (`drawings.INK`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.networks.architecture import Architecture
from nas.networks.mixers import mixer_names
from nas.quantities import QUANTITIES, format_quantity
from nas.reporting.drawings import INK, Form, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas.searching.story import Climber, Search

WINNER, BY_HAND, CHOSEN = "#D55E00", "#009E73", "#0072B2"  # the winner; networks drawn by hand; other finalists
BEST = 0.1  # share of the evaluated networks that count as the best
NEAR = 0.95  # of the least that a winner uses: cheaper networks are left out of the picture of the front


def save(figure: Figure, form: Form) -> bytes:
    """A figure as a file's content; the same figure is the same SVG."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "nas"}):
        figure.savefig(buffer, format=form, transparent=True, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, _plain(figure.add_subplot())


def _plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.title.set_color(INK)
    return axes


def front(search: Search) -> Figure:
    """Accuracy with the supernet's weights against the first limited cost: all that was evaluated, the front, the budget and its band, the finalists."""
    name = search.budgets[0].quantity.name if search.budgets and not search.budgets[0].quantity.measured else "macs"
    figure, axes = _figure(8, 4.6)
    seen = [(getattr(each.cost, name), 100 * each.accuracy) for each in search.candidates if each.accuracy is not None]
    costs, accuracies = np.array(seen).T if seen else (np.array([]), np.array([]))
    axes.plot(costs, accuracies, "o", ms=4, mec="none", color=INK, alpha=0.5, label=f"{len(seen)} networks evaluated", gid="evaluated")
    if seen:
        order = np.argsort(costs)
        best = np.maximum.accumulate(accuracies[order])
        axes.step(costs[order], best, where="post", color=INK, lw=1.0, label="front", gid="front")
    _limits(axes, search, name)
    labels: list[tuple[float, float, str, str]] = []
    for kind, tint, marker in (("finalists", CHOSEN, "s"), ("drawn by hand", BY_HAND, "^"), ("winner", WINNER, "*")):
        group = [each for each in search.ladder if each.supernet is not None and _kind(each, search) == kind]
        points = [(_cost(each.architecture, name), 100 * float(each.supernet or 0), each.origin) for each in group]
        if points:
            xs, ys, _ = zip(*points, strict=True)
            axes.plot(xs, ys, marker, ms=13 if kind == "winner" else 6, color=tint, mec="#FFFFFF", mew=0.6, ls="", label=kind, gid=kind)
            if kind == "drawn by hand":
                labels = [(x, y, text, tint) for x, y, text in points]
    _beside(axes, labels, axes.get_xlim()[1])
    axes.set_xlabel(QUANTITIES[name].unit if name != "macs" else "multiply-adds")
    axes.xaxis.set_major_formatter(lambda value, _: format_quantity(name, value) if value > 0 else "")
    axes.set_ylabel("accuracy with the supernet's weights, %")
    axes.legend(loc="lower left", frameon=False, fontsize=7.5, labelcolor=INK)
    return figure


def _limits(axes: Axes, search: Search, name: str) -> None:
    """The budget as a line, what is over it shaded, and the band in which a winner lies."""
    for budget in search.budgets:
        if budget.quantity.name == name:
            axes.margins(x=0.08)
            right = max(axes.get_xlim()[1], 1.05 * budget.limit)
            axes.axvspan(budget.limit, right, color=INK, alpha=0.18, lw=0, gid="over budget")
            axes.axvline(budget.limit, color=INK, lw=1.0)
            axes.axvline(search.floor * budget.limit, color=INK, lw=0.8, ls=":")
            axes.annotate(
                f"budget {budget.text}", (budget.limit, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -9), textcoords="offset points",
                fontsize=7.5, color=INK,
            )  # fmt: skip
            axes.set_xlim(left=max(axes.get_xlim()[0], NEAR * search.floor * budget.limit), right=right)


def _cost(architecture: Architecture, name: str) -> float:
    from nas.cost import cost

    return float(getattr(cost(architecture), name))


def _kind(climber: Climber, search: Search) -> str:
    if search.winner and climber.architecture.key == search.winner.architecture.key:
        return "winner"
    return "drawn by hand" if climber.by_hand else "finalists"


def ladder(search: Search) -> Figure:
    """The finalists' accuracies on the held-out images while they were trained alone, by the share of the whole training."""
    figure, axes = _figure(8, 4.6)
    tints = {"finalists": CHOSEN, "drawn by hand": BY_HAND, "winner": WINNER}
    last: list[tuple[float, float, str, str]] = []
    for each in sorted(search.ladder, key=lambda each: _kind(each, search) == "winner"):
        kind, steps = _kind(each, search), list(each.trained.rungs)
        if each.trained.ended and each.trained.ended.accuracy is not None and len(steps) > 1:
            steps.append((steps[-1][0] + steps[-1][0] - steps[-2][0], each.trained.ended.accuracy))
        if steps:
            xs, ys = zip(*((step, 100 * accuracy) for step, accuracy in steps), strict=True)
            axes.plot(
                xs,
                ys,
                "-",
                marker="o",
                ms=2.5,
                lw=2.2 if kind == "winner" else 1.0,
                color=tints[kind],
                alpha=1.0 if kind == "winner" else 0.6,
                gid=kind,
            )
            name = "winner" if kind == "winner" else each.origin if each.by_hand else each.architecture.key[:6]
            last.append((xs[-1], ys[-1], name, tints[kind]))
    axes.margins(x=0.14)
    _beside(axes, last)
    axes.set_xlabel("training steps alone")
    axes.set_ylabel("held-out accuracy, %")
    for kind, tint in tints.items():
        axes.plot([], [], "-", color=tint, label=kind)
    axes.legend(loc="lower right", frameon=False, fontsize=7.5, labelcolor=INK)
    return figure


def _beside(axes: Axes, points: Sequence[tuple[float, float, str, str]], at: float | None = None) -> None:
    """Names to the right of points (or of `at`, for all of them), moved apart where they would lie on each other, with a line to their point."""
    low, high = axes.get_ylim()
    room = 0.032 * (high - low)
    for column in sorted({x if at is None else at for x, *_ in points}):
        these = sorted((y, x, text, tint) for x, y, text, tint in points if at is not None or x == column)
        heights = _apart([y for y, *_ in these], room)
        for (y, x, text, tint), height in zip(these, heights, strict=True):
            line = {"arrowstyle": "-", "color": tint, "lw": 0.4, "shrinkA": 0, "shrinkB": 2}
            axes.annotate(
                text, (x, y), xytext=(column + 0.012 * (axes.get_xlim()[1] - axes.get_xlim()[0]), height), fontsize=6.5, color=tint, va="center",
                arrowprops=line, annotation_clip=False,
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


def mixers(search: Search) -> Figure:
    """Which mixers stand where: of all networks evaluated, and of the best tenth of them that use the budget."""
    figure, axes = _figure(8, 3.4)
    best = search.in_band[: max(1, round(BEST * len(search.in_band)))]
    groups = {
        f"all {len(search.candidates)}": [each.architecture for each in search.candidates],
        f"best {len(best)}": [each.architecture for each in best],
    }
    places = sorted({place for group in groups.values() for each in group for place in _places(each)})
    used: set[str] = set()
    for number, group in enumerate(groups.values()):
        for x, place in enumerate(places):
            there = [mixer for each in group if (mixer := _places(each).get(place))]
            bottom = 0.0
            for mixer in mixer_names():
                share = there.count(mixer) / max(1, len(group))
                if share:
                    used.add(mixer)
                    axes.bar(
                        x + (number - 0.5) * 0.42,
                        100 * share,
                        0.38,
                        bottom,
                        color=color(mixer),
                        ec=INK,
                        lw=0.4,
                        gid=f"{'best' if number else 'all'} {place} {mixer}",
                    )
                bottom += 100 * share
    axes.set_xticks(range(len(places)), [f"stage {i}\nblock {j}" for i, j in places])
    axes.set_ylabel("% of networks")
    axes.set_title(
        f"left: {next(iter(groups))} networks evaluated; right: the {list(groups)[1]} of them that use the budget",
        fontsize=8,
        loc="left",
        color=INK,
    )
    _mixer_legend(figure, used)
    return figure


def _places(architecture: Architecture) -> dict[tuple[int, int], str]:
    return {(i, j): mixer for i, stage in enumerate(architecture.stages) for j, mixer in enumerate(stage.mixers)}


def _mixer_legend(figure: Figure, used: set[str]) -> None:
    from matplotlib.patches import Patch

    shown = [Patch(fc=color(mixer), ec=INK, lw=0.4, label=mixer) for mixer in mixer_names() if mixer in used]
    figure.legend(handles=shown, loc="outside right upper", frameon=False, fontsize=7.5, labelcolor=INK)


def importance(effects: Mapping[str, float], title: str) -> Figure:
    """What each decision is worth, the most important above; `effects` are numbers by name."""
    shown = sorted(effects.items(), key=lambda each: -each[1])[:14]
    figure, axes = _figure(6, 0.6 + 0.24 * max(1, len(shown)))
    axes.barh(range(len(shown)), [effect for _, effect in shown], color=CHOSEN, height=0.65, gid="importance")
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel(title)
    return figure


def curves(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """How the supernet's smallest, median and largest network learn."""
    figure, axes = _figure(6, 3.4)
    for name, tint in (("smallest", "#56B4E9"), ("median", CHOSEN), ("largest", WINNER)):
        points = [(line["step"], 100 * line[name]) for line in lines if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), "-o", ms=3, color=tint, label=name, gid=name)
    axes.set_xlabel("supernet steps")
    axes.set_ylabel("held-out accuracy, %")
    axes.legend(loc="lower right", frameon=False, fontsize=7.5, labelcolor=INK)
    return figure


def looking(fields: Sequence[NDArray[np.float64]], mixing: Sequence[Sequence[NDArray[np.float64]]], architecture: Architecture) -> Figure:
    """What a network looks at: for each stage the pixels that move its middle token, then for each block what its mixer takes from where."""
    from matplotlib.figure import Figure

    columns = 1 + max(stage.depth for stage in architecture.stages)
    figure = Figure(figsize=(1.15 * min(columns, 12) + 0.4, 1.5 * len(fields) + 0.2), dpi=150, layout="constrained")
    for i, (field, maps, stage) in enumerate(zip(fields, mixing, architecture.stages, strict=True)):
        shown = [
            (f"stage {i}: pixels", np.sqrt(field), "magma", 0.0),
            *((mixer, each, "RdBu_r", -1.0) for mixer, each in zip(stage.mixers, maps, strict=True)),
        ]
        for j, (title, values, tints, low) in enumerate(shown[:12]):
            axes = figure.add_subplot(len(fields), min(columns, 12), i * min(columns, 12) + j + 1)
            axes.imshow(values, cmap=tints, vmin=low, vmax=1.0, interpolation="nearest")
            axes.set_title(title, fontsize=6.5, color=INK, pad=2)
            axes.set_xticks([])
            axes.set_yticks([])
    return figure
