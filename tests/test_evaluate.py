"""`evaluate`: the accuracy that `retrain` measured, scikit-learn's confusion matrix, and a picture that can be read."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import refused, run, succeed
from PIL import Image
from sklearn.metrics import confusion_matrix, recall_score

from nas import HOME, load_network
from nas.data import open_data
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import save_network
from nas.reporting.confusion import as_table, picture, png
from nas.runs.records import read_training
from nas.training.answers import judged

FILE = """
format: architecture 1
architecture:
  frame: {resolution: 16, channels: 3, classes: 10}
  patch: 4
  stages: [{width: 16, mixers: [conv, attention], mlp_ratio: 2, kernel: 3, head_width: 8}]
"""
CLASSES = ("ant", "bee", "cow", "dog")
OUTPUTS = ("cow", "elk", "dog", "ant", "bee")  # the network's: another order, and one more
ARCHITECTURE = Architecture(Frame(16, 1, len(OUTPUTS)), 4, (Stage(8, ("conv", "s2_shift"), 1.0, kernel=3),))
HOW = Preprocessing(16, 1, (0.3,), (0.15,), 0.8, "bicubic")


def write_pictures(folder: Path, classes: tuple[str, ...] = CLASSES, size: int = 24, ending: str = "png") -> Path:
    """Pictures of two by two colours; those of a class lie close together."""
    draw = np.random.default_rng(5)
    for number, name in enumerate(classes):
        middle = np.random.default_rng(number).integers(0, 256, (2, 2, 3))
        for place in range(14 + number):
            pixels = np.clip(middle + draw.integers(-90, 90, (2, 2, 3)), 0, 255).astype(np.uint8)
            path = folder / ("train" if place < 8 else "test") / name / f"{place}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((size, size + number), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, and a network that is right about some of them."""
    write_pictures(tmp_path / "pictures")
    torch.manual_seed(1)
    network = Network(ARCHITECTURE)
    with torch.no_grad():
        network.get_parameter("head.fc.weight").normal_(std=2)
    save_network(tmp_path / "runs/trained/weights.safetensors", network.state_dict(), ARCHITECTURE, OUTPUTS, HOW)
    return tmp_path


def written(folder: Path, said: str) -> dict[str, Any]:
    """The figures that a command says it has written."""
    (path,) = re.findall(r"Written to (\S+\.json) and", said)
    return json.loads((folder / path).read_text())


# ---- the figures -------------------------------------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    ("data", "recipe", "length", "ending"),
    [("digits", "digits", "--steps 80", ""), ("pictures", "bf16.yaml", "--smoke --steps 30", "jpg")],
)
def test_the_test_split_has_the_accuracy_that_retrain_measured(data: str, recipe: str, length: str, ending: str, tmp_path: Path) -> None:
    """Also of large JPEGs, whose decoder leaves out detail, and in bfloat16."""
    (tmp_path / "a.yaml").write_text(FILE)
    always = (HOME / "recipes/cifar_cpu.yaml").read_text()
    (tmp_path / "bf16.yaml").write_text(re.sub("(?m)^bf16: .*", "bf16: always", always))
    if ending:
        write_pictures(tmp_path / data, size=150, ending=ending)
    succeed(f"retrain a.yaml --data {data} --recipe {recipe} {length} --run r", tmp_path)
    result = read_training(tmp_path / "runs/r/result.yaml").result
    said = succeed(f"evaluate r --data {data}", tmp_path)
    found = written(tmp_path, said)
    assert (found["accuracy"], found["images"]) == (result.test_accuracy, result.test_images)
    assert f"{result.test_accuracy:.2%} of {result.test_images} images" in said and 0.12 < result.test_accuracy < 1
    assert load_network(tmp_path / "runs/r/weights.safetensors").bf16 == ("always" if ending else "gpu")


