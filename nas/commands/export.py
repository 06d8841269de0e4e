"""`export`: a network as a file for other programs, and a card beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.commands.options import option

if TYPE_CHECKING:
    from nas.export.exporting import Format
    from nas.export.origin import Origin

FORMATS = ("onnx", "torch")


@click.command(short_help="Write a network as ONNX or torch.export.")
@click.argument("file", metavar="FILE")
@option("--format", "FORMAT", "onnx (default), or torch: a .pt2 file.", type=click.Choice(FORMATS), default="onnx")
@option("--output", "PATH", "Where to (default: beside the weights; here, where FILE is an architecture).", type=click.Path(path_type=Path))
def export(file: str, format: str, output: Path | None) -> int:
    """Write a network as a file that other programs open, and a card beside it that says what it is.

    FILE is a file of weights, the name or folder of a run, an architecture file, or a published network's name; of the last two the weights are
    random. What was written is run before the command says that it is done, and its answers compared with the network's. Class names, mean and
    deviation are in the file. Nothing is overwritten.
    """
    from nas.export.exporting import BATCHES, FORMATS
    from nas.export.exporting import export as exported_of
    from nas.export.model_card import model_card
    from nas.export.origin import open_origin
    from nas.yaml_files import write_atomically

    chosen = FORMATS[format]
    chosen.check_installed()
    origin = open_origin(file)
    target = _target(origin, chosen, output)
    text = model_card(origin, chosen, target).encode()
    card = target.with_name(f"{target.name}.md")
    kept = _kept(card, text, origin)
    frame = origin.network.architecture.frame
    if origin.digest is None:
        print(f"{origin.path} is an architecture: the weights are random, for timing and trying out. Export what retrain wrote for others.")
    print(f"{chosen.about}; images [batch, {frame.channels}, {frame.resolution}, {frame.resolution}], any batch.", flush=True)
    checked = exported_of(origin, chosen)
    print(
        f"Checked in {chosen.runtime} with {' and '.join(map(str, BATCHES))} images at a time: largest difference {checked.difference:.1e} of logits "
        f"up to {checked.largest:.3g} (accepted: {checked.accepted:.1e})."
    )
    if target.exists() and target.read_bytes() != checked.content:
        raise ValueError(
            f"{target}: another file is there: got {file} to write; accepted: a new name. Give another --output, or remove it."
        )
    write_atomically(target, checked.content)
    if not kept:
        write_atomically(card, text)
    print(f"Written to {target} ({len(checked.content) / 1e6:.1f} MB)")
    print(f"Card:      {card}{', kept as it was' if kept else ''}")
    return 0


def _target(origin: Origin, format: Format, output: Path | None) -> Path:
    name = f"{origin.name}{format.suffix}"
    if output is None:
        return origin.path.parent / name if origin.digest else Path(name)
    if output.is_dir():
        return output / name
    if output.suffix != format.suffix:
        raise ValueError(
            f"--output {output}: got the ending {output.suffix or 'none'!r}; accepted: {format.suffix}, or a folder. Change the ending, or --format."
        )
    return output


def _kept(card: Path, text: bytes, origin: Origin) -> bool:
    """Whether there is a card of this network that was changed by hand; a card of another one is a ValueError."""
    if not card.exists() or (there := card.read_bytes()) == text:
        return False
    if all(each.encode() in there for each in (origin.network.architecture.key, origin.digest or "random")):
        return True
    raise ValueError(f"{card}: the card of another network: got {origin.path}; accepted: a new name. Give another --output, or remove it.")
