"""Files that somebody made to do harm: nothing in them is executed, and nothing is written outside the folder that one works in.

Whatever would execute something makes a file `executed`; the tests look for it, and for every file beside the working folder.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command_line import run, succeed
from endings import RECIPE, SPACE
from faults import happened
from image_files import random_image, write_folder

EVIL = [
    "../../../outside",
    "<script>alert('x')</script>",
    "a\nb: !!python/object/apply:os.system [touch executed]",
    "=HYPERLINK(`touch executed`)",
]
WITH = "--device cpu --recipe plain.yaml --space tiny.yaml --loaders 0"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "executed")

    def __reduce__(self) -> Any:
        return os.mkdir, (self._path,)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working folder, with nothing beside it."""
    folder = tmp_path / "a/b/here"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(SPACE.replace("channels: 1", "channels: 3"))
    (folder / "plain.yaml").write_text(RECIPE.replace("steps: 30", "steps: 2").replace("trials: 12", "trials: 3"))
    return folder


def assert_no_harm(here: Path, fault: str, outcome: str) -> None:
    outside = [path for path in here.parents[1].rglob("*") if here not in path.parents and path not in (here, here.parent)]
    assert not outside and not list(here.rglob("executed")) and not Path("executed").exists()
    happened("malicious files", fault, outcome)


