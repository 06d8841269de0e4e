"""The gallery of the published networks (docs/gallery.md): a page, and for each family a picture of its networks side by side."""

from __future__ import annotations

from nas.published.presets import Preset, read_presets
from nas.reporting.drawings import draw

FAMILIES = {
    "SPACH": ("SPACH",), "MLP-Mixer": ("MLP-Mixer",), "ResMLP": ("ResMLP",), "S2-MLP": ("S2-MLP", "S2-MLPv2"), "AS-MLP": ("AS-MLP",),
    "ViP": ("ViP",),
}  # fmt: skip
COLUMNS = 2
HEAD = """# The published networks, drawn

<!-- Written by `python launch.py presets --gallery docs`: change nas/reporting/gallery.py. -->

Stages stand from left to right, each with the side of its grid of tokens, its width, the ratio of its channel MLPs and its share of the
multiply-adds. A box is a block: its colour and letters are its mixer's, its height follows the width. All networks of a picture are drawn to one
scale. The figures are in [networks.md](networks.md); `python launch.py show as_mlp_t vip_small_7` draws any of them beside each other.
"""


def gallery() -> dict[str, bytes]:
    """The content of each file, by its place below docs/."""
    return {"gallery.md": page().encode(), **{_place(family): drawn(family) for family in FAMILIES}}


def page() -> str:
    """The text around the pictures."""
    parts = (
        f"## {family}\n\n![The {len(_presets(family))} networks of {family}, stage by stage]({_place(family)})\n" for family in FAMILIES
    )
    return "\n".join([HEAD, *parts])


def drawn(family: str) -> bytes:
    """The picture of a family."""
    return draw({f"{each.published.name} ({each.name})": each.architecture for each in _presets(family)}, "svg", COLUMNS)


def _presets(family: str) -> list[Preset]:
    return [each for each in read_presets() if each.published.system in FAMILIES[family]]


def _place(family: str) -> str:
    return f"pictures/{family.lower()}.svg"
