"""Pictures of a search: what it looked at, its ladder, which mixers it found where, what mattered, and how its supernet learnt.

Every function gives a matplotlib figure on a transparent background, in colours that can be read on white and on black (`drawings.INK`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.networks.architecture import Architecture
from nas.networks.mixers import mixer_names
from nas.quantities import QUANTITIES, format_quantity
from nas.reporting.drawings import INK, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas.searching.story import Climber, Search

WINNER, BY_HAND, CHOSEN = "#D55E00", "#009E73", "#0072B2"  # the winner; networks drawn by hand; other finalists
BEST = 0.1  # share of the evaluated networks that count as the best
POINTS = 200  # of a curve of losses, at most twice as many
NEAR = 0.95  # of the least that a winner uses: cheaper networks are left out of the picture of the front


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, plain(figure.add_subplot())


def plain(axes: Axes) -> Axes:
    """The same axes in ink, without a frame."""
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)
        text.set_fontsize(9)
    return axes


def _legend(figure: Figure, handles: Sequence[Any] | None = None, columns: int = 5) -> None:
    """Below the plot, where no point can lie."""
    shown = {} if handles is None else {"handles": handles}
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8, labelcolor=INK, **shown)


def front(search: Search, quantity: str) -> Figure:
    """Accuracy with the supernet's weights against a cost: all that was evaluated, the front, the budget and its band, the finalists."""
    figure, axes = _figure(7, 4.6)
    values = [(each.known(quantity), each.accuracy) for each in search.candidates]
    seen = sorted((known.value, 100 * accuracy) for known, accuracy in values if known and accuracy is not None)
    if seen:
        costs, accuracies = zip(*seen, strict=True)
        hows = dict.fromkeys(known.how for known, accuracy in values if known and accuracy is not None)
        how = " or ".join("evaluated" if each == "counted" else each for each in hows)  # what cannot win may be neither
        axes.plot(costs, accuracies, "o", ms=4, mec="none", color=INK, alpha=0.5, label=f"{len(seen)} networks {how}", gid="evaluated")
        axes.step(costs, np.maximum.accumulate(accuracies), where="post", color=INK, lw=1.0, label="front", gid="front")
    names: list[tuple[float, float, str]] = []
    ladder = [(search.known(each.architecture, quantity), each) for each in search.ladder]
    for kind, tint, marker in (("finalists", CHOSEN, "s"), ("drawn by hand", BY_HAND, "^"), ("winner", WINNER, "*")):
        points = [
            (known.value, 100 * each.supernet, each.origin)
            for known, each in ladder
            if known and each.supernet is not None and _kind(each, search) == kind
        ]
        if points:
            xs, ys, _ = zip(*points, strict=True)
            axes.plot(xs, ys, marker, ms=13 if kind == "winner" else 6, color=tint, mec="#FFFFFF", mew=0.6, ls="", label=kind, gid=kind)
            names += points if kind == "drawn by hand" else []
    _limits(axes, search, quantity)
    _beside(axes, names, axes.get_xlim()[1])
    axes.set_xlabel(QUANTITIES[quantity].called)
    axes.xaxis.set_major_formatter(lambda value, _: format_quantity(quantity, value) if value > 0 else "")
    axes.locator_params(axis="x", nbins=6)
    axes.set_ylabel("accuracy with the supernet's weights, %")
    _legend(figure)
    return figure


