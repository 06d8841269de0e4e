"""Architectures as pictures: stages from left to right, a block as a box whose colour and letters are its mixer's, its height by the width of the stage."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.cost import cost, stage_costs
from nas.networks.architecture import Architecture, Stage
from nas.networks.mixers import NO_MIXER, mixer_names
from nas.quantities import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/), a brown and a grey; the letters in a box say
# the same. A mixer of one's own gets one of `SPARE`.
COLORS = {
    "conv": "#0072B2", "attention": "#D55E00", "token_mlp": "#009E73", "token_linear": "#56B4E9", "s2_shift": "#E69F00",
    "s2_shift_v2": "#F0E442", "as_shift": "#CC79A7", "permute": "#8C564B", NO_MIXER: "#BBBBBB",
}  # fmt: skip
SPARE = ("#7F7FFF", "#7FBF7F", "#BF7FBF", "#7F7F7F")
LETTERS = {
    "conv": "conv", "attention": "attn", "token_mlp": "mlp", "token_linear": "lin", "s2_shift": "S2", "s2_shift_v2": "S2v2", "as_shift": "AS",
    "permute": "perm", NO_MIXER: "",
}  # fmt: skip
# What a network is, in every picture: the winner; drawn by hand; published; asked for; random; another finalist, or one curve of several.
WINNER, BY_HAND, PUBLISHED, ASKED, RANDOM, CHOSEN = "#D55E00", "#009E73", "#8C564B", "#CC79A7", "#808080", "#0072B2"
# Of what is written and drawn, and of the paper below it. No grey can be read on white and on the dark pages of today, so a picture brings its own
# paper along; a page that knows whether it is dark may put others in their place (`parts.py`).
INK, PAPER = "#595959", "#FCFCFC"
Form = Literal["svg", "png"]
BLOCK, GAP, BETWEEN = 0.5, 0.08, 0.42  # width of a box, and what is between boxes and between stages, in inches
TALLEST, LOWEST = 0.95, 0.22  # of a box
WIDEST = 11.0  # of a picture; deeper networks have narrower boxes
SLOT = 0.9  # room for what is written under a stage
LETTERED = 0.3  # width of a box that has room for letters; narrower ones of one mixer have them together, if they have room
LETTER = 0.08  # width of one
FONTS = ["DejaVu Sans", "Verdana", "Arial"]  # of words in an SVG: the one they were measured in is the widest
ROW, MIDDLE = 2.09, 1.09  # height of one architecture with what is written about it, and of the middle of its boxes in it
MARGIN, LINE, COLUMN = 0.2, 0.17, 1.45  # of the legend: around it, height of its lines, width of an entry
NAME, FIGURES, SMALL = 9.0, 7.5, 7.0  # points of what is written: a network's name, its figures and the letters, what stands under a stage


def color(mixer: str) -> str:
    """Of a mixer, in every picture."""
    if mixer in COLORS:
        return COLORS[mixer]
    others = [name for name in mixer_names() if name not in COLORS]
    return SPARE[others.index(mixer) % len(SPARE)] if mixer in others else SPARE[-1]


def letters(mixer: str) -> str:
    """Its abbreviation, for the inside of a box."""
    return LETTERS.get(mixer, mixer[:4])


def ink_on(fill: str) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = ((int(fill[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#FFFFFF"  # where both contrasts are equal


def save(figure: Figure, form: Form) -> bytes:
    """A figure as a file's content, on its paper; the same figure is the same SVG, and words in it are text."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "nas", "svg.fonttype": "none", "font.sans-serif": FONTS}):
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(buffer, format=form, transparent=True, facecolor=PAPER, metadata=metadata)  # transparent are the plots in it
    return buffer.getvalue()


def draw(networks: Mapping[str, Architecture], form: Form, columns: int = 1) -> bytes:
    """The picture as a file's content."""
    return save(picture(networks, columns), form)


