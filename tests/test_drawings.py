"""Drawings of networks: a box for each block, readable in any light and by any eye."""

from __future__ import annotations

import base64
import io
import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import refused, succeed
from matplotlib.text import Text
from PIL import Image

from nas.cost import cost
from nas.networks.architecture import Architecture, Frame, Stage, read_architecture
from nas.networks.mixers import mixer_names
from nas.published.presets import read_preset, read_presets
from nas.quantities import format_quantity
from nas.reporting import gallery
from nas.reporting.drawings import INK, PAPER, as_text, color, draw, ink_on, letters, picture, side_by_side
from nas.reporting.page import TEMPLATE
from nas.reporting.parts import INKS, Picture
from nas.yaml_files import write_yaml

MIXED = Architecture(
    Frame(32, 3, 10),
    4,
    (Stage(32, ("conv", "token_mlp", "conv"), 2.0, cpe=True, kernel=3), Stage(64, ("s2_shift", "s2_shift"), 1.0, sharing=True)),
)


def boxes(svg: bytes, name: str) -> list[tuple[str, float]]:
    """Mixer and height in points of each box of a network, from left to right."""
    root, found = ElementTree.fromstring(svg), []
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        if group.get("id") == name:
            for each in group.iter("{http://www.w3.org/2000/svg}g"):
                if (gid := each.get("id", "")).startswith("block "):
                    numbers = [float(number) for path in each for number in re.findall(r"-?\d+\.?\d*", path.get("d", ""))]
                    found.append((min(numbers[::2]), gid.removeprefix("block "), max(numbers[1::2]) - min(numbers[1::2])))
    return [(mixer, height) for _, mixer, height in sorted(found)]


def test_a_box_for_each_block_as_high_as_its_stage_is_wide() -> None:
    other = read_preset("as_mlp_t").architecture
    svg = draw({"mixed": MIXED, "other": other}, "svg")
    for architecture in (MIXED, other):
        drawn = boxes(svg, f"network {architecture.key}")
        wanted = [(mixer, stage.width) for stage in architecture.stages for mixer in stage.mixers]
        assert [mixer for mixer, _ in drawn] == [mixer for mixer, _ in wanted]
        heights, widths = np.array([height for _, height in drawn]), np.array([width for _, width in wanted])
        slope, start = np.polyfit(widths, heights, 1)
        np.testing.assert_allclose(heights, start + slope * widths, rtol=1e-3)
        assert slope > 0
    text = svg.decode()
    assert text.count('id="cpe"') == 3 and text.count('id="shared"') == 1
    assert svg == draw({"mixed": MIXED, "other": other}, "svg"), "the same networks are the same file"


@pytest.mark.parametrize("name", ["s2_mlp_deep", "vip_large_7", "mixer_s_32"])
def test_a_picture_of_any_depth_has_a_page_s_width(name: str) -> None:
    with Image.open(io.BytesIO(draw({name: read_preset(name).architecture}, "png"))) as image:
        assert 5 * 150 <= image.width <= 12 * 150 and image.mode == "RGBA"


LONG = "runs/cifar_small-cifar10-cifar_cpu-0/baselines/5MMACs-evolution/conv-then-attention.yaml"
DEEP = Architecture(
    Frame(32, 3, 10), 2, tuple(Stage(96 * 2**i, ("token_mlp",) * depth, 1.5, cpe=True) for i, depth in enumerate((3, 1, 1, 13)))
)
MANY = Architecture(
    Frame(32, 3, 10),
    4,
    (
        Stage(32, ("conv", "token_mlp", "token_linear", "s2_shift", "s2_shift_v2"), 1.0, cpe=True, kernel=3),
        Stage(32, ("s2_shift",), 1.0, sharing=True),
    ),
)
SMALL = Architecture(Frame(224, 3, 1000), 2, tuple(Stage(1024, ("s2_shift_v2",), 3.5, sharing=True) for _ in range(3)))


@pytest.mark.parametrize(
    "networks",
    [
        {LONG: MIXED},
        {"": MANY},
        {"small": SMALL, LONG: DEEP},
        {LONG: SMALL, "deep": DEEP, "mixed": MIXED, "attention": read_preset("vip_small_7").architecture},
    ],
    ids=["a long name", "a long legend", "one over the other", "many mixers"],
)
@pytest.mark.parametrize("columns", [1, 2])
def test_no_word_is_cut_or_lies_on_another(networks: dict[str, Architecture], columns: int) -> None:
    figure = picture(networks, columns)
    figure.draw_without_rendering()
    words = {each: each.get_window_extent() for each in figure.findobj(Text) if each.get_text().strip()}
    for word, extent in words.items():
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1, word
        assert figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1, word
    for (one, its), (other, others) in itertools.combinations(words.items(), 2):
        assert not its.overlaps(others), (one, other)


def test_networks_stand_side_by_side_where_they_fit() -> None:
    assert side_by_side({"a": MIXED, "b": MIXED}) == 2 and side_by_side({"a": MIXED, "b": read_preset("s2_mlp_deep").architecture}) == 1
    assert side_by_side({"a": MIXED, LONG: MIXED}) == 1 and side_by_side(dict.fromkeys("abcdef", MIXED)) == 2
    places = [axes.get_position() for axes in picture({"a": MIXED, "b": MIXED}, 2).axes]
    assert places[0].y0 == places[1].y0 and places[0].x1 <= places[1].x0