def _limits(axes: Axes, search: Search, quantity: str) -> None:
    """The budget as a line, what is over it shaded, and the band in which a winner lies; networks much cheaper than that are left out."""
    for budget in search.budgets:
        if budget.quantity.name == quantity:
            axes.margins(x=0.08)
            right = max(axes.get_xlim()[1], 1.05 * budget.limit)
            axes.axvspan(budget.limit, right, color=INK, alpha=0.18, lw=0, gid="over budget")
            axes.axvline(budget.limit, color=INK, lw=1.0)
            if len(search.budgets) == 1:  # of several budgets it is the tightest that a winner uses
                axes.axvline(search.floor * budget.limit, color=INK, lw=0.8, ls=":")
            axes.annotate(
                f"budget {budget.text}", (budget.limit, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                fontsize=8, color=INK, ha="center",
            )  # fmt: skip
            shown = [each.architecture for each in search.in_band] + [each.architecture for each in search.ladder]
            near = [known.value for each in shown if (known := search.known(each, quantity))]
            axes.set_xlim(left=max(axes.get_xlim()[0], NEAR * min([search.floor * budget.limit, *near])), right=right)


def within(search: Search) -> str:
    """Which networks `Search.in_band` has, in words that follow "the best"."""
    return "that use the budget" if search.least else "within the budget" if search.budgets else "of all"


def _kind(climber: Climber, search: Search) -> str:
    if search.winner and climber.architecture.key == search.winner.architecture.key:
        return "winner"
    return "drawn by hand" if climber.by_hand else "finalists"


def ladder(search: Search) -> Figure:
    """The finalists' accuracies on the held-out images while they were trained alone, by the steps of their training."""
    figure, axes = _figure(7, 4.6)
    tints = {"finalists": CHOSEN, "drawn by hand": BY_HAND, "winner": WINNER}
    names: list[tuple[float, float, str]] = []
    for each in reversed(search.ladder):  # the winner's lies above the others
        kind, steps = _kind(each, search), list(each.trained.rungs)
        if each.trained.ended and each.trained.ended.accuracy is not None and len(steps) > 1:
            steps.append((steps[-1][0] + steps[-1][0] - steps[-2][0], each.trained.ended.accuracy))
        if steps:
            xs, ys = zip(*((step, 100 * accuracy) for step, accuracy in steps), strict=True)
            won = kind == "winner"
            axes.plot(xs, ys, "-o", ms=2.5, color=tints[kind], gid=kind, lw=2.2 if won else 1.0, alpha=1.0 if won else 0.7)
            if won or each.by_hand:  # the others are in the table
                said = ["winner"] * won + [each.origin] * each.by_hand
                names.append((xs[-1], ys[-1], ", ".join(said)))
    axes.margins(x=0.16)
    _beside(axes, names)
    axes.set_xlabel("training steps alone")
    axes.set_ylabel("held-out accuracy, %")
    for kind in (kind for kind in tints if kind in {_kind(each, search) for each in search.ladder}):
        axes.plot([], [], "-", color=tints[kind], label=kind)
    _legend(figure)
    return figure


def _beside(axes: Axes, points: Sequence[tuple[float, float, str]], at: float | None = None) -> None:
    """Names to the right of points (or of `at`, for all of them), moved apart where they would lie on each other, with a line to their point."""
    low, high = axes.get_ylim()
    gap, room = 0.012 * (axes.get_xlim()[1] - axes.get_xlim()[0]), 0.038 * (high - low)
    for column in sorted({x if at is None else at for x, *_ in points}):
        these = sorted((y, x, text) for x, y, text in points if at is not None or x == column)
        heights = _apart([y for y, *_ in these], room)
        for (y, x, text), height in zip(these, heights, strict=True):
            line = {"arrowstyle": "-", "color": INK, "lw": 0.5, "shrinkA": 0, "shrinkB": 2}
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


def mixers(search: Search) -> Figure:
    """Which mixers stand where: of all networks looked at, and of the best tenth of them in the band."""
    from matplotlib.patches import Patch

    figure, axes = _figure(7, 4.0)
    groups = mixer_groups(search)
    places = sorted({place for _, shares in groups.values() for place in shares})
    used: set[str] = set()
    for number, (_, shares) in enumerate(groups.values()):
        for x, place in enumerate(places):
            bottom = 0.0
            for mixer in mixer_names():
                if share := 100 * shares.get(place, {}).get(mixer, 0.0):
                    gid, at = f"{('all', 'best')[number]} {place} {mixer}", x + (number - 0.5) * 0.42
                    axes.bar(at, share, 0.38, bottom, color=color(mixer), ec=INK, lw=0.4, gid=gid)
                    used.add(mixer)
                    bottom += share
    axes.set_xticks(range(len(places)), [f"stage {i}\nblock {j}" for i, j in places])
    axes.set_ylabel("% of networks")
    (all_of_them, _), (best, _) = groups.values()
    said = f"left: all {all_of_them} networks looked at; right: the best {best} of them {within(search)}"
    axes.set_title(said, fontsize=8.5, loc="left", color=INK)
    _legend(figure, [Patch(fc=color(mixer), ec=INK, lw=0.4, label=mixer) for mixer in mixer_names() if mixer in used], 4)
    return figure


def mixer_groups(search: Search) -> dict[str, tuple[int, dict[tuple[int, int], dict[str, float]]]]:
    """Of all networks looked at and of the best tenth in the band: how many they are, and by stage and block the share of each mixer."""
    best = search.in_band[: max(1, round(BEST * len(search.in_band)))]
    groups = {"all": search.candidates, "best": best}
    return {name: (len(group), mixer_shares([each.architecture for each in group])) for name, group in groups.items()}


def mixer_shares(networks: Sequence[Architecture]) -> dict[tuple[int, int], dict[str, float]]:
    """By stage and block, which share of the networks has which mixer there."""
    found: dict[tuple[int, int], dict[str, float]] = {}
    for stages in (each.stages for each in networks):
        for i, j, mixer in ((i, j, mixer) for i, stage in enumerate(stages) for j, mixer in enumerate(stage.mixers)):
            there = found.setdefault((i, j), {})
            there[mixer] = there.get(mixer, 0.0) + 1 / len(networks)
    return found


def importance(effects: Mapping[str, float], title: str) -> Figure:
    """What each decision is worth, the most important above; `effects` are numbers by name."""
    shown = sorted(effects.items(), key=lambda each: -each[1])[:14]
    figure, axes = _figure(6, 0.6 + 0.24 * max(1, len(shown)))
    axes.barh(range(len(shown)), [effect for _, effect in shown], color=CHOSEN, height=0.65, gid="importance")
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel(title)
    return figure


def curves(judged: Sequence[Mapping[str, Any]], losses: Sequence[tuple[int, float]]) -> Figure:
    """How a network, or a supernet's smallest, median and largest one, learn: what was judged on the way above, the loss below."""
    from matplotlib.figure import Figure

    num = bool(judged) + bool(losses)
    figure = Figure(figsize=(7, 0.6 + 2.2 * num), dpi=150, layout="constrained")
    panels = [plain(each) for each in figure.subplots(num, 1, sharex=True, squeeze=False)[:, 0]]
    for name, tint in (("smallest", "#56B4E9"), ("median", CHOSEN), ("largest", WINNER), ("accuracy", CHOSEN)):
        points = [(line["step"], 100 * line[name]) for line in judged if name in line]
        if points:
            panels[0].plot(*zip(*points, strict=True), "-o", ms=3, color=tint, label=name, gid=name)
            panels[0].set_ylabel("held-out accuracy, %")
    if losses:
        count = max(1, len(losses) // POINTS)
        parts = [losses[i : i + count] for i in range(0, len(losses) - count + 1, count)]
        steps, means = zip(*((part[-1][0], np.mean([loss for _, loss in part])) for part in parts), strict=True)
        panels[-1].plot(steps, means, color=INK, lw=1.2, gid="loss")
        panels[-1].set_ylabel(f"loss, mean of {count} steps" if count > 1 else "loss")
    panels[-1].set_xlabel("training steps")
    if judged:
        _legend(figure)
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
            axes.set_title(title, fontsize=7.5, color=INK, pad=4)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_color(INK)
    return figure
