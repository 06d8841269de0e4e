"""`predict`: its answers are those of the network on images prepared by hand, whatever lies among them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from command_line import run, succeed
from image_files import DAMAGED_EXIF, random_image, write_image
from PIL import Image

from nas import load_network
from nas.data.decoding import AHEAD, decoded
from nas.data.folder import list_images
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import save_network
from nas.networks.weight_files import save_weights

CLASSES = ("ant", "bee", "cow", "deer in a wood of many trees", "elk", "fly", "gnu")
ARCHITECTURE = Architecture(Frame(16, 3, len(CLASSES)), 4, (Stage(8, ("conv", "s2_shift"), 1.0, kernel=3),))
HOW = Preprocessing(16, 3, (0.3, 0.5, 0.6), (0.1, 0.2, 0.3), 0.8, "bicubic")
RUN = Path("runs/trained/weights.safetensors")


def network(seed: int = 0) -> Network:
    """With answers that differ from image to image."""
    torch.manual_seed(seed)
    made = Network(ARCHITECTURE)
    with torch.no_grad():
        made.get_parameter("head.fc.weight").normal_(std=2)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with weights, and images of every kind."""
    save_network(tmp_path / RUN, network().state_dict(), ARCHITECTURE, CLASSES, HOW)
    for number, (name, mode) in enumerate(zip(WHOLE, ("RGB", "RGB", "RGB", "RGB", "P", "L", "CMYK", "RGBA"), strict=True)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = random_image(number, (2, 2)).resize((20 + number, 30 - 2 * number), Image.Resampling.BICUBIC)
        coarse.convert(mode).save(tmp_path / name)
    return tmp_path


WHOLE = [
    *(f"images/{number}.png" for number in range(5)),
    "images/below/deep/GREY.PNG",
    "images/below/print.jpg",
    "images/below/clear.webp",
]


def by_hand(folder: Path, path: str) -> dict[str, float]:
    """Probabilities by class."""
    trained = load_network(folder / RUN)
    assert trained.preprocess is not None
    with Image.open(folder / path) as image, torch.no_grad():
        (logits,) = trained(trained.preprocess(image)[None])
    return dict(zip(CLASSES, logits.double().softmax(0).tolist(), strict=True))


def assert_right(folder: Path, answers: dict[str, list[dict[str, Any]]], paths: list[str], top: int = 5) -> None:
    assert set(answers) == set(paths)
    likeliest = set()
    for path in paths:
        expected = sorted(by_hand(folder, path).items(), key=lambda pair: -pair[1])[:top]
        assert [each["class"] for each in answers[path]] == [name for name, _ in expected]
        assert [each["probability"] for each in answers[path]] == pytest.approx([share for _, share in expected], abs=1e-5)
        likeliest.add(expected[0][0])
    assert len(likeliest) > 1, "else nothing is told apart"


@pytest.mark.parametrize("weights", [str(RUN), "trained", "runs/trained/"])
def test_answers_are_those_of_the_network_by_hand(weights: str, folder: Path) -> None:
    outcome = run(f"predict {weights} images --json --batch-size 3", folder)
    told = json.loads(outcome.out)
    assert outcome.status == 0 and told["broken"] == {} and told["architecture"] == ARCHITECTURE.key
    assert_right(folder, told["images"], WHOLE)


def break_some(images: Path) -> list[str]:
    """Broken images, between the others in the order of their names."""
    whole = (images / "1.png").read_bytes()
    (images / "0.cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "1.text.jpg").write_text("no image")
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 90).save(images / "2.deep.png")
    (images / "3.gone.png").symlink_to("nowhere.png")
    return [f"images/{name}" for name in ("0.cut.png", "1.text.jpg", "2.deep.png", "3.gone.png")]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_broken_images_are_told_and_lose_no_other(batch_size: int, folder: Path) -> None:
    broken = break_some(folder / "images")
    outcome = run(f"predict trained images --json --batch-size {batch_size}", folder)
    told = json.loads(outcome.out)
    assert outcome.status == 2 and set(told["broken"]) == set(broken)
    assert_right(folder, told["images"], WHOLE)
    *named, last = outcome.err.splitlines()[1:]
    assert len(named) == len(broken) and all(sum(line.startswith(path) for line in named) == 1 for path in broken)
    assert "4 of 12" in last
    assert "8 bits" in told["broken"]["images/2.deep.png"]


def test_large_images_and_damaged_entries_are_answered_without_a_warning(folder: Path) -> None:
    """Warnings are errors here, which a broken image is too; Pillow warns of 90 megapixels, and of an EXIF entry that ends too early."""
    Image.new("L", (9500, 9500), 77).save(folder / "large.jpg", quality=50)
    with Image.open(folder / "images/0.png") as image:
        image.convert("RGB").save(folder / "exif.jpg", exif=DAMAGED_EXIF)
    with pytest.warns(UserWarning, match="Truncated"), Image.open(folder / "exif.jpg") as image:
        image.load()
    outcome = run("predict trained large.jpg exif.jpg --json", folder)
    assert outcome.status == 0 and set(json.loads(outcome.out)["images"]) == {"large.jpg", "exif.jpg"} and not outcome.err


def test_a_folder_is_gone_through_without_what_is_hidden_no_image_or_in_a_circle(folder: Path) -> None:
    images = folder / "images"
    write_image(images / ".thumbnails/a.png", 1)
    for name in ("._0.png", "notes.txt", "deep.npy"):
        (images / name).write_text("no image")
    os.mkfifo(images / "pipe.png")  # would be waited for
    (images / "below/again").symlink_to("..")
    (folder / "plain").write_bytes((images / "0.png").read_bytes())
    outcome = run("predict trained images images/0.png images/below/deep plain --json", folder)
    assert outcome.status == 0 and f"{len(WHOLE) + 1} images" in outcome.err and " 4 other" in outcome.err
    assert set(json.loads(outcome.out)["images"]) == {*WHOLE, "plain"}


def test_the_table_says_what_the_object_says(folder: Path) -> None:
    lines = succeed("predict trained images/1.png images/2.png --top 2", folder).splitlines()[1:]
    told = json.loads(succeed("predict trained images/1.png images/2.png --top 2 --json", folder))["images"]
    for line, (path, best) in zip(lines, told.items(), strict=True):
        assert line.startswith(path) and len(best) == 2
        shares = [float(share) for share in re.findall(r"([\d.]+)%", line)]
        assert shares == pytest.approx([100 * each["probability"] for each in best], abs=0.01)
        assert all(each["class"][:20] in line for each in best)


def test_a_network_answers_in_the_arithmetic_of_its_test(folder: Path) -> None:
    for bf16 in ("always", "gpu"):
        save_network(folder / f"{bf16}.safetensors", network().state_dict(), ARCHITECTURE, CLASSES, HOW, bf16)
    always, gpu = (
        json.loads(succeed(f"predict {name}.safetensors images --json --device cpu", folder))["images"] for name in ("always", "gpu")
    )
    assert_right(folder, gpu, WHOLE)
    with torch.autocast("cpu", torch.bfloat16):
        assert_right(folder, always, WHOLE)
    assert always != gpu


def test_more_classes_than_there_are_are_all(folder: Path) -> None:
    (best,) = json.loads(succeed("predict trained images/0.png --top 100 --json", folder))["images"].values()
    assert {each["class"] for each in best} == set(CLASSES) and sum(each["probability"] for each in best) == pytest.approx(1, abs=1e-4)


def test_what_was_answered_before_ctrl_c_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Network.forward

    def pressed(self: Network, images: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "forward", pressed)
        outcome = run("predict trained images --json --batch-size 3", folder)
    told = json.loads(outcome.out)["images"]
    assert outcome.status == 130 and len(told) == 3 and "after 3 of 8 images" in outcome.err
    whole = json.loads(succeed("predict trained images --json", folder))["images"]
    assert told.items() <= whole.items()


def test_a_large_folder_is_not_decoded_before_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        write_image(tmp_path / f"{number}.png", number)
    opened: list[int] = []
    images, _ = list_images([str(tmp_path)])
    real = type(images).open
    monkeypatch.setattr(type(images), "open", lambda self, index: (opened.append(index), real(self, index))[1])
    batches: Iterator[list[Any]] = decoded(images, np.arange(40), HOW, 2, 1)
    next(batches)
    time.sleep(0.5)  # for the threads to do whatever they were asked to
    assert 2 <= len(opened) <= 2 * (AHEAD + 1)
    assert len([each for batch in batches for each in batch]) == 38 and sorted(opened) == list(range(40))


def test_out_of_memory_advises_what_helps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Network.forward

    def small(self: Network, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
            )
        return real(self, images)

    monkeypatch.setattr(Network, "forward", small)
    outcome = run("predict trained images", folder)
    assert outcome.status == 2 and "--batch-size" in outcome.err.splitlines()[-1]
    assert run("predict trained images --batch-size 2", folder).status == 0


@pytest.fixture
def mistaken(folder: Path) -> Path:
    """Everything that can be wrong with weights."""
    safetensors.torch.save_file({"w": torch.zeros(3)}, folder / "foreign.safetensors")
    save_weights(folder / "early.safetensors", network().state_dict(), {"architecture": json.dumps(ARCHITECTURE.to_dict())})
    nothing = {name: torch.full_like(tensor, torch.nan) for name, tensor in network().state_dict().items()}
    save_network(folder / "nan.safetensors", nothing, ARCHITECTURE, CLASSES, HOW)
    (folder / "runs/unfinished").mkdir()
    (folder / "runs/searched").mkdir()
    shutil.copy(folder / RUN, folder / "runs/searched/1MMACs-evolution.safetensors")
    (folder / "empty").mkdir()
    (folder / "empty/notes.txt").write_text("")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("line", "words"),
    {
        "predict trained": ("IMAGE",),
        "predict trained images/0.pgn": ("images/0.pgn", "0.png"),
        "predict trained images nowhere": ("nowhere",),
        "predict trained pipe": ("pipe",),
        "predict trained empty": ("empty", "1 other"),
        "predict trained images --top 0": ("--top", "0"),
        "predict trained images --top x": ("--top", "x"),
        "predict trained images --batch-size 0": ("--batch-size", "0"),
        "predict trained images --device gpu": ("--device", "gpu"),
        "predict trianed images": ("trianed", "'trained'"),
        "predict foreign.safetensors images": ("foreign.safetensors", "architecture"),
        "predict images/0.png images": ("images/0.png", "safetensors"),
        "predict early.safetensors images": ("early.safetensors", "mean", "retrain", "import-weights"),
        "predict unfinished images": ("unfinished", "weights.safetensors"),
        "predict searched images": ("searched", "runs/searched/1MMACs-evolution.safetensors"),
        "predict nan.safetensors images/0.png": ("nan.safetensors: the network",),
    }.items(),
)
def test_a_mistake_is_one_line_and_answers_nothing(line: str, words: tuple[str, ...], mistaken: Path) -> None:
    outcome = run(line, mistaken)
    said = outcome.err.splitlines()[-1]
    assert outcome.status == 2 and all(word in said for word in words), outcome
    assert len(outcome.err.splitlines()) <= 2 and "%" not in outcome.out  # a count of the images may stand above


def test_the_weights_beside_a_winner_answer_by_their_path(mistaken: Path) -> None:
    told = json.loads(succeed("predict runs/searched/1MMACs-evolution.safetensors images --json", mistaken))
    assert_right(mistaken, told["images"], WHOLE)