def write_rows(
    folder: Path, names: list[str], change: Callable[[pa.Table], pa.Table] = lambda table: table, path: str | None = None
) -> None:
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 48), ("test", 12)):
        images = []
        for seed in range(count):
            buffer = io.BytesIO()
            random_image(seed, (16, 16)).save(buffer, "PNG")
            images.append({"bytes": None if path else buffer.getvalue(), "path": path or f"../../outside{seed}.png"})
        features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = pa.table({"img": images, "label": [seed % len(names) for seed in range(count)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(change(table), folder / f"{split}.parquet")


@pytest.mark.whole
def test_names_of_classes_and_images_lead_nowhere_and_are_shown_as_text(here: Path) -> None:
    rows = "<img src=x onerror=alert(1)>"
    write_rows(here / rows, EVIL)
    succeed(f"search {WITH} --data '{rows}' --budget 250kMACs --run found", here)
    succeed("retrain runs/best.yaml --device cpu --recipe plain.yaml --loaders 0 --steps 2 --run trained", here)
    assert "alert" in succeed(f"evaluate trained --data '{rows}' --device cpu", here), "the names are those that are shown"
    for name in ("found", "trained"):
        succeed(f"report {name}", here)
        page = (here / "runs" / name / "report.html").read_text()
        assert "<script>alert" not in page and "<img src=x" not in page and "&lt;img src=x" in page
    assert_no_harm(here, "names of classes and images in Parquet files", "text, and nothing else")


def extension(here: Path) -> Callable[[pa.Table], pa.Table]:
    """A column of a type that pickles itself, as Arrow's Python types did."""

    def change(table: pa.Table) -> pa.Table:
        about = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Payload(here))}
        return table.cast(pa.schema([table.schema.field(0), table.schema.field(1).with_metadata(about)], table.schema.metadata))

    return change


def features(kind: str) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        told = {"img": {"_type": "Image"}, "label": {"_type": kind, "names": ["a", "b"], "args": ["touch executed"], "id": "../../x"}}
        return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": told}})})

    return change


@pytest.mark.parametrize("kind", ["pickled type", "os.system", "__import__", "PdfFile", "no JSON"])
def test_what_a_parquet_file_says_of_its_columns_is_not_executed(kind: str, here: Path) -> None:
    changes = {"pickled type": extension(here), "no JSON": lambda table: table.replace_schema_metadata({"huggingface": "{" * 10_000})}
    write_rows(here / "rows", ["a", "b"], changes.get(kind) or features(kind))
    outcome = run(f"train {WITH} --data rows --run found", here)
    assert outcome.status in (0, 2) and "Traceback" not in outcome.err, outcome
    assert_no_harm(here, f"columns of a Parquet file: {kind}", "refused" if outcome.status else "not heeded")


@pytest.mark.parametrize("where", ["absolute", "relative", "by a link"])
def test_a_row_reads_an_image_below_the_folder_of_its_set_and_none_elsewhere(where: str, here: Path) -> None:
    private = here / "private.png"
    random_image(0, (16, 16)).save(private)
    path = {"absolute": str(private), "relative": "../private.png", "by a link": "link.png"}[where]
    write_rows(here / "rows", ["a", "b"], path=path)
    (here / "rows/link.png").symlink_to(private)
    outcome = run(f"train {WITH} --data rows --run found", here)
    assert outcome.status == 2 and len(outcome.err.splitlines()) == 1 and "not below the folder of the set" in outcome.err, outcome
    assert_no_harm(here, "rows of a Parquet file that name other files", "refused")
    if where == "relative":
        private.rename(here / "rows/own.png")
        write_rows(here / "others", ["a", "b"], path="../rows/own.png")
        write_rows(here / "rows", ["a", "b"], path="own.png")
        assert run(f"train {WITH} --data others --run other", here).status == 2
        succeed(f"train {WITH} --data rows --run own", here)


def test_names_in_a_tar_file_lead_nowhere(here: Path) -> None:
    write_folder(here / "plain images")
    (here / "tars").mkdir()
    for split in ("train", "val"):
        with tarfile.open(here / "tars" / f"{split}.tar", "w") as archive:
            for name in ("ant", "bee"):
                for number, path in enumerate(sorted((here / "plain images" / split / name).iterdir())):
                    archive.add(path, arcname=f"{'../../..' if number % 2 else str(here.parents[1])}/outside/{name}/{number}.png")
    outcome = run(f"train {WITH} --data tars --run found", here)
    assert outcome.status in (0, 2) and "Traceback" not in outcome.err, outcome
    assert_no_harm(here, "names in a tar file", "refused" if outcome.status else "read in place")


@pytest.mark.parametrize("file", ["supernet.pt", "checkpoint.pt", "weights.safetensors"])
def test_a_checkpoint_that_would_execute_something_is_named_and_not_opened(file: str, here: Path) -> None:
    write_folder(here / "images")
    line = f"train {WITH} --data images --run found"
    if file == "checkpoint.pt":
        line = f"retrain {Path(__file__).parents[1]}/search_spaces/presets/as_mlp_t.yaml --device cpu --data images --resolution 32 --batch-size 8 --steps 1 --loaders 0 --run found"
    folder = here / "runs/found"
    folder.mkdir(parents=True)
    torch.save({"identity": "x", "step": 1, "model": Payload(here)}, folder / file)
    if file == "weights.safetensors":
        line = "predict runs/found/weights.safetensors images/train/ant --device cpu"
    outcome = run(line, here)
    assert outcome.status == 2 and file in outcome.err.splitlines()[-1], outcome
    assert_no_harm(here, f"a pickle in {file}", "refused")


@pytest.mark.parametrize("option", ["space", "recipe", "FILE"])
def test_a_tag_in_any_yaml_file_is_refused(option: str, here: Path) -> None:
    evil = "format: search space 1\na: !!python/object/apply:os.mkdir [executed]\n"
    (here / "evil.yaml").write_text(evil)
    line = (
        "retrain evil.yaml"
        if option == "FILE"
        else f"train {WITH} --data digits".replace({"space": "tiny", "recipe": "plain"}[option], "evil")
    )
    outcome = run(line, here)
    assert outcome.status == 2 and "tags are not accepted" in outcome.err, outcome
    assert_no_harm(here, f"a tag in a YAML file ({option})", "refused")


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".", "a/../../x", "x\ny", "~", "-x", "x" * 300, "runs/../../x"])
def test_no_name_of_a_run_leads_out_of_runs(name: str, here: Path) -> None:
    write_folder(here / "images")
    for line in (f"train {WITH} --data images", "retrain as_mlp_t --data images --device cpu", "import-weights as_mlp_t tiny.yaml"):
        words = line.split()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shlex.split", lambda _, words=words: [*words, f"--run={name}"])
            outcome = run("", here)
        assert outcome.status == 2 and "Traceback" not in outcome.err, outcome
    assert_no_harm(here, "names of runs", "refused")
