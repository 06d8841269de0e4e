"""`export`: what another program makes of the file, what the card says, and that nothing is written that gives other answers or stood there before."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import refused, succeed
from PIL import Image
from torch import Tensor, nn

from nas import load_network
from nas.cost import cost
from nas.export import exporting
from nas.export.exporting import FORMATS, TOLERANCE, Format, photographs
from nas.export.model_card import provenance
from nas.export.origin import open_origin
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import save_network
from nas.published.presets import preset_names, read_preset
from nas.runs.folder import Run
from nas.runs.records import digest, write_architecture

CLASSES = ("ant", "bee", "cow")
# Every form that stands around the mixers, of which tests/test_mixers.py has each in ONNX.
FORMS: dict[str, Any] = {"stem": "conv4", "norm": "affine", "layer_scale": "both", "merge": "gather", "final_norm": "group_norm"}
ARCHITECTURE = Architecture(Frame(16, 3, 3), 4, (Stage(8, ("none",), 1.0, cpe=True), Stage(8, ("s2_shift",), 1.0)), **FORMS)
HOW = Preprocessing(16, 3, (0.3, 0.4, 0.5), (0.2, 0.25, 0.3), 0.8, "bicubic")
WEIGHTS = "runs/mine/weights.safetensors"


def shaken(network: Network) -> Network:
    """All parameters away from the zeros and ones that they begin with, so that every layer is heard in the answers."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter) * (parameter.std() if parameter.numel() > 1 and parameter.std() > 0 else 1)
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            if getattr(module, "scale", None) is not None and name:
                module.scale.uniform_(0.5, 1)  # type: ignore[union-attr,operator]
    return network.eval()


