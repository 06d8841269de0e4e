"""What a page is made of: sentences, pictures, tables that sort."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from nas.quantities import QUANTITIES, format_quantity
from nas.reporting.drawings import INK, PAPER
from nas.reporting.figures import Reach
from nas.runs.records import SearchRecord
from nas.searching.story import Known

SHRUNK = 0.74  # of its width a picture has at least: in a smaller one letters cannot be read, and it is moved sideways
# In place of a picture's own ink and paper: a browser chooses the ink, and the paper is the page.
INKS, NO_PAPER = b"light-dark(#595959, #b4b4b4)", b"none"


@dataclass(frozen=True)
class Cell:
    """What is shown, and what a table is sorted by."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Row:
    """A line of a table; `mark` sets it off."""

    cells: list[Cell]
    mark: bool = False


@dataclass(frozen=True)
class Table:
    """A table; folded, it stands behind a line that says what it is about."""

    heads: list[str]
    rows: list[Row]
    about: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """An SVG picture and what it shows."""

    svg: bytes
    about: str

    @property
    def least(self) -> int:
        """Pixels of its width on a narrow screen."""
        points = re.search(rb'width="([\d.]+)pt"', self.svg)
        return round(SHRUNK * float(points[1]) * 96 / 72) if points else 0

    @property
    def data(self) -> str:
        """As an address that holds the picture itself, without its paper, its ink dark on a light page and light on a dark one."""
        svg = self.svg.replace(b"<svg ", b'<svg style="color-scheme: light dark" ', 1)
        svg = svg.replace(INK.lower().encode(), INKS).replace(PAPER.lower().encode(), NO_PAPER)
        return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


@dataclass(frozen=True)
class Look:
    """What a network looks at: with which weights, and the picture with its numbers, or why there is none."""

    said: str
    svg: bytes | None = None
    reaches: Sequence[Reach] = ()


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    title: str
    texts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    columns: bool = False  # these are lines of a table, not to be broken


@dataclass(frozen=True)
class Said:
    """A sentence at the top."""

    text: str
    unfinished: bool = False


def percent(share: float | None) -> Cell:
    return Cell("", "") if share is None else Cell(f"{share:.2%}", share)


def quantity(name: str, known: Known | None) -> Cell:
    """What a network has of a quantity, sorted by what is shown: of a rate the time of one is known. Empty where nobody knows."""
    if known is None:
        return Cell("", "")
    return Cell(told(name, known), -known.value if QUANTITIES[name].rate else known.value)


def told(name: str, known: Known) -> str:
    """The same in a sentence."""
    return f"{format_quantity(name, known.value)}{' foretold' if known.how == 'foretold' else ''}"


def needs(winner: SearchRecord) -> str:
    """What a winner costs, and where that was measured."""
    where = f" on {winner.target}" if winner.target else ""
    return f"{', '.join(format_quantity(name, value) for name, value in winner.costs.items())}{where}"


def number(value: float) -> Cell:
    return Cell(f"{value:,}", value)
