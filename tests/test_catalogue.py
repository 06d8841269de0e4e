"""Published networks in the commands: listed, counted, retrained, searched from, held against a winner; their original weights taken over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import refused, run, succeed
from PIL import Image
from recording import recording, write_images
from studies import stored

from nas.cost import cost
from nas.networks.architecture import FORMAT, read_architecture
from nas.networks.trained import load_network
from nas.networks.weight_files import load_weights, save_weights
from nas.published.presets import preset_names
from nas.quantities import parse_budgets
from nas.runs.folder import Run
from nas.searching import candidates
from nas.searching.comparison import PRESET, contestants
from nas.searching.finals import Finals
from nas.searching.ray_cluster import Crew
from nas.searching.search import SearchRequest
from nas.spaces.decisions import SearchSpace
from nas.yaml_files import read_yaml, write_yaml

# At 224 px as large as SPACH-Conv-MS-XXS (712 MMACs, 5.1 Mparams), so that published networks fall into its budgets.
SPACE = """
format: search space 1
frame: {resolution: 224, channels: 3, classes: 1000}
patch: 4
merge: conv_norm
layer_scale_init: 1e-4
stages:
  - {width: [32, 64], depth: 2, mixer: none, mlp_ratio: 2, cpe: true}
  - {width: [64, 128], depth: [1, 2], mixer: [none, attention], heads: 1, mlp_ratio: 2, cpe: true}
  - {width: [128, 256], depth: [1, 6], mixer: [none, attention], heads: 1, mlp_ratio: 2, cpe: true}
  - {width: [256, 512], depth: [1, 2], mixer: [none, attention], heads: 1, mlp_ratio: 2, cpe: true}
