"""How often a fault was made to happen, and how it ended: tests write it where `NAS_FAULTS` names a file, which `docs/results.md` shows."""

from __future__ import annotations

import json
import os
from pathlib import Path


def happened(fault: str, command: str, outcome: str, times: int = 1) -> None:
    """Adds to the list in the file; the same fault, command and outcome are counted together."""
    if not (name := os.environ.get("NAS_FAULTS")):
        return
    path = Path(name)
    told = json.loads(path.read_text()) if path.exists() else []
    line = {"fault": fault, "command": command, "outcome": outcome}
    same = next((each for each in told if line.items() <= each.items()), None)
    if same is None:
        told.append(same := {**line, "times": 0})
    same["times"] += times
    path.write_text(json.dumps(sorted(told, key=lambda each: (each["fault"], each["command"], each["outcome"])), indent=1) + "\n")
