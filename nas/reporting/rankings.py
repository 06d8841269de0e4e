"""How well scores rank networks: the table and the picture of a fidelity file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from nas.networks.mixers import mixer_names
from nas.progress import duration
from nas.searching.fidelity import RANKED, SCORES, mixer_shares, ranked

Entries = Mapping[str, Any]
TITLES = {"fine_tuned": "fine-tuned", "ninth": "a ninth of the schedule", "macs": "MACs", "params": "parameters"}
# By figure: its title, what its values are multiplied with, and how they are printed.
COLUMNS = {
    "tau": ("tau", 1, "+.2f"),
    "sparse_tau": ("sparse tau", 1, "+.2f"),
    "rho": ("rho", 1, "+.2f"),
    "regret_5": ("regret of 5, points", 100, ".2f"),
    "precision_5": ("precision at 5, %", 100, ".0f"),
}
PANELS = ("supernet", "fine_tuned", "ninth")


def title(name: str) -> str:
    """Of a score, for people."""
    return TITLES.get(name, name.replace("_", " "))


def as_table(found: Entries) -> Iterator[str]:
    """The lines that say what a fidelity file holds; figures with the interval of 95% behind them."""
    truth, figures = found["truth"], found["figures"]
    spread = f"mean {truth['mean']:.2%}, from {truth['min']:.2%} to {truth['max']:.2%}, standard deviation {100 * truth['std']:.2f} points"
    yield f"{len(ranked(found))} networks trained alone: {spread}"
    yield ""
    yield "".join([f"{'score':25}{'mean':>7}  ", *(f"{head:21}" for head, _, _ in COLUMNS.values())]).rstrip()
    names = [name for name in SCORES if name in figures]
    for name in names:
        mean = f"{found['means'][name]:.2%}" if name in found["means"] else ""
        cells = (_with_interval(figures[name][figure], factor, form) for figure, (_, factor, form) in COLUMNS.items())
        yield "".join([f"{title(name):25}{mean:>7}  ", *(f"{cell:21}" for cell in cells)]).rstrip()
    yield from _again(found)
    yield ""
    yield "".join([f"{'tau above that of':34}", *(f"{title(one):29}" for one in RANKED)]).rstrip()
    for other in names:
        cells = (_verdict(figures[f"{one} - {other}"]["tau"]) if one != other else "" for one in RANKED)
        yield "".join([f"{title(other):34}", *(f"{cell:29}" for cell in cells)]).rstrip()
    yield ""
    yield "".join([f"{'overrated by, in ranks of 0 to 1':34}", *(f"{title(one):29}" for one in RANKED)]).rstrip()
    for mixer in found["bias"][RANKED[0]]:
        yield "".join([f"{mixer:34}", *(f"{found['bias'][one][mixer]:<+29.3f}" for one in RANKED)]).rstrip()
    yield ""
    if missing := [title(name) for name in SCORES if name not in figures]:
        yield f"Not known of every network, and left out: {', '.join(missing)}."
    for each in found["networks"]:
        if "failure" in each:
            yield f"Left out: network {each['key']}: {each['failure']}."
    parts = (f"{what} {duration(seconds)}" for what, seconds in found["seconds"].items() if seconds is not None)
    yield f"Time: {', '.join(parts)}."


def _again(found: Entries) -> Iterator[str]:
    """The line of the ceiling."""
    if found["ceiling"] is None:
        yield "No ceiling is known (what one seed's accuracies say of another's): --seeds 2 gives it, with ten networks or more."
        return
    cells = (_with_interval(found["ceiling"][figure], factor, form) for figure, (_, factor, form) in COLUMNS.items())
    yield "".join([f"{'ceiling: another seed':34}", *(f"{cell:21}" for cell in cells)]).rstrip()


def _with_interval(estimate: list[float | None], factor: float, form: str) -> str:
    """``+0.52 [+0.30, +0.70]``."""
    value, low, high = ("-" if each is None else format(factor * each, form) for each in estimate)
    return f"{value} [{low}, {high}]"


def _verdict(difference: list[float | None]) -> str:
    """A difference, and whether the interval leaves a doubt."""
    _, low, high = difference
    doubt = low is None or high is None or low <= 0 <= high
    word = "undecided" if doubt or low is None else "above" if low > 0 else "below"
    return f"{_with_interval(difference, 1, '+.2f')} {word}"


def draw(found: Entries) -> bytes:
    """A PNG file: the accuracies of networks trained alone against three scores, and which mixers the supernet overrates."""
    import matplotlib

    matplotlib.use("Agg")  # without a display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9.5), layout="constrained")
    panels = figure.subplots(2, 2)
    networks = ranked(found)
    mixers = [_most(each) for each in networks]
    shown = [name for name in mixer_names() if name in mixers]
    colours = {name: matplotlib.colormaps["tab10"](place % 10) for place, name in enumerate(mixer_names())}
    for panel, name in zip(panels.flat, PANELS, strict=False):
        panel.set_title(title(name))
        panel.set_ylabel("accuracy alone, %")
        panel.grid(alpha=0.25)
        if name not in found["figures"]:
            panel.text(0.5, 0.5, "not known of every network", ha="center", transform=panel.transAxes)
            continue
        tau = _with_interval(found["figures"][name]["tau"], 1, "+.2f")
        panel.set_title(f"{title(name)}: tau {tau}")
        panel.set_xlabel(f"{title(name)}, %")
        for mixer in shown:
            points = [(100 * each[name], 100 * each["truth"]) for each, its in zip(networks, mixers, strict=True) if its == mixer]
            panel.scatter(*zip(*points, strict=True), color=colours[mixer], label=mixer, s=36, edgecolors="white", linewidths=0.6)
    _bars(panels[1, 1], found["bias"])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), title="mixer of most blocks", frameon=False)
    settings = found["settings"]
    figure.suptitle(
        f"{settings['space']} on {settings['data']}, {' and '.join(settings['budgets'])} ± 10%: {len(networks)} networks, "
        f"each alone for {settings['epochs']:g} epochs"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _bars(panel: Any, bias: Mapping[str, Mapping[str, float]]) -> None:
    """How far each mixer is overrated, two bars for each."""
    mixers = list(bias[RANKED[0]])
    height = 0.8 / len(RANKED)
    for place, one in enumerate(RANKED):
        at = [row + (place - (len(RANKED) - 1) / 2) * height for row in range(len(mixers))]
        panel.barh(at, [bias[one][mixer] for mixer in mixers], height, label=title(one), color=("0.35", "0.7")[place])
    panel.set_yticks(range(len(mixers)), mixers)
    panel.invert_yaxis()
    panel.axvline(0, color="black", linewidth=0.8)
    panel.grid(axis="x", alpha=0.25)
    panel.set_title("overrated mixers")
    panel.set_xlabel("rank by score less rank by accuracy, 0 to 1")
    panel.legend(frameon=False)


def _most(network: Entries) -> str:
    """The mixer of most blocks; of several the first in the list of mixers."""
    shares = mixer_shares(network["architecture"])
    return max(mixer_names(), key=lambda name: shares.get(name, 0.0))