def picture(networks: Mapping[str, Architecture], columns: int = 1) -> Figure:
    """One network or several, row by row and to one scale, each under its name."""
    from matplotlib.figure import Figure

    stages = [stage for each in networks.values() for stage in each.stages]
    widest, scale = max(stage.width for stage in stages), _scale(networks.values(), WIDEST / columns)
    cell = max(5.0 / columns, *(_cell(name, each, scale) for name, each in networks.items()))
    across, legend = columns * cell, _entries(stages)
    in_line = min(5, max(1, int((across - MARGIN) / COLUMN)))
    high = ROW * -(-len(networks) // columns) + 2 * MARGIN + LINE * -(-len(legend) // in_line)
    figure = Figure(figsize=(across, high), dpi=150)
    for place, (name, architecture) in enumerate(networks.items()):
        row, column = divmod(place, columns)
        axes = figure.add_axes((column / columns, 1 - (row + 1) * ROW / high, 1 / columns, ROW / high), gid=f"network {architecture.key}")
        axes.set_xlim(0, cell)
        axes.set_ylim(0, ROW)
        axes.axis("off")
        _draw_one(axes, name, architecture, widest, scale)
    figure.legend(
        handles=legend, loc="lower left", ncols=in_line, frameon=False, fontsize=FIGURES, labelcolor=INK, bbox_to_anchor=(0.0, 0.0),
        columnspacing=1.2, handlelength=1.2,
    )  # fmt: skip
    return figure


def side_by_side(networks: Mapping[str, Architecture]) -> int:
    """How many columns of networks a screen has room for, at full size."""
    cell = max(_cell(name, each, 1.0) for name, each in networks.items())
    return min(len(networks), max(1, int(WIDEST / cell)))


def _cell(name: str, architecture: Architecture, scale: float) -> float:
    """The width of a network with what is written about it."""
    written = 0.4 + max(_width(name, NAME, "bold"), _width(_figures(architecture), FIGURES))
    return max(_length(architecture, scale), written)


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Of a line of words, in inches."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=FONTS[0], size=size, weight=weight)
    dots, _, _ = RendererAgg(1, 1, 720).get_text_width_height_descent(text, font, False)  # many to the inch: whole ones are no error
    return dots / 720


def _scale(networks: Iterable[Architecture], room: float) -> float:
    """Of the boxes' widths, so that all networks have room."""
    scale = 1.0
    while scale > 0.05 and any(_length(each, scale) > room for each in networks):
        scale *= 0.98
    return scale


def _length(architecture: Architecture, scale: float) -> float:
    return 0.35 + sum(_pitch(stage, scale) for stage in architecture.stages)


def _pitch(stage: Stage, scale: float) -> float:
    """From the beginning of a stage to that of the next one."""
    return max(SLOT, scale * stage.depth * (BLOCK + GAP) + BETWEEN * max(scale, 0.6))


def _draw_one(axes: Axes, name: str, architecture: Architecture, widest: int, scale: float) -> None:
    total, parts = cost(architecture), stage_costs(architecture)
    axes.text(0.2, ROW - 0.2, name, color=INK, fontsize=NAME, fontweight="bold", va="center", parse_math=False)
    axes.text(0.2, ROW - 0.38, _figures(architecture), color=INK, fontsize=FIGURES, va="center")
    x = 0.2
    for number, (stage, side) in enumerate(zip(architecture.stages, architecture.sides, strict=True)):
        end = _draw_stage(axes, x, stage, LOWEST + (TALLEST - LOWEST) * stage.width / widest, scale)
        about = [
            f"{side}x{side} tokens",
            f"width {stage.width}",
            f"mlp x{stage.mlp_ratio:g}",
            f"{parts[f'stages.{number}'].macs / total.macs:.0%} of MACs",
        ]
        for line, text in enumerate(about):
            axes.text(x, 0.46 - 0.14 * line, text, color=INK, fontsize=SMALL, va="center")
        x += _pitch(stage, scale)
        if number + 1 < len(architecture.stages):
            arrow = {"arrowstyle": "->", "color": INK, "lw": 1.0, "shrinkA": 2, "shrinkB": 2}
            axes.annotate("", (x, MIDDLE), (end, MIDDLE), arrowprops=arrow)


def _figures(architecture: Architecture) -> str:
    """What stands under its name."""
    total = cost(architecture)
    return f"{format_quantity('macs', total.macs)}, {format_quantity('params', total.params)} at {architecture.frame.resolution} px"


def _draw_stage(axes: Axes, x: float, stage: Stage, height: float, scale: float) -> float:
    """Its boxes from `x` on; where they end."""
    from matplotlib.patches import FancyBboxPatch

    begin, width, step = x, scale * BLOCK, scale * (BLOCK + GAP)
    rounded = f"round,pad=0,rounding_size={min(0.04, width / 4):.3f}"
    for mixer, run in itertools.groupby(stage.mixers):
        count, fill = len(list(run)), color(mixer)
        for left in (x + k * step for k in range(count)):
            corner = left, MIDDLE - height / 2
            axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=rounded, fc=fill, ec=INK, lw=0.6, gid=f"block {mixer}"))
            if stage.cpe:
                axes.plot([left + width / 2], [MIDDLE + height / 2], marker="o", ms=4, mfc="#FFFFFF", mec=INK, mew=1.0, gid="cpe")
        spans = [x + k * step + width / 2 for k in range(count)] if width >= LETTERED else [x + (count * step - scale * GAP) / 2]
        if width >= LETTERED or count * step >= LETTER * len(letters(mixer)):
            for middle in spans:
                axes.text(middle, MIDDLE, letters(mixer), color=ink_on(fill), fontsize=FIGURES, ha="center", va="center")
        x += count * step
    end = x - scale * GAP
    if stage.sharing:
        axes.plot([begin, end], [MIDDLE - height / 2 - 0.06] * 2, color=INK, lw=2.0, solid_capstyle="butt", gid="shared")
    return end


