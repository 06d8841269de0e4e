"""The ladder of a search as raw figures: each finalist, its costs, its scores and its accuracies alone epoch by epoch.

    python benchmarks/ladder.py RUN docs/results/search-cifar10-5MMACs.json

The run has ended; of several searches it is the last that has a winner.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nas.cost import cost
from nas.runs.folder import run_folder
from nas.searching.finalist_study import Climber
from nas.searching.story import Story, read_story


def figures(story: Story) -> dict[str, Any]:
    search = [each for each in story.searches.values() if each.winner and each.ladder][-1]
    assert search.winner
    epochs = search.winner.found.epochs_alone or 0.0
    rows = [_row(each, search.ladder[0].trained.steps / epochs) for each in search.ladder]  # the winner came to the end
    made = [each for each in story.told.record.invocations if each.command and " search " in each.command][-1]
    settings = {
        "command": f"python {made.command}", "revision": made.revision[:7], "seed": search.winner.seed,
        "held_out_images": search.winner.found.held_out_images, "epochs": epochs, "chosen": search.winner.architecture.key,
        "epochs_in_all": sum(epochs if row["accuracy"] is not None else max(map(float, row["rungs"]), default=0.0) for row in rows),
    }  # fmt: skip
    return {"settings": settings, "finalists": rows}


def _row(each: Climber, length: float) -> dict[str, Any]:
    """`length` are the steps of an epoch."""
    trained, counted = each.trained, cost(each.architecture)
    return {
        "key": each.architecture.key, "origin": each.origin, "architecture": each.architecture.to_dict(), "macs": counted.macs,
        "params": counted.params, "supernet": each.supernet, "fine_tuned": each.fine_tuned,
        "rungs": {f"{step / length:.3g}": accuracy for step, accuracy in trained.rungs},
        "accuracy": trained.ended.accuracy if trained.ended else None,
    }  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("run")
    asked.add_argument("file", type=Path)
    given = asked.parse_args()
    found = figures(read_story(run_folder(given.run)))
    given.file.write_text(json.dumps(found, separators=(",", ":")).replace('},{"key"', '},\n{"key"') + "\n", encoding="utf-8")
    print(f"{len(found['finalists'])} finalists, {found['settings']['epochs_in_all']} epochs in all; written to {given.file}")


if __name__ == "__main__":
    main()
