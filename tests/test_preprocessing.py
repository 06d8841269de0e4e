"""An image becomes the same input everywhere: for a trained network as for its test, and as torchvision and timm make it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from nas import load_network
from nas.data import open_data
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import save_network

SIZES = [(40, 56), (24, 24), (61, 33), (30, 90)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of several shapes and modes, smooth enough to be scaled."""
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for number in range(count):
            place = root / split / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(draw.integers(0, 256, (5, 4, 3), np.uint8)).resize(SIZES[number % 4], Image.Resampling.BICUBIC)
            (coarse.convert("RGBA") if number == 3 else coarse).save(place)
    return root


def test_a_trained_network_sees_the_images_of_its_test(folder: Path, tmp_path: Path) -> None:
    data = open_data(str(folder)).load(24, torch.device("cpu"))
    network = Network(Architecture(Frame(24, 3, 2), 4, (Stage(8, ("conv",), 2, kernel=3),)))
    save_network(tmp_path / "w.safetensors", network.state_dict(), network.architecture, data.classes, data.preprocessing)
    loaded = load_network(tmp_path / "w.safetensors")
    assert loaded.classes == ("a", "b") and loaded.preprocess is not None
    files = sorted((folder / "test").glob("*/*.png"))
    seen = torch.stack([loaded.preprocess(Image.open(file)) for file in files])
    ((tested, _labels),) = data.evaluation_batches("test", 4)
    assert torch.equal(seen, tested)


@pytest.mark.parametrize(("crop", "interpolation"), [(1.0, "bilinear"), (0.875, "bicubic")])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_torchvision(size: tuple[int, int], crop: float, interpolation: str) -> None:
    """It scales the whole image first and rounds its sides, so that a pixel's worth of difference is left."""
    draw = np.random.default_rng(1)
    image = Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    ours = Preprocessing(28, 3, mean, std, crop, interpolation)(image)
    theirs = transforms.Compose(
        [
            transforms.Resize(round(28 / crop), transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )(image)
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    assert (ours - theirs).abs().mean() < 0.12


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK"])
def test_any_8_bit_image_is_made_grey_or_coloured(mode: str) -> None:
    image = Image.new("RGB", (30, 20), (200, 100, 50)).convert(mode)
    for channels in (1, 3):
        x = Preprocessing(16, channels, (0.5,) * channels, (0.5,) * channels)(image)
        assert x.shape == (channels, 16, 16) and x.std(dim=(1, 2)).max() < 1e-3


def test_more_than_8_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bits"):
        Preprocessing(16, 1, (0.5,), (0.5,))(Image.new("I;16", (20, 20)))
