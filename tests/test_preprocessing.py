"""An image becomes the same input everywhere: for a trained network as for its test, and as torchvision and timm make it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import refused
from PIL import Image
from torchvision import transforms

from nas import load_network
from nas.data import open_data
from nas.data.decoding import decoded
from nas.data.folder import list_images
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import save_network
from nas.networks.weight_files import load_weights, save_weights

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


def test_a_large_jpeg_is_that_of_the_test_after_a_draft_and_nearly_that_without(tmp_path: Path) -> None:
    """The test's decoder leaves out detail that scaling would throw away."""
    draw = np.random.default_rng(2)
    for split, count in (("train", 6), ("test", 2)):
        for number in range(count):
            place = tmp_path / split / "ab"[number % 2] / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (9, 12, 3), np.uint8)).resize((640, 480), Image.Resampling.BICUBIC).save(place)
    data = open_data(str(tmp_path)).load(24, torch.device("cpu"))
    how = data.preprocessing
    ((tested, _labels),) = data.evaluation_batches("test", 2)
    for file, x in zip(sorted((tmp_path / "test").glob("*/*.jpg")), tested, strict=True):
        with Image.open(file) as image:
            image.draft(None, (how.enough, how.enough))
            assert torch.equal(how(image), x)
        with Image.open(file) as image:
            assert 0 < (how(image) - x).abs().mean() < 0.02


def test_a_part_of_a_large_jpeg_is_decoded_with_all_its_detail(tmp_path: Path) -> None:
    """With half the side wanted twice the pixels are needed: else the square would be enlarged, and blurred."""
    fine = np.random.default_rng(3).integers(0, 256, (24, 24), np.uint8)
    Image.fromarray(fine).resize((256, 256), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    how = Preprocessing(32, 1, (0.5,), (0.25,), crop=0.5)
    images, _ = list_images([str(tmp_path)])
    ((x,),) = decoded(images, np.arange(1), how, 4, 1)
    assert isinstance(x, torch.Tensor) and x.dtype == torch.uint8
    with Image.open(tmp_path / "a.jpg") as image:
        assert (how.normalise(x) - how(image)).abs().mean() < 0.08  # 0.03; 0.25 with half the pixels


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["a"]}, {"classes": 3}, {"std": [0.2, 0.0, 0.2]}, {"std": [0.2]}, {"mean": [0.1, float("nan"), 0.1]}, {"mean": "grey"},
        {"crop": 0}, {"crop": 1.5}, {"crop": "all"}, {"interpolation": "nearest"}, {"bf16": "sometimes"},
    ],
    ids=str,
)  # fmt: skip
def test_a_file_that_says_how_images_are_made_in_a_way_that_cannot_be_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    network = Network(Architecture(Frame(8, 3, 2), 4, (Stage(8, ("conv",), 2, kernel=3),)))
    path, how = tmp_path / "w.safetensors", Preprocessing(8, 3, (0.4,) * 3, (0.2,) * 3, 0.9, "bicubic")
    save_network(path, network.state_dict(), network.architecture, ("a", "b"), how, "gpu")
    loaded, (weights, metadata) = load_network(path), load_weights(path)
    assert (loaded.classes, loaded.preprocess, loaded.bf16) == (("a", "b"), how, "gpu")
    save_weights(path, weights, metadata | {name: json.dumps(value) for name, value in change.items()})
    with refused(path):
        load_network(path)


def test_a_file_of_an_earlier_version_loads_without_them(tmp_path: Path) -> None:
    network = Network(Architecture(Frame(8, 3, 2), 4, (Stage(8, ("conv",), 2, kernel=3),)))
    save_weights(tmp_path / "w.safetensors", network.state_dict(), {"architecture": json.dumps(network.architecture.to_dict())})
    loaded = load_network(tmp_path / "w.safetensors")
    assert (loaded.classes, loaded.preprocess, loaded.bf16) == ((), None, "never")