@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_figures_are_those_of_scikit_learn(batch_size: int, folder: Path) -> None:
    """Images prepared as the network wants them, whatever the data: grey, of another middle, scaled in another way."""
    network = load_network(folder / "runs/trained/weights.safetensors")
    assert network.preprocess is not None
    true, answered = [], []
    for path in sorted((folder / "pictures/test").glob("*/*.png")):
        with Image.open(path) as image, torch.no_grad():
            true.append(path.parent.name)
            answered.append(OUTPUTS[int(network(network.preprocess(image)[None]).argmax())])
    found = written(folder, succeed(f"evaluate trained --data pictures --batch-size {batch_size}", folder))
    expected = confusion_matrix(true, answered, labels=OUTPUTS)
    assert np.array_equal(found["confusion"], expected) and found["classes"] == list(OUTPUTS)
    assert found["correct"] == expected.trace() and 0 < found["correct"] < found["images"] == expected.sum()
    recalls = dict(zip(CLASSES, recall_score(true, answered, labels=CLASSES, average=None), strict=True))
    assert {row["class"]: row["accuracy"] for row in found["per_class"]} == {name: round(share, 4) for name, share in recalls.items()}
    for row in found["per_class"]:
        wrong = [said for name, said in zip(true, answered, strict=True) if name == row["class"] != said]
        assert row["images"] == true.count(row["class"]) == row["correct"] + len(wrong)
        worst = row["most_confused_with"]
        assert (worst is None) == (not wrong)
        assert worst is None or worst["images"] == wrong.count(worst["class"]) == max(map(wrong.count, wrong))


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_a_split_is_the_one_that_training_knows(split: str, folder: Path) -> None:
    """By the batches that candidates are compared on."""
    data = open_data(str(folder / "pictures")).load(16, torch.device("cpu"))
    architecture = ARCHITECTURE.at(Frame(16, 3, 4))
    network = Network(architecture)
    save_network(folder / "colour.safetensors", network.state_dict(), architecture, data.classes, data.preprocessing)
    found = written(folder, succeed(f"evaluate colour.safetensors --data pictures --split {split}", folder))
    with torch.no_grad():
        pairs = [(labels, network.eval()(x).argmax(1)) for x, labels in data.evaluation_batches(split, 7)]
    true, answered = (torch.cat(each).tolist() for each in zip(*pairs, strict=True))
    assert np.array_equal(found["confusion"], confusion_matrix(true, answered, labels=range(4)))


def test_all_images_of_a_set_are_judged_where_none_was_trained_on(folder: Path) -> None:
    shown = {
        split: written(folder, succeed(f"evaluate trained --data pictures --split {split}", folder)) for split in ("train", "test", "all")
    }
    assert np.array_equal(shown["all"]["confusion"], np.add(shown["train"]["confusion"], shown["test"]["confusion"]))
    assert shown["all"]["images"] == len(list((folder / "pictures").rglob("*.png")))


def test_a_network_without_names_has_the_classes_of_the_data_in_their_order(folder: Path) -> None:
    torch.manual_seed(0)
    architecture = ARCHITECTURE.at(Frame(16, 1, 4))
    for name, classes in (("named", CLASSES), ("nameless", ())):
        torch.manual_seed(2)
        save_network(folder / f"{name}.safetensors", Network(architecture).state_dict(), architecture, classes, HOW)
    named, nameless = (succeed(f"evaluate {name}.safetensors --data pictures", folder) for name in ("named", "nameless"))
    assert written(folder, named)["per_class"] == written(folder, nameless)["per_class"]
    assert "does not name its classes" in nameless and "does not name" not in named
    shutil.rmtree(folder / "pictures/train/bee"), shutil.rmtree(folder / "pictures/test/bee")
    assert "'ant'" in refused("evaluate nameless.safetensors --data pictures", folder)


# ---- what is written ---------------------------------------------------------------------------------------------------


def test_the_same_command_writes_the_same_files_and_no_other_overwrites_them(folder: Path) -> None:
    place = folder / "runs/trained"

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in place.glob("evaluation*")}

    (place / "evaluation-pictures-test.json").write_text("[1, 2]")  # somebody's
    succeed("evaluate trained --data pictures", folder)
    first = contents()
    assert set(first) == {"evaluation-pictures-test.json", "evaluation-pictures-test-2.json", "evaluation-pictures-test-2.png"}
    assert first["evaluation-pictures-test.json"] == b"[1, 2]" and first["evaluation-pictures-test-2.png"].startswith(b"\x89PNG")
    succeed("evaluate trained --data pictures", folder)
    assert contents() == first
    succeed("evaluate trained --data pictures --split train", folder)
    next((folder / "pictures/test/ant").iterdir()).unlink()  # other images of the same name
    succeed("evaluate trained --data pictures", folder)
    more = contents()
    assert first.items() <= more.items() and len(more) == 7
    succeed("evaluate trained --data pictures --out else/where", folder)
    assert len(list((folder / "else/where").iterdir())) == 2 and contents() == more


