"""How well a search's supernet ranks: the winner and the baselines of a study, by the supernet and after retraining.

    python benchmarks/ranking.py RUN STUDY      # such as: cifar-cifar10-cifar_cpu-0 10MMACs-evolution

Reads what `search` and `retrain` left in runs/; networks that were not retrained yet are left out. Prints a table, the most accurate network first, and Kendall's tau
between the supernet's accuracy on held-out images and the retrained network's on the test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna

from nas.networks.architecture import read_architecture
from nas.pareto import kendall_tau
from nas.runs.folder import Run
from nas.yaml_files import read_yaml

RUNS = Path("runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("study")
    options = parser.parse_args()
    folder = Run(options.run, RUNS).folder
    study = optuna.load_study(study_name=options.study, storage=f"sqlite:///{(folder / 'study.db').resolve()}")
    by_supernet = {trial.user_attrs["arch_key"]: trial.values[0] for trial in study.trials if trial.values}
    begun = read_yaml(folder / "run.yaml")["supernet"]
    retrained = {}
    for path in RUNS.glob("*/result.yaml"):
        architecture, entries = read_architecture(path)
        if all(entries[name] == begun[name] for name in ("data", "recipe", "resolution", "seed")):
            retrained[architecture.key] = entries["result"]["test_accuracy"]

    files = [folder / f"{options.study}.yaml", *(folder / "baselines" / options.study).glob("*.yaml")]
    rows = []
    for path in files:
        architecture, entries = read_architecture(path)
        key = architecture.key
        if key in by_supernet and key in retrained:
            name = "**winner of the search**" if path == files[0] else path.stem
            rows.append((retrained[key], by_supernet[key], name, entries["costs"]))
    print("| network | MACs | parameters | supernet's weights, held out | retrained, test |\n|---|---|---|---|---|")
    for test, held_out, name, costs in sorted(rows, key=lambda row: -row[0]):
        print(f"| {name} | {costs['macs'] / 1e6:.2f} M | {costs['params'] / 1e3:.0f} k | {held_out:.2%} | {test:.2%} |")
    print(f"\nKendall's tau over {len(rows)} networks: {kendall_tau([row[1] for row in rows], [row[0] for row in rows]):.2f}")
    spent = [line for line in Run(options.run, RUNS).metrics("search") if line["study"] == options.study]
    print(
        f"Supernet: {begun['phase']}; searches: {[(line['evaluations'], line['trials'], line['seconds'], line['evaluate_seconds']) for line in spent]}"
    )


if __name__ == "__main__":
    main()
