"""Pictures of a run: which mixers a search found where, what mattered, how a network learnt, and what it looks at. Each is a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.networks.architecture import Architecture
from nas.networks.mixers import mixer_names
from nas.reporting.drawings import CHOSEN, INK, WINNER, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas.searching.story import Search

BEST = 0.1  # share of the evaluated networks that count as the best
POINTS = 200  # of a curve of losses, at most twice as many
PLACE = 0.5  # inches of a block in the picture of the mixers: what is written below has room


def one_plot(width: float, height: float) -> tuple[Figure, Axes]:
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


def legend(figure: Figure, handles: Sequence[Any] | None = None, columns: int = 5) -> None:
    """Below the plot, where no point can lie, in as many columns as the picture's width has room for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    shown = {} if handles is None else {"handles": handles}
    for fewer in range(columns, 0, -1):
        drawn = figure.legend(loc="outside lower center", ncols=fewer, frameon=False, fontsize=8, labelcolor=INK, **shown)
        if drawn.get_window_extent(renderer).width <= figure.bbox.width or fewer == 1:
            return
        drawn.remove()


def within(search: Search) -> str:
    """Which networks `Search.in_band` has, in words that follow "the best"."""
    return "that use the budget" if search.least else "within the budget" if search.budgets else "of all"


def mixers(search: Search) -> Figure:
    """Which mixers stand where: of all networks looked at, and of the best tenth of them in the band."""
    from matplotlib.patches import Patch

    groups = mixer_groups(search)
    places = sorted({place for _, shares in groups.values() for place in shares})
    figure, axes = one_plot(max(7, PLACE * len(places)), 4.0)
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
    axes.set_xticks(range(len(places)), [f"{j}\nstage {i}" if j == 0 else f"{j}" for i, j in places])
    axes.set_xlabel("block of each stage")
    axes.set_ylabel("% of networks")
    (all_of_them, _), (best, _) = groups.values()
    said = f"left: all {all_of_them} networks looked at; right: the best {best} of them {within(search)}"
    axes.set_title(said, fontsize=8.5, loc="left", color=INK)
    legend(figure, [Patch(fc=color(mixer), ec=INK, lw=0.4, label=mixer) for mixer in mixer_names() if mixer in used], 4)
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
    figure, axes = one_plot(6, 0.6 + 0.24 * max(1, len(shown)))
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
        count, means = mean_losses(losses)
        panels[-1].plot(*zip(*means, strict=True), color=INK, lw=1.2, gid="loss")
        panels[-1].set_ylabel(f"loss, mean of {count} steps" if count > 1 else "loss")
    panels[-1].set_xlabel("training steps")
    if judged:
        legend(figure)
    return figure


def mean_losses(losses: Sequence[tuple[int, float]]) -> tuple[int, list[tuple[int, float]]]:
    """Over how many steps losses are averaged, for a curve that can be read, and the last step and the mean of each so many."""
    count = max(1, len(losses) // POINTS)
    parts = [losses[i : i + count] for i in range(0, len(losses) - count + 1, count)]
    return count, [(part[-1][0], float(np.mean([loss for _, loss in part]))) for part in parts]


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


class Reach(NamedTuple):
    """How far a stage or a mixer looks: within so many pixels or tokens of the middle token half, or most, of what moves it lies."""

    place: str
    what: str
    unit: str
    half: float
    most: float  # nine tenths


def reach(field: NDArray[np.float64], side: int, share: float) -> float:
    """Within how many of a map's cells of the middle of `side` x `side` tokens' middle token so much of it lies, signs left aside."""
    rows, columns = np.indices(field.shape) + 0.5
    away = np.hypot(*(at - (side // 2 + 0.5) * size / side for at, size in zip((rows, columns), field.shape, strict=True))).ravel()
    order = np.argsort(away)
    grown = np.cumsum(np.abs(field).ravel()[order])
    return float(away[order][np.searchsorted(grown, share * grown[-1] * (1 - 1e-12))])


def reaches(
    fields: Sequence[NDArray[np.float64]], mixing: Sequence[Sequence[NDArray[np.float64]]], architecture: Architecture
) -> list[Reach]:
    """The numbers of the picture `looking`."""
    found = []
    for i, (field, maps, stage, side) in enumerate(zip(fields, mixing, architecture.stages, architecture.sides, strict=True)):
        found.append(Reach(f"stage {i}", "all of it", "pixels", reach(field, side, 0.5), reach(field, side, 0.9)))
        for j, (mixer, each) in enumerate(zip(stage.mixers, maps, strict=True)):
            if each.any():
                found.append(Reach(f"stage {i}, block {j}", mixer, "tokens", reach(each, side, 0.5), reach(each, side, 0.9)))
    return found