@pytest.mark.parametrize(
    ("line", "words"),
    {
        "evaluate trained": ("--data",),
        "evaluate trained --data nowhere": ("nowhere",),
        "evaluate trained --data pictures --split fit": ("fit", "held_out"),
        "evaluate trained --data others": ("'dgo'", "others", "'dog'"),
        "evaluate trained --data broken": ("10.png",),
        "evaluate trained --data pictures --out file": ("--out", "file"),
        "evaluate nowhere --data pictures": ("nowhere",),
    }.items(),
)
def test_a_mistake_is_one_line_and_writes_nothing(line: str, words: tuple[str, ...], folder: Path) -> None:
    (folder / "file").write_text("")
    shutil.copytree(folder / "pictures", folder / "broken")
    (folder / "broken/test/bee/10.png").write_bytes(b"no image")
    shutil.copytree(folder / "pictures", folder / "others")
    for split in ("train", "test"):
        (folder / "others" / split / "dog").rename(folder / "others" / split / "dgo")
    before = sorted(folder.rglob("*"))
    said = refused(line, folder)
    assert all(word in said for word in words), said
    assert sorted(folder.rglob("*")) == before


def test_ctrl_c_is_one_line_and_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Network.forward

    def pressed(self: Network, images: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, images)

    monkeypatch.setattr(Network, "forward", pressed)
    outcome = run("evaluate trained --data pictures --batch-size 5", folder)
    assert outcome.status == 143 and "begins again" in outcome.err and not list(folder.rglob("evaluation*"))


# ---- table and picture -------------------------------------------------------------------------------------------------


def entries(confusion: np.ndarray[Any, Any], names: list[str]) -> dict[str, Any]:
    return {"settings": {"data": "pictures", "split": "test"}, **judged(confusion, names)}


def made_up(num_classes: int, letters: int = 9) -> dict[str, Any]:
    draw = np.random.default_rng(num_classes)
    confusion = draw.poisson(3 / num_classes, (num_classes, num_classes)) + np.diag(draw.integers(20, 50, num_classes))
    return entries(confusion, [f"{number:03} {'class' * 9}"[:letters] for number in range(num_classes)])


@pytest.mark.whole
@pytest.mark.parametrize(("num_classes", "letters"), [(2, 9), (10, 4), (10, 40), (100, 20)])
def test_names_and_numbers_of_the_picture_can_be_read(num_classes: int, letters: int) -> None:
    """They lie in the picture, none over another, and are at least five points high."""
    found = made_up(num_classes, letters)
    figure = picture(found)
    figure.draw_without_rendering()
    assert min(figure.get_facecolor()) == 1, "white"
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels(), axes.texts):
        boxes = [label.get_window_extent() for label in labels]
        assert all(
            figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes
        )
        assert all(label.get_fontsize() >= 4.5 for label in labels)
        ordered = sorted(boxes, key=lambda box: (round(box.y0), box.x0)) if labels is axes.texts else boxes
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(ordered))
    assert len({label.get_text() for label in axes.get_yticklabels()}) == num_classes
    where = {tuple(map(int, text.get_position())): int(text.get_text()) for text in axes.texts}
    if where:  # column and row
        assert where == {(column, row): number for (row, column), number in np.ndenumerate(found["confusion"]) if number}
    (shares,) = axes.images
    assert np.allclose(np.asarray(shares.get_array()).sum(axis=1), 1)


@pytest.mark.whole
def test_a_picture_of_very_many_classes_says_their_places_and_leaves_out_what_does_not_occur() -> None:
    confusion = np.zeros((1000, 1000), np.int64)
    confusion[300:700, 300:700] = made_up(400)["confusion"]
    axes = picture(entries(confusion, [f"name {number}" for number in range(1000)])).axes[0]
    assert axes.images[0].get_array().shape == (400, 400) and not axes.texts
    assert axes.xaxis.get_major_formatter()(100, None) == "400"


def test_any_name_can_be_drawn() -> None:
    """A warning is an error here."""
    assert png(entries(np.array([[3, 1, 0], [0, 2, 0], [1, 1, 1]]), ["$5_^$", "猫", "b\udcff"])).startswith(b"\x89PNG")


def test_of_many_classes_the_table_has_the_worst() -> None:
    few, many = list(as_table(made_up(10))), list(as_table(made_up(100)))
    assert len(few) == 11 and len(many) == 22
    shown = [float(line.split("%")[0].split()[-1]) for line in many[2:]]
    accuracies = sorted(100 * row["accuracy"] for row in made_up(100)["per_class"])
    assert shown == pytest.approx(accuracies[:20], abs=0.01)
    _, line = as_table(entries(np.array([[0, 0], [3, 1]]), ["ant", "bee"]))
    assert line.split() == ["bee", "4", "1", "25.00%", "ant", "(3)"]