"""
SEARCH = "search --space xxs.yaml --smoke --steps 2 --budget 750MMACs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "xxs.yaml").write_text(SPACE)
    return tmp_path


# ------------------------------------------------------------------------------------------------------- lists and counts


def test_presets_lists_all_with_their_counts(folder: Path) -> None:
    listed = json.loads(succeed("presets --json", folder))
    assert {each["name"] for each in listed} == set(preset_names())
    assert len(listed) == 55
    (one,) = (each for each in listed if each["name"] == "as_mlp_t")
    assert (one["params"], one["macs"]) == (28282696, 4350425088)
    table = succeed("presets", folder)
    assert all(re.search(rf"^{re.escape(each['name'])} +{each['params']:,} +{each['macs']:,} ", table, re.M) for each in listed)


def test_profile_counts_a_published_network_by_name(folder: Path) -> None:
    counts = json.loads(succeed("profile as_mlp_t --json", folder))
    assert (counts["params"], counts["macs"]) == (28282696, 4350425088)
    assert sum(part["params"] for part in counts["parts"].values()) == counts["params"]
    text = succeed("profile spach_hybrid_ms_s_", folder)
    assert "stem conv4" in text and "none x2 attention x10 (mlp_ratio 3, heads 4, cpe)" in text


@pytest.mark.parametrize(
    "command", ["profile as_mlp_tt", "retrain as_mlp_tt", f"{SEARCH} --start as_mlp_tt", "import-weights as_mlp_tt x.pth"]
)
def test_a_misspelt_name_gets_the_nearest(folder: Path, command: str) -> None:
    assert "'as_mlp_tt'" in (said := refused(command, folder)) and "Did you mean 'as_mlp_t'?" in said
    assert not (folder / "runs").exists()


# --------------------------------------------------------------------------------------------------- training and search


def test_retrain_trains_a_published_network(folder: Path) -> None:
    assert "Test accuracy" in succeed("retrain spach_trans_ms_xxs --smoke --steps 2", folder)
    (weights,) = folder.glob("runs/*/weights.safetensors")
    network = load_network(weights)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "resolution", "said"),
    [
        ("vip_small_7", 70, "permute: the sides of the grid must divide the width: got width 192 on a grid of 10x10"),
        ("as_mlp_t", 48, "resolution 48: not a multiple of the network's stride 32"),
    ],
)
def test_a_resolution_that_the_mixers_cannot_take_is_named(folder: Path, name: str, resolution: int, said: str) -> None:
    assert said in refused(f"retrain {name} --smoke --resolution {resolution}", folder)
    assert not (folder / "runs").exists()


@pytest.mark.whole
def test_a_search_begins_with_what_it_is_given_and_with_the_published_networks_of_its_space(folder: Path) -> None:
    architecture, _ = read_architecture(Path(__file__).parents[1] / "search_spaces" / "presets" / "spach_trans_ms_xxs.yaml")
    write_yaml(folder / "mine.yaml", {"format": FORMAT, "architecture": architecture.to_dict()})
    out = succeed(f"{SEARCH} --start mine.yaml", folder)
    assert "Starting with networks that the space contains: mine.yaml, spach_conv_ms_xxs." in out  # the first is the second published one
    (database,) = folder.glob("runs/*/study.db")
    with stored(database) as study:
        assert study.study_name != "750MMACs-evolution", "another start is another study"
        macs = {trial.user_attrs.get("origin"): trial.values[1] for trial in study.trials[:2]}
    assert macs == {"mine.yaml": 530039296, "spach_conv_ms_xxs": 712358912}


@pytest.mark.parametrize(
    ("start", "budget", "said"),
    [
        ("as_mlp_t", "750MMACs", "--start as_mlp_t: xxs.yaml: architecture be854c8580b3 is not in the space"),
        ("spach_conv_ms_xxs", "600MMACs", "--start spach_conv_ms_xxs: over budget: got 1.19 times"),
    ],
)
def test_a_start_outside_the_space_or_the_budget_is_refused(folder: Path, start: str, budget: str, said: str) -> None:
    assert said in refused(f"search --space xxs.yaml --smoke --budget {budget} --start {start}", folder)
    assert not (folder / "runs").exists()


@pytest.mark.whole
def test_published_networks_of_the_same_budget_are_baselines(folder: Path) -> None:
    succeed(SEARCH, folder)
    (baselines,) = folder.glob("runs/*/baselines/*")
    names = {path.stem for path in baselines.glob("*.yaml")}
    published = names & set(preset_names())
    assert published == {"spach_conv_ms_xxs"}  # 712 of 750 MMACs; the next are 530 and 904
    _, entries = read_architecture(baselines / "spach_conv_ms_xxs.yaml")
    assert entries["costs"]["macs"] == 712358912 and entries["found"] == {"preset": "spach_conv_ms_xxs"}
    assert "Test accuracy" in succeed(f"retrain {baselines / 'spach_conv_ms_xxs.yaml'} --smoke --steps 2", folder)


@pytest.fixture(scope="module")
def xxs(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    path = tmp_path_factory.mktemp("xxs") / "xxs.yaml"
    path.write_text(SPACE)
    return SearchSpace.read(path)


def test_published_networks_that_fit_are_finalists_drawn_by_hand(xxs: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that the space does not have, which has no score by the supernet, and no weights to be kept."""
    monkeypatch.setattr(candidates, "DRAWN", 3)
    outside = read_architecture(Path(__file__).parents[1] / "search_spaces/presets/spach_mlp_ms_xxs.yaml")[0]
    budgets = parse_budgets(["1GMACs"])
    assert 0.5 < cost(outside).macs / 1e9 < 1 and not candidates.in_space(xxs, outside)
    opened: Any = SimpleNamespace(space=xxs, setting=SimpleNamespace(frame=xxs.frame))
    request = SearchRequest(budgets, 0, 2, floor=0.5)
    looks = candidates.Looks(Run("r", tmp_path), "s", budgets, lambda _: {}, lambda: False)
    those = {each.origin: each for each in candidates.candidates(opened, request, 3, (), None, looks).by_hand}
    assert those["spach_mlp_ms_xxs"].by_hand and those["spach_mlp_ms_xxs"].key == outside.key and {"none", "attention"} <= those.keys()
    finals = Finals(opened, "s", request, 3, Crew(), looks)
    nobody: Any = None
    assert finals.keep(nobody, those["spach_mlp_ms_xxs"], tmp_path / "kept.safetensors") is None and not list(tmp_path.iterdir())


def test_published_networks_that_fit_are_compared(xxs: SearchSpace) -> None:
    winner: Any = SimpleNamespace(architecture=xxs.decode({name: options[0] for name, options in xxs.decisions.items()}))
    found = contestants(winner, xxs, parse_budgets(["750MMACs"]), 0.8, xxs.frame, (0, 0))
    assert {name: kind for each in found for name, kind in each.names.items()}["spach_conv_ms_xxs"] == PRESET


