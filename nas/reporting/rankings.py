"""How well scores rank networks: the table and the picture of a fidelity file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nas.networks.mixers import mixer_names
from nas.pareto import LEAST
from nas.progress import duration
from nas.reporting.drawings import CHOSEN, INK, Form, color, save
from nas.reporting.figures import plain
from nas.searching.fidelity import ACCURACIES, BY_DEPTH, COMPARED, RANKED, SCORES, mixer_shares, ranked
from nas.searching.trained_alone import AGAIN

Entries = Mapping[str, Any]
TITLES = {"fine_tuned": "fine-tuned", "both": "supernet and a ninth", "macs": "MACs", "params": "parameters"}
TITLES |= {name: f"{TITLES.get(one, one)}, by depth" for one, name in BY_DEPTH.items()}
TITLES |= {"ninth": "a ninth of the schedule", "quarter": "a quarter of it", "third": "a third of it", "half": "half of it"}
# By figure: its title, what its values are multiplied with, and how they are printed.
COLUMNS = {
    "tau": ("tau", 1, "+.2f"),
    "sparse_tau": ("sparse tau", 1, "+.2f"),
    "rho": ("rho", 1, "+.2f"),
    "regret_5": ("regret of 5, points", 100, ".2f"),
    "precision_5": ("precision at 5, %", 100, ".0f"),
}


def title(name: str) -> str:
    """Of a score, for people."""
    return TITLES.get(name, name.replace("_", " "))


def as_table(found: Entries) -> Iterator[str]:
    """The lines that say what a fidelity file holds; behind each figure the interval of 95%."""
    truth, figures, bias = found["truth"], found["figures"], found["bias"]
    spread = f"mean {truth['mean']:.2%}, from {truth['min']:.2%} to {truth['max']:.2%}, standard deviation {100 * truth['std']:.2f} points"
    yield f"{len(ranked(found))} networks trained alone: {spread}"
    yield ""
    names = [name for name in (*RANKED, *BY_DEPTH.values(), *SCORES[len(RANKED) :]) if name in figures]
    yield _row("score", [*(head for head, _, _ in COLUMNS.values()), "mean"], 22)
    for name in names:
        yield _row(title(name), [*_cells(figures[name]), f"{found['means'][name]:.2%}" if name in found["means"] else ""], 22)
    if found["agreement"]:
        yield _row("agreement of two seeds", _cells(found["agreement"]), 22)
        if "ceiling" in found:
            yield f"A score without error would have a tau of some {found['ceiling']:.2f}: the rest is the noise of the trainings."
    else:
        yield f"Not known is how well two seeds agree, and so the tau of a score without error: --seeds 2 tells both, of {LEAST} networks or more."
    yield ""
    compared = [one for one in COMPARED if one in figures]  # an earlier version wrote fewer
    yield _row("tau above that of", [title(one) for one in compared], 34)
    for other in names:
        yield _row(title(other), [_verdict(figures[f"{one} - {other}"]["tau"]) if one != other else "" for one in compared], 34)
    yield ""
    yield _row("overrated, in ranks of 0 to 1", [title(one) for one in RANKED], 34)
    for group in bias[RANKED[0]]:
        yield _row(group, [f"{bias[one][group]:+.3f}" for one in RANKED], 34)
    yield ""
    if missing := [title(name) for name in SCORES if name not in figures]:
        yield f"Not known of every network, and left out: {', '.join(missing)}."
    for each in found["networks"]:
        if "failure" in each:
            yield f"Left out: network {each['key']}: {each['failure']}."
        for seed in each.get("second_tries", ()):
            yield f"Network {each['key']}, seed {seed}: {AGAIN}."
    yield f"Time: {', '.join(f'{what} {duration(seconds)}' for what, seconds in found['seconds'].items() if seconds is not None)}."


def _row(head: str, cells: Iterable[str], width: int) -> str:
    return "".join([f"{head:31}", *(f"{cell:{width}}" for cell in cells)]).rstrip()


def _cells(figures: Mapping[str, list[float | None]]) -> list[str]:
    return [_with_interval(figures[figure], factor, form) for figure, (_, factor, form) in COLUMNS.items()]


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


def picture(found: Entries) -> Any:
    """A matplotlib figure: the accuracies of networks trained alone against three scores, and which mixers and depths the supernet overrates."""
    from matplotlib.figure import Figure  # not pyplot, which may look for a display

    figure = Figure(figsize=(8.5, 8), dpi=110, layout="constrained")
    panels = figure.subplots(2, 2)
    networks = ranked(found)
    mixers = [_most(each) for each in networks]
    for panel, name in zip(panels.flat, ACCURACIES[:3], strict=False):
        panel.set_ylabel("accuracy alone, %")
        panel.set_axisbelow(True)
        panel.grid(alpha=0.25)
        if name in found["figures"]:
            panel.set_title(f"{title(name)}: tau {_with_interval(found['figures'][name]['tau'], 1, '+.2f')}")
            panel.set_xlabel(f"{title(name)}, %")
            for mixer in (name for name in mixer_names() if name in mixers):
                points = [(100 * each[name], 100 * each["truth"]) for each, its in zip(networks, mixers, strict=True) if its == mixer]
                panel.scatter(*zip(*points, strict=True), color=color(mixer), label=mixer, s=36, edgecolors=INK, linewidths=0.6, gid=mixer)
        else:
            panel.set_title(title(name))
            panel.text(0.5, 0.5, "not known of every network", ha="center", color=INK, transform=panel.transAxes)
        plain(panel)
    _bars(panels[1, 1], found["bias"])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    named = figure.legend(handles, labels, loc="outside lower center", ncols=5, title="mixer of most blocks", frameon=False, labelcolor=INK)
    named.get_title().set_color(INK)
    settings = found["settings"]
    figure.suptitle(
        f"{settings['space']} on {settings['data']}, {' and '.join(settings['budgets'])} ± 10%: {len(networks)} networks, "
        f"each alone for {settings['epochs']:g} epochs\nbehind each tau its interval of 95%",
        color=INK,
        fontsize=10,
    )
    return figure


def draw(found: Entries, form: Form = "png") -> bytes:
    """The picture as a file's content."""
    return save(picture(found), form)


def _bars(panel: Any, bias: Mapping[str, Mapping[str, float]]) -> None:
    """How far each mixer, and each third by number of blocks, is overrated; two bars for each."""
    groups = list(bias[RANKED[0]])
    height = 0.8 / len(RANKED)
    for place, one in enumerate(RANKED):
        at = [row + (place - (len(RANKED) - 1) / 2) * height for row in range(len(groups))]
        panel.barh(at, [bias[one][group] for group in groups], height, label=title(one), color=(CHOSEN, INK)[place])
    panel.set_yticks(range(len(groups)), groups)
    panel.invert_yaxis()
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.grid(axis="x", alpha=0.25)
    panel.set_title("underrated (-), overrated (+)", pad=24)
    panel.set_xlabel("rank by score less rank alone, ranks from 0 to 1")
    panel.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(RANKED), frameon=False, labelcolor=INK, fontsize=8
    )  # above the bars, wherever these go
    plain(panel)


def _most(network: Entries) -> str:
    """The mixer of most blocks; of several the first in the list of mixers."""
    shares = mixer_shares(network["architecture"])
    return max(mixer_names(), key=lambda name: shares.get(name, 0.0))
