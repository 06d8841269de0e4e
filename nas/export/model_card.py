"""The card beside an exported network: what it is, what it costs, where its weights come from, how it is used. Markdown, in one small file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nas.cost import cost
from nas.export.exporting import BATCHES, ROUNDINGS, TOLERANCE, Format
from nas.export.origin import Origin, in_words
from nas.export.torch_file import METADATA
from nas.networks.onnx_model import INPUT, OUTPUT
from nas.published.presets import preset_names, read_preset
from nas.quantities import format_quantity
from nas.reporting.drawings import as_text, key_of
from nas.runs.folder import Run, told_beside
from nas.runs.records import Begun, read_found, read_record, read_search, read_training

CLASSES = 10  # so many are named; the file has all

LOADS = {
    ".onnx": f"""import onnxruntime
session = onnxruntime.InferenceSession("{{name}}")
({OUTPUT},) = session.run(None, {{{{"{INPUT}": images}}}})  # NumPy float32 {{shape}} to [batch, {{classes}}]""",
    ".pt2": f"""import torch
network = torch.export.load("{{name}}").module()
{OUTPUT} = network({INPUT})  # float32 {{shape}} to [batch, {{classes}}]""",
}
METADATA_OF = {
    ".onnx": "`session.get_modelmeta().custom_metadata_map`, each value as JSON",
    ".pt2": f'`files = {{"{METADATA}": ""}}; torch.export.load(..., extra_files=files)`, as JSON',
}


def model_card(origin: Origin, format: Format, target: Path) -> str:
    """The card of what is exported to `target`.

    Raises:
        ValueError: a record beside the weights is damaged.
    """
    network = origin.network
    architecture, frame = network.architecture, network.architecture.frame
    shape = f"[batch, {frame.channels}, {frame.resolution}, {frame.resolution}]"
    load = LOADS[format.suffix].format(name=target.name, shape=shape, classes=frame.classes)
    rows = {
        "file": f"`{target.name}`: {format.about}, float32, any batch",
        "architecture": f"`{architecture.key}`",
        "costs": ", ".join(format_quantity(name, value) for name, value in cost(architecture)._asdict().items()) + " for one image",
        "classes": _classes(origin),
        **dict(provenance(origin)),
        "checked": f"run in {format.runtime} with {' and '.join(map(str, BATCHES))} photographs at a time: equal to the network within {TOLERANCE:g} "
        f"of the largest logit, or {ROUNDINGS} times its own rounding error in float32",
    }
    lines = [f"# {origin.name}", "", "| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())]
    lines += ["", "## Network", "", "```text", *as_text(architecture, colored=False), key_of([architecture], colored=False), "```"]
    lines += ["", "## Use", "", "```python", load, "```", "", f"Images: {in_words(network)}"]
    lines += ["", f"The file holds all of this too: {METADATA_OF[format.suffix]}."]
    lines += ["", "## Licence", "", "Not said. Write here under which licence the weights may be used; the images' may matter for it.", ""]
    return "\n".join(lines)


def _classes(origin: Origin) -> str:
    names, number = origin.network.classes, origin.network.architecture.frame.classes
    return f"{number}: {'; '.join(names[:CLASSES])}{'; ...' * (number > CLASSES)}" if names else f"{number}, not named"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def provenance(origin: Origin) -> Iterator[tuple[str, str]]:
    """Where the weights come from and how accurate they are, as far as the records beside them tell."""
    if origin.digest is None:
        yield "weights", "random: not trained"
        if origin.name in preset_names():
            published = read_preset(origin.name).published
            yield "published", f"{published.name} ({published.system}); its paper's weights reach {published.top1 or '?'}% on ImageNet-1k"
        return
    yield "weights", f"`{origin.path.name}`, SHA-256 {origin.digest}..."
    folder, told = origin.path.parent, told_beside(origin.path)
    if told.exists() and told.stem == "result":
        trained = read_training(told)
        yield from _training(trained)
        result = trained.result
        yield "trained for", f"{result.epochs:g} epochs, {result.steps:,} steps"
        yield "accuracy", f"{result.test_accuracy:.2%} of {result.test_images:,} test images"
    elif told.exists():
        winner = read_search(told)
        yield from _training(winner)
        yield "chosen by", f"a search under {' and '.join(winner.budgets)}; the weights are a supernet's, not yet trained alone"
        if winner.found.accuracy_at_once is not None:
            yield "accuracy", f"{winner.found.accuracy_at_once:.2%} of {winner.found.held_out_images:,} held-out images"
    elif (folder / "run.yaml").exists() and (imported := read_record(Run(folder.resolve().name, folder.resolve().parent)).imported):
        published = read_preset(imported.preset).published
        yield "imported", f"{published.name} ({published.system}), from `{Path(imported.file).name}`, SHA-256 {imported.sha256[:12]}..."
        if published.top1:
            yield "published accuracy", f"{published.top1}% on ImageNet-1k, by its paper; not measured here"
    yield from _evaluations(origin)


def _training(record: Begun) -> Iterator[tuple[str, str]]:
    resolution = f" at {record.resolution} px" if record.resolution else ""
    yield "data", f"{Path(record.data).name if record.data else 'digits'}{resolution} (fingerprint {record.data_fingerprint})"
    yield "recipe", f"{Path(record.recipe).stem if record.recipe else '?'}, seed {record.seed}"


def _evaluations(origin: Origin) -> Iterator[tuple[str, str]]:
    """What `evaluate` found of these weights."""
    for path in sorted(origin.path.parent.glob("evaluation-*.json")):
        found = read_found(path, "settings", "accuracy", "images")
        settings = found["settings"]
        if settings["weights_digest"] == origin.digest:
            yield "evaluated", f"{found['accuracy']:.2%} of {found['images']:,} images of {settings['data']}, {settings['split']}"