# ------------------------------------------------------------------------------------------------------- original weights


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """timm's Mixer-S/32 with random weights, its head too (it begins with zeros), and its file."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("mixer_s32_224", pretrained=False).eval()
    torch.nn.init.normal_(model.head.weight)
    path = tmp_path_factory.mktemp("original") / "mixer_s32.pth"
    torch.save(model.state_dict(), path)
    return model, path


def test_import_weights_gives_the_originals_logits(folder: Path, original: tuple[torch.nn.Module, Path]) -> None:
    model, path = original
    out = succeed(f"import-weights mixer_s_32 {path}", folder)
    weights = folder / "runs/import-mixer_s_32/weights.safetensors"
    assert "19,104,624 parameters" in out and str(weights.relative_to(folder)) in out
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        # float32: the patches are multiplied in another order
        torch.testing.assert_close(load_network(weights)(images), model(images), rtol=1e-4, atol=1e-4)
    assert out.splitlines()[-1] == f"Next: python launch.py predict {weights.relative_to(folder)} IMAGE"
    begun = read_yaml(folder / "runs/import-mixer_s_32/run.yaml")
    assert begun["import"]["preset"] == "mixer_s_32" and len(begun["import"]["sha256"]) == 64


def test_imported_weights_know_their_images_and_classes(folder: Path, original: tuple[torch.nn.Module, Path]) -> None:
    import timm.data

    model, path = original
    out = succeed(f"import-weights mixer_s_32 {path}", folder)
    assert "Images:  224 px, the middle 87.5%, bicubic, mean 0.5 0.5 0.5, deviation 0.5 0.5 0.5\n" in out
    network = load_network(folder / "runs/import-mixer_s_32/weights.safetensors")
    assert len(set(network.classes)) == 1000 and network.classes[207] == "golden retriever"
    picture = Image.effect_mandelbrot((500, 400), (-2, -1.5, 1, 1.5), 100).convert("RGB")
    theirs = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))(picture)
    assert network.preprocess is not None
    torch.testing.assert_close(network.preprocess(picture), theirs, atol=2.1 / 255, rtol=0)  # a level, where rounding tips over


@pytest.mark.whole
def test_a_training_goes_on_from_imported_weights_by_the_name_of_their_run(folder: Path, original: tuple[torch.nn.Module, Path]) -> None:
    """Their mixers are made for a grid: the message says which resolution, and with it the training begins with all but the head."""
    succeed(f"import-weights mixer_s_32 {original[1]}", folder)
    imported = load_network(folder / "runs/import-mixer_s_32/weights.safetensors").state_dict()
    write_images(folder / "images")
    command = "retrain mixer_s_32 --data images --device cpu --steps 1 --batch-size 2 --init import-mixer_s_32 --run tuned"
    told = refused(command, folder)
    assert "--resolution 224" in told, told
    with recording() as seen:
        said = succeed(f"{command} --resolution 224", folder)
    assert "but for the head, for 4 classes instead of 1000" in said and "a tenth of the recipe's" in said
    same = {name for name, tensor in seen.initial.items() if tensor.shape == imported[name].shape and torch.equal(tensor, imported[name])}
    assert imported.keys() - same == {"head.fc.weight", "head.fc.bias", "stem.patch_embed.weight"}, "grey images: the stem's is summed"


def test_weights_imported_by_an_earlier_version_are_given_their_images(folder: Path, original: tuple[torch.nn.Module, Path]) -> None:
    _, path = original
    succeed(f"import-weights mixer_s_32 {path}", folder)
    weights = folder / "runs/import-mixer_s_32/weights.safetensors"
    tensors, metadata = load_weights(weights)
    save_weights(weights, tensors, {"architecture": metadata["architecture"]})
    assert "imported before" not in succeed(f"import-weights mixer_s_32 {path}", folder)
    network = load_network(weights)
    assert network.preprocess is not None and network.classes and torch.equal(network.head.fc.bias, tensors["head.fc.bias"])


def test_import_weights_overwrites_nothing(folder: Path, original: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    _, path = original
    succeed(f"import-weights mixer_s_32 {path}", folder)
    weights = folder / "runs/import-mixer_s_32/weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert "imported before" in succeed(f"import-weights mixer_s_32 {path}", folder)
    state = torch.load(path, weights_only=True)
    state["head.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    assert "weights of another file" in refused("import-weights mixer_s_32 other.pth", folder)
    assert weights.stat().st_mtime_ns == before
    succeed("import-weights mixer_s_32 other.pth --run other", folder)
    assert torch.equal(load_network(folder / "runs/other/weights.safetensors").head.fc.bias, state["head.bias"])


def test_a_checkpoint_of_another_network_or_half_a_file_is_refused(folder: Path, original: tuple[torch.nn.Module, Path]) -> None:
    _, path = original
    assert "mixer_s32.pth" in (said := refused(f"import-weights mixer_s_16 {path}", folder)) and "stem.proj.weight" in said
    (folder / "half.pth").write_bytes(path.read_bytes()[:1_000_000])
    assert "half.pth" in refused("import-weights mixer_s_32 half.pth", folder)
    assert "no such file" in refused("import-weights mixer_s_32 nowhere.pth", folder)
    assert "no official code" in refused(f"import-weights s2_mlp_wide {path}", folder)
    assert not (folder / "runs").exists()


def test_load_network_names_a_file_that_is_not_a_networks(tmp_path: Path) -> None:
    save_weights(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match=r"other\.safetensors: no architecture in its metadata"):
        load_network(tmp_path / "other.safetensors")


def test_no_command_is_silent_about_its_use() -> None:
    for command in ("presets", "import-weights", "profile"):
        assert run(f"{command} --help", Path.cwd()).status == 0
