"""What an evaluation says: its table and the picture of its confusion matrix, from the entries of its file alone."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Entries = Mapping[str, Any]
MOST_ROWS, WORST = 40, 20  # classes that are all listed; of more so many of the worst
LONGEST = 24  # letters of a name in the picture
CHARACTER = 0.62  # its width, of the size of the letters
SMALLEST = 4.5  # points: smaller letters cannot be read


def as_table(found: Entries) -> Iterator[str]:
    """The lines about classes; of many the worst alone."""
    rows = found["per_class"]
    if len(rows) > MOST_ROWS:
        yield f"The {WORST} of {len(rows)} classes that are right least often:"
        rows = sorted(rows, key=lambda row: row["accuracy"])[:WORST]
    width = max(len("class"), *(len(row["class"]) for row in rows))
    yield f"{'class':{width}}{'images':>9}{'correct':>9}{'accuracy':>10}  most confused with"
    for row in rows:
        worst = row["most_confused_with"]
        other = f"{worst['class']} ({worst['images']})" if worst else "-"
        yield f"{row['class']:{width}}{row['images']:>9}{row['correct']:>9}{row['accuracy']:>10.2%}  {other}"


def picture(found: Entries) -> Any:
    """A matplotlib figure of the matrix of the classes that occur: a row for each class, the share of its images by answer as colour.

    Names and numbers stand where they can be read.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure  # not pyplot, which may look for a display

    counts = np.array(found["confusion"])
    there = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts, names = counts[np.ix_(there, there)], [_short(found["classes"][number]) for number in there]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = max(3.0, min(0.5 * len(names), 6 + 0.08 * len(names), 14.0))  # inches
    cell = 72 * side / len(names)  # points
    letters, longest = min(10.0, 0.75 * cell), max(map(len, names))
    labels = CHARACTER * 10 * longest / 72 + 1
    figure = Figure(figsize=(side + labels + 1, side + labels), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    # The root, or the few percent that one looks for would be white.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    if letters >= SMALLEST:
        flat = CHARACTER * letters * longest < cell
        axes.set_xticks(range(len(names)), names, fontsize=letters, rotation=0 if flat else 90, parse_math=False)
        axes.set_yticks(range(len(names)), names, fontsize=letters, parse_math=False)
    else:  # the places of classes in the file
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda place, _: str(there[int(place)]) if 0 <= place < len(there) else "")
    digits = min(10.0, 0.9 * cell / (CHARACTER * len(str(counts.max()))))
    if digits >= SMALLEST:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=digits, color=colour)
    axes.set_xticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.grid(which="minor", color="0.88", linewidth=min(0.6, 0.02 * cell))
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("answer of the network")
    axes.set_ylabel("class of the image")
    about = found["settings"]
    title = f"{_short(about['data'])}, {about['split']}\n{found['accuracy']:.2%} of {found['images']:,} images"
    axes.set_title(title, fontsize=11, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1], format=lambda share, _: f"{share:.0%}")
    bar.set_label("of the class's images")
    return figure


def _short(name: str) -> str:
    name = name.encode(errors="replace").decode()  # bytes of a folder's name that are no text
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 11]}...{name[-8:]}"  # what differs may be the end


def png(found: Entries) -> bytes:
    """The picture as a file's content."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the font knows few scripts; the file of figures has every name
        picture(found).savefig(buffer, format="png")
    return buffer.getvalue()
