"""Which rates and batches suit a recipe's retraining: networks trained alone by each, and judged on held-out images.

    python benchmarks/rates.py FILE --data PATH [--folder FOLDER] [--networks FILE] NETWORK:BATCH:RATE[:seed=N][:epochs=N] ...

NETWORK is a YAML file, or a name in `--networks`, a file of `compare` (a list "networks" of {name, architecture}). Each is trained for the recipe's whole
length on all training images but the held-out ones, by the recipe's own curve, or, with `epochs`, as finalists are: at a constant rate. What is
trained already in FOLDER is not trained again, and what was interrupted goes on. FILE gets a line of JSON for each. Two lists may
run beside each other where they have no training in common.
"""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

from nas.networks.architecture import Architecture, read_architecture
from nas.runs.folder import provenance
from nas.runs.interrupt import Stopped
from nas.searching.trained_alone import Alone
from nas.training.given import Given
from nas.training.setting import open_setting

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("trainings", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="cifar_cpu")
    parser.add_argument("--folder", type=Path, default=Path("rates"))
    parser.add_argument("--networks", type=Path, default=RESULTS / "comparison-cifar10-5MMACs.json")
    options = parser.parse_args()
    entries = json.loads(options.networks.read_text(encoding="utf-8"))["networks"]
    networks = {each["name"]: Architecture.from_dict(each["architecture"], each["name"]) for each in entries}
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: stopped.append(got))
    for training in options.trainings:
        name, batch_size, lr, *more = training.split(":")
        said = dict(each.split("=") for each in more)
        seed, epochs = int(said.get("seed", 0)), float(said["epochs"]) if "epochs" in said else None
        given = Given(
            data=options.data, recipe=options.recipe, device="cpu", seed=seed, batch_size=int(batch_size), lr=float(lr), trains="retrain"
        )
        architecture = read_architecture(Path(name))[0] if name.endswith(".yaml") else networks[name]
        setting = open_setting(given, architecture.stride, architecture.frame.resolution)
        alone = Alone(setting, options.folder) if epochs is None else Alone.on_held_out(setting, options.folder, epochs)
        known = alone.known(architecture, seed)
        if not known.ended:
            print(training, flush=True)
            try:
                known = alone.train(architecture, seed, stop=lambda: bool(stopped))
            except Stopped:
                raise SystemExit(f"{training}: stopped; the same command goes on.") from None
        assert known.ended
        rungs = {str(step): round(accuracy, 4) for step, accuracy in known.rungs}
        line = {
            "network": name, "key": architecture.key, "batch_size": int(batch_size), "lr": float(lr), "epochs": alone.phase.epochs,
            "curve": "cosine" if epochs is None else "constant", "seed": seed, "accuracy": known.ended.accuracy, "failure": known.ended.failure,
            "rungs": rungs, "seconds": round(known.seconds), "revision": provenance().get("revision"),
        }  # fmt: skip
        before = options.file.read_text(encoding="utf-8") if options.file.exists() else ""
        if json.dumps(line) + "\n" not in before:
            with options.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        print(training, known.ended, round(known.seconds), flush=True)


if __name__ == "__main__":
    main()