def _entries(stages: Sequence[Stage]) -> list[Any]:
    """Of the legend: what occurs in these stages."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    used = [mixer for mixer in mixer_names() if any(mixer in stage.mixers for stage in stages)]
    shown: list[Any] = [Patch(fc=color(mixer), ec=INK, lw=0.6, label="no mixer" if mixer == NO_MIXER else mixer) for mixer in used]
    if any(stage.cpe for stage in stages):
        shown.append(Line2D([], [], marker="o", ls="", ms=4, mfc="#FFFFFF", mec=INK, label="position encoding"))
    if any(stage.sharing for stage in stages):
        shown.append(Line2D([], [], color=INK, lw=2.0, label="one shared mixer"))
    return shown


def as_text(architecture: Architecture, colored: bool) -> list[str]:
    """A line for each stage, for a terminal; with the colours of the picture where it shows colours."""
    lines, side = [], architecture.frame.resolution // architecture.patch
    for number, stage in enumerate(architecture.stages):
        blocks = ("" if colored else " ").join(_painted(mixer, colored) for mixer in stage.mixers)
        extras = [f"mlp x{stage.mlp_ratio:g}", *(f"{name} {value}" for name, value in stage.options)]
        extras += ["cpe"] * stage.cpe + ["shared"] * stage.sharing
        lines.append(f"{side >> number:4}x{side >> number:<4} {stage.width:5}  {blocks}  {', '.join(extras)}")
    return lines


def key_of(networks: Iterable[Architecture], colored: bool) -> str:
    """What the letters of `as_text` mean."""
    there = {mixer for each in networks for stage in each.stages for mixer in stage.mixers}
    return ", ".join(
        f"{_painted(mixer, colored)} {'no mixer' if mixer == NO_MIXER else mixer}" for mixer in mixer_names() if mixer in there
    )


def _painted(mixer: str, colored: bool) -> str:
    text = f" {letters(mixer) or '-'} "
    if not colored:
        return f"[{text.strip()}]"
    fill, ink = color(mixer), ink_on(color(mixer))
    codes = (";".join(str(int(each[i : i + 2], 16)) for i in (1, 3, 5)) for each in (fill, ink))
    back, front = codes
    return f"\x1b[48;2;{back};38;2;{front}m{text}\x1b[0m"


def form_of(path: Path) -> Form:
    """Of a picture by the ending of its name.

    Raises:
        ValueError: another ending than .svg and .png.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in ("svg", "png"):
        raise ValueError(
            f"--out {path}: not the name of a picture: got {path.suffix or 'no ending'}; accepted: .svg, .png. Change the ending."
        )
    return form  # type: ignore[return-value]