def write_weights(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_network(folder / WEIGHTS, shaken(Network(ARCHITECTURE)).state_dict(), ARCHITECTURE, CLASSES, HOW)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A network in a run, exported in both formats, and what the commands said."""
    folder = write_weights(tmp_path_factory.mktemp("exported"))
    result = {"test_accuracy": 0.8125, "test_images": 1234, "steps": 77, "epochs": 3.5}
    entries = {"costs": cost(ARCHITECTURE)._asdict(), "result": result, "data": "/data/photos", "recipe": "cifar", "seed": 4, "run": "mine"}
    write_architecture(folder / "runs/mine/result.yaml", ARCHITECTURE, {**entries, "data_fingerprint": "123456789abc"}, "")
    return folder, {format: succeed(f"export mine --format {format}", folder) for format in FORMATS}


def by_hand(image: Image.Image, said: dict[str, Any]) -> np.ndarray[Any, Any]:
    """An image as the metadata say, without a line of this project."""
    side = min(image.size) * said["crop"]
    left, top = (image.width - side) / 2, (image.height - side) / 2
    method = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[said["interpolation"]]
    small = image.convert("RGB").resize((said["resolution"],) * 2, method, (left, top, left + side, top + side))
    pixels = (np.asarray(small, np.float64) / 255 - said["mean"]) / said["std"]
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 40, 3), np.uint8))


def read_onnx(path: Path) -> tuple[dict[str, Any], Any]:
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    said = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    return said, lambda images: session.run(None, {given.name: images})[0]


def read_torch(path: Path) -> tuple[dict[str, Any], Any]:
    files = {"metadata.json": ""}
    network = torch.export.load(path, extra_files=files).module()
    return json.loads(files["metadata.json"]), lambda images: network(torch.from_numpy(images)).detach().numpy()


@pytest.mark.whole
@pytest.mark.parametrize(("ending", "read"), [("onnx", read_onnx), ("pt2", read_torch)])
def test_another_program_answers_as_the_network_by_the_file_alone(ending: str, read: Any, exported: Any) -> None:
    folder, _ = exported
    said, run = read(folder / f"runs/mine/mine.{ending}")
    network = load_network(folder / WEIGHTS)
    assert network.preprocess is not None
    with torch.no_grad():
        expected = network(network.preprocess(picture())[None]).numpy()
    answer = run(by_hand(picture(), said))
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)  # float32 in another order of summation
    assert said["classes"] == list(CLASSES) and said["weights"] == digest(folder / WEIGHTS)
    assert Architecture.from_dict(said["architecture"], "") == ARCHITECTURE
    np.testing.assert_allclose(run(np.repeat(by_hand(picture(), said), 5, axis=0)), np.repeat(answer, 5, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.whole
def test_each_format_is_one_file_with_its_card_that_tells_nothing_of_this_machine(exported: Any) -> None:
    folder, said = exported
    endings = (".onnx", ".onnx.md", ".pt2", ".pt2.md")
    assert {path.name for path in (folder / "runs/mine").iterdir()} == {
        "weights.safetensors",
        "result.yaml",
        *(f"mine{each}" for each in endings),
    }
    for each in endings:
        content = (folder / f"runs/mine/mine{each}").read_bytes()
        assert str(Path(__file__).parents[1]).encode() not in content and str(folder).encode() not in content
    for text in said.values():
        assert "1 and 3 images at a time: largest difference" in text and "accepted: " in text
    assert "opset 20" in said["onnx"]


def test_the_card_has_costs_data_recipe_accuracy_and_three_lines_that_run(exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = exported
    monkeypatch.chdir(folder / "runs/mine")
    for name, images in (("mine.onnx", np.zeros((2, 3, 16, 16), np.float32)), ("mine.pt2", torch.zeros(2, 3, 16, 16))):
        card = Path(f"{name}.md").read_text()
        for fact in (
            "81.25% of 1,234",
            "photos",
            "cifar, seed 4",
            "3.5 epochs",
            "ant; bee; cow",
            "[S2]",
            "Licence",
            digest(Path("weights.safetensors")),
        ):
            assert fact in card, fact
        load = card.split("```python\n")[1].split("```")[0]
        assert len(load.splitlines()) == 3
        there: dict[str, Any] = {"images": images}
        exec(load, there)
        assert there["logits"].shape == (2, 3)


def test_the_card_tells_imported_weights_a_searchs_and_what_was_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_weights(tmp_path))
    Run("mine").record(**{"import": {"preset": "mixer_b_16", "file": "/elsewhere/theirs.npz", "sha256": 64 * "a"}})
    for number, of in enumerate((digest(Path(WEIGHTS)), "000000000000")):
        settings = {"weights_digest": of, "data": "photos", "split": "test"}
        Path(f"runs/mine/evaluation-{number}.json").write_text(
            json.dumps({"settings": settings, "accuracy": 0.5 + number / 10, "images": 1000})
        )
    facts = dict(provenance(open_origin("mine")))
    assert facts["published accuracy"].startswith(f"{read_preset('mixer_b_16').published.top1}%") and "theirs.npz" in facts["imported"]
    assert "/elsewhere" not in facts["imported"] and facts["evaluated"] == "50.00% of 1,000 images of photos, test"
    Path("runs/found").mkdir()
    Path(WEIGHTS).rename("runs/found/5MMACs-evolution.safetensors")
    found = {
        "accuracy_at_once": 0.625,
        "standard_error": 0.01,
        "held_out_images": 400,
        "evaluations": 9,
        "usage": 0.9,
        "floor": 0.8,
        "reason": "best",
    }
    entries = {"costs": cost(ARCHITECTURE)._asdict(), "budgets": ["5MMACs"], "found": found, "run": "found", "study": "5MMACs-evolution"}
    entries |= {"space": "cifar.yaml", "space_fingerprint": "123", "data": "/data/photos", "recipe": "cifar", "seed": 4}
    write_architecture(Path("runs/found/5MMACs-evolution.yaml"), ARCHITECTURE, entries, "")
    facts = dict(provenance(open_origin("runs/found/5MMACs-evolution.safetensors")))
    assert facts["accuracy"] == "62.50% of 400 held-out images" and "5MMACs" in facts["chosen by"] and facts["data"].startswith("photos")


# ------------------------------------------------------------------------------------------------- what is not written


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quick(run: Callable[[Tensor], Tensor] | None = None) -> Format:
    """A format that is written at once: its file holds the metadata, and what runs it is the network itself, or `run` on its answers."""
    written: dict[bytes, nn.Module] = {}

    def write(network: nn.Module, example: Tensor, metadata: Any) -> bytes:
        content = json.dumps(metadata).encode()
        written[content] = network
        return content

    return Format(".pt2", "quick", "no runtime", write, lambda content: lambda images: (run or torch.clone)(written[content](images)))


def mean_of_batch(logits: Tensor) -> Tensor:
    return logits + 0.01 * (logits - logits.mean(0))


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a little off": lambda logits: logits * (1 + 3 * TOLERANCE),
    "one class": lambda logits: logits + torch.tensor([0.0, 0.0, 0.01]),
    "samples see each other": mean_of_batch,
    "no numbers": lambda logits: logits * float("nan"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_gives_other_answers_is_not_written(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "torch", quick(WRONG[how]))
    before = files(write_weights(tmp_path))
    assert "other answers" in refused("export mine --format torch", tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("rounding", "off", "passes"), [(5e-4, 4e-3, True), (5e-4, 6e-3, False), (3e-3, 8e-3, True), (3e-3, 0.012, False)])
def test_a_network_that_rounding_disturbs_is_allowed_ten_times_its_own_error_up_to_a_hundredth(
    rounding: float, off: float, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose float32 is off by about a thousandth, as S2-MLPv2's is."""
    forward = Network.forward

    def coarse(self: Network, images: Tensor) -> Tensor:
        return forward(self, images) * (1 + rounding * (images.dtype == torch.float32))

    monkeypatch.setattr(Network, "forward", coarse)
    monkeypatch.setitem(FORMATS, "torch", quick(lambda logits: logits * (1 + off)))
    write_weights(tmp_path)
    assert succeed("export mine --format torch", tmp_path) if passes else refused("export mine --format torch", tmp_path)


def test_what_runs_at_one_batch_only_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(network: nn.Module, example: Tensor, metadata: Any) -> bytes:
        content = io.BytesIO()
        torch.export.save(torch.export.export(network, (example,)), content)
        return content.getvalue()

    monkeypatch.setitem(FORMATS, "torch", dataclasses.replace(FORMATS["torch"], write=write))
    before = files(write_weights(tmp_path))
    assert "cannot run what was exported" in refused("export mine --format torch", tmp_path)
    assert files(tmp_path) == before


def test_what_the_exporter_does_not_know_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.networks.mixers.s2_shift.s2_shift", lambda x: x.roll(int(x.sum()), 1))  # what it does hangs on what it sees
    assert "data-dependent" in refused("export mine --format torch", write_weights(tmp_path))


def test_the_same_again_is_no_mistake_another_network_is_and_a_card_changed_by_hand_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "torch", quick())
    write_weights(tmp_path)
    succeed("export mine --format torch", tmp_path)
    card = tmp_path / "runs/mine/mine.pt2.md"
    card.write_text(card.read_text() + "CC0\n")
    before = files(tmp_path)
    assert "kept" in succeed("export mine --format torch", tmp_path)
    assert files(tmp_path) == before
    write_weights(tmp_path, seed=1)
    before = files(tmp_path)
    assert "another network" in refused("export mine --format torch", tmp_path)
    card.unlink()
    assert "mine.pt2: another file is there" in refused("export mine --format torch", tmp_path)
    assert files(tmp_path) == {name: content for name, content in before.items() if not name.endswith(".md")}


