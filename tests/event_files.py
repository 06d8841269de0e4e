"""What TensorBoard would show of a run."""

from __future__ import annotations

from pathlib import Path


def events(folder: Path) -> dict[str, dict[int, float]]:
    """The scalars of event files, by name and step: TensorFlow's records are a length, its checksum, the event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += 16 + length
    return found