def luminance(color: str) -> float:
    """Source: WCAG 2, relative luminance."""
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_what_is_written_can_be_read_on_its_paper_on_a_page_and_in_every_box() -> None:
    """A picture has its own paper wherever it is shown; the report puts its page's and an ink for it in their place."""
    svg = draw({"mixed": MIXED}, "svg")
    paper = re.search(rb'id="patch_1">\s*<path[^>]*style="([^"]*)"', svg)
    assert paper and PAPER.lower().encode() in paper[1] and contrast(INK, PAPER) >= 6.5
    with Image.open(io.BytesIO(draw({"mixed": MIXED}, "png"))) as image:
        assert image.getpixel((0, 0)) == (*bytes.fromhex(PAPER[1:]), 255), "nothing shines through"
    shown = base64.b64decode(Picture(svg, "").data.partition(",")[2])
    assert PAPER.lower().encode() not in shown and INK.lower().encode() not in shown.replace(INKS, b"")
    page = re.search(r"--page: light-dark\((#\w+), (#\w+)\)", TEMPLATE.read_text())
    inks = re.findall(r"#\w+", INKS.decode())
    assert page and all(
        contrast(ink, 2 * paper[1:] if len(paper) == 4 else paper) >= 6.5 for ink, paper in zip(inks, page.groups(), strict=True)
    )
    for mixer in mixer_names():
        assert contrast(color(mixer), ink_on(color(mixer))) >= 4.5, mixer


# Source: Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.0, on linear RGB.
SEEN = {
    "as by most": np.eye(3),
    "without red": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "without green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}


@pytest.mark.parametrize("eye", SEEN)
def test_colour_blind_readers_tell_mixers_apart(eye: str) -> None:
    def seen(mixer: str) -> np.ndarray:
        channels = np.array([int(color(mixer)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.clip(SEEN[eye] @ channels**2.2, 0, 1) ** (1 / 2.2)

    for one, other in itertools.combinations(mixer_names(), 2):
        assert np.linalg.norm(seen(one) - seen(other)) > 0.12, (one, other)
    assert len({letters(mixer) for mixer in mixer_names()}) == len(list(mixer_names())), "and by the letters"


DOCS = Path(__file__).parents[1] / "docs"


def words(svg: bytes, name: str) -> str:
    """What is written in the group of a network."""
    (group,) = (each for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g") if each.get("id") == name)
    return " | ".join("".join(each.itertext()) for each in group.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("family", gallery.FAMILIES)
def test_the_gallery_shows_the_published_networks_as_they_are(family: str) -> None:
    svg = (DOCS / "pictures" / f"{family.lower()}.svg").read_bytes()
    wanted = [each for each in read_presets() if each.published.system.removesuffix("v2") == family]
    shown = re.findall(rb'id="network ([0-9a-f]+)"', svg)
    assert [each.decode() for each in shown] == [each.architecture.key for each in wanted], "python launch.py presets --gallery docs"
    for each in wanted:
        name, stages = f"network {each.architecture.key}", each.architecture.stages
        assert [mixer for mixer, _ in boxes(svg, name)] == [mixer for stage in stages for mixer in stage.mixers]
        macs, params, _ = cost(each.architecture)
        said = words(svg, name)
        assert (
            f"{each.published.name} ({each.name})" in said
            and f"{format_quantity('macs', macs)}, {format_quantity('params', params)}" in said
        )
    for mixer in {mixer for each in wanted for stage in each.architecture.stages for mixer in stage.mixers}:
        fills = re.findall(rf'id="block {mixer}">\s*<path [^>]*fill: (#[0-9a-f]+)', svg.decode())
        assert {*fills} == {color(mixer).lower()}


def test_the_gallery_is_as_the_command_writes_it() -> None:
    assert gallery.page() == (DOCS / "gallery.md").read_text(encoding="utf-8"), "python launch.py presets --gallery docs"
    assert {path.stem for path in (DOCS / "pictures").glob("*.svg")} >= {each.lower() for each in gallery.FAMILIES}
    made, there = gallery.drawn("AS-MLP"), (DOCS / "pictures/as-mlp.svg").read_bytes()
    for key in re.findall(rb'id="(network [0-9a-f]+)"', made):
        (one, high), (other, higher) = (zip(*boxes(svg, key.decode()), strict=True) for svg in (made, there))
        assert one == other
        np.testing.assert_allclose(high, higher, rtol=1e-3)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))])
def test_pictures_that_a_page_shows_are_there_and_small(page: str) -> None:
    path = DOCS.parent / page
    for address in re.findall(r'!\[[^\]]*\]\(([^)]+)\)|<img src="([^"]+)"', path.read_text(encoding="utf-8")):
        shown = path.parent / "".join(address)
        assert shown.exists() and (shown.suffix == ".svg" or shown.stat().st_size < 400_000), shown


def test_the_command_draws_files_presets_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Path(__file__).parents[1] / "search_spaces/presets/as_mlp_t.yaml"
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/best.yaml").write_bytes(preset.read_bytes())
    (tmp_path / "runs/none").mkdir()
    for name in ("one.yaml", "other.yaml"):
        write_yaml(tmp_path / name, {"format": "architecture 1", "architecture": MIXED.to_dict()})
    succeed("show one.yaml other.yaml --out twins.png", tmp_path)
    with Image.open(tmp_path / "twins.png") as image:
        assert image.width > 2 * image.height, "side by side"
    said = succeed("show mine s2_mlp_deep --out drawn.svg", tmp_path)
    assert said.count("[AS]") == sum(stage.depth for stage in read_architecture(preset)[0].stages) + 1 and "[S2] s2_shift" in said
    assert len(boxes((tmp_path / "drawn.svg").read_bytes(), f"network {read_preset('s2_mlp_deep').architecture.key}")) == 36
    assert "no network in it yet" in refused("show none", tmp_path)
    assert ".svg, .png" in refused("show mine --out x.jpg", tmp_path)
    assert "\x1b[" in "".join(as_text(MIXED, True)) and "\x1b[" not in said