def test_random_weights_are_said_to_be_and_are_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setitem(FORMATS, "torch", quick(lambda logits: made.append(logits) or logits))  # type: ignore[func-returns-value]
    write_architecture(tmp_path / "mine.yaml", dataclasses.replace(ARCHITECTURE, frame=Frame(16, 2, 3)), {}, "")
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert "random" in succeed("export mine.yaml --format torch", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    said = json.loads((tmp_path / "mine.pt2").read_text())
    assert said["weights"] == "random" and "mean" not in said and "random: not trained" in (tmp_path / "mine.pt2.md").read_text()
    torch.manual_seed(2)
    succeed("export mine.yaml --format torch", tmp_path)
    assert torch.equal(torch.cat(made[:2]), torch.cat(made[2:]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("export mine --format onnx --output here.pt2", ("here.pt2", ".onnx")),
        ("export mine --format tensorrt", ("tensorrt", "onnx", "torch")),
        ("export as_mlp_tt", ("as_mlp_tt", "Did you mean 'as_mlp_t'")),
        ("export mien", ("mien", "Did you mean 'mine'")),
        ("export runs/none/weights.safetensors", ("no such file",)),
        ("export runs/empty", ("empty/weights.safetensors", "Retrain")),
        ("export none.yaml", ("none.yaml", "no such file")),
        ("export broken.safetensors", ("broken.safetensors", "damaged")),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(line: str, words: tuple[str, ...], tmp_path: Path) -> None:
    write_weights(tmp_path)
    (tmp_path / "runs/empty").mkdir()
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / WEIGHTS).read_bytes()[:-7])
    before = files(tmp_path)
    error = refused(line, tmp_path)
    assert all(word in error for word in words), error
    assert files(tmp_path) == before


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == missing else find(name, *more))
    error = refused("export mine", write_weights(tmp_path))
    assert f"got no {missing};" in error and "pip install" in error and "[onnx]" in error


# ------------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_images_of_the_check_differ_and_are_as_the_network_takes_them(channels: int) -> None:
    images = photographs(Network(dataclasses.replace(ARCHITECTURE, frame=Frame(32, channels, 3))), 4)
    assert images.shape == (4, channels, 32, 32) and images.dtype == torch.float32
    assert 0.2 < images.std() < 2 and all(torch.cdist(images.flatten(1), images.flatten(1))[~torch.eye(4, dtype=torch.bool)] > 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_every_published_network_is_equal_in_onnx(name: str) -> None:
    """With layer scales that let every mixer be heard, which a millionth does not."""
    origin = open_origin(name)
    torch.manual_seed(0)
    shaken(origin.network)
    exporting.export(origin, FORMATS["onnx"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["as_mlp_mobile", "mixer_s_32", "resmlp_s12", "s2_mlp_wide", "s2_mlpv2_small_14", "spach_hybrid_ms_xs_", "vip_small_14"]
)
def test_a_published_network_of_each_system_is_equal_in_torch(name: str) -> None:
    origin = open_origin(name)
    torch.manual_seed(0)
    shaken(origin.network)
    exporting.export(origin, FORMATS["torch"])
