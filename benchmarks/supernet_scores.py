"""How several supernets rank networks whose accuracies alone are known: what a change to a supernet's training is worth.

    python benchmarks/supernet_scores.py FILE --run RUN --name NAME    # adds a supernet's scores
    python benchmarks/supernet_scores.py FILE --gather FOLDER          # makes it anew of a folder's files
    python benchmarks/supernet_scores.py FILE                          # says how all in the file rank

`--truth` names the file of `fidelity` that has the networks and their accuracies alone. Its own scores are the row "as it is", with which the
others are compared network by network; scores are accuracies on held-out images with the supernet's weights. "0.8 a block" adds 0.8 points to a
score for each block; "by score and blocks" foretells each network from the others; "a block has" is by how many points the scores rise with each
block. A supernet trained by other code is scored by that code: PYTHONPATH=ITS_CHECKOUT.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.runs.folder import provenance
from nas.searching.evaluating import evaluate_subnet
from nas.searching.supernet_run import open_supernet_run
from nas.training.given import Given

A_BLOCK = 0.008
BASE = "as it is"
# Of benchmarks/levers/fewshot.patch: the numbers of blocks of each supernet's networks.
FEW = {"few0": (2, 3), "few1": (4,), "few2": (5, 6)}


def gathered(folder: Path, networks: list[dict[str, Any]]) -> dict[str, Any]:
    """The supernets of a folder's files in order of time; those for some depths alone as one, which has each network's score from its own."""
    from nas.searching.fidelity import blocks_of  # which a checkout that is scored need not have

    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime):
        found |= json.loads(file.read_text(encoding="utf-8"))
    if found.keys() >= FEW.keys():
        few = {name: found.pop(name) for name in FEW}
        scores = {each["key"]: one["scores"][each["key"]] for each in networks for name, one in few.items() if blocks_of(each) in FEW[name]}
        found["fewshot"] = {"runs": [each["run"] for each in few.values()]} | {**few["few0"], "scores": scores}
        del found["fewshot"]["run"]
    return found


def scored(run: str, networks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run's supernet is, and its accuracy of each network, by key."""
    opened = open_supernet_run(Given(), None, run, (None, None))
    supernet = opened.loaded()
    if supernet is None:
        raise SystemExit(f"{opened.run.folder}: its supernet is not trained.")
    setting, found = opened.setting, dict[str, float]()
    held_out = setting.images.kept("held_out", setting.recipe.search.batch_size)
    with Progress("scores", len(networks), "network") as progress:
        for each in networks:
            evaluation = evaluate_subnet(supernet, held_out, setting.autocast, Architecture.from_dict(each["architecture"], "truth"))
            assert evaluation.accuracy is not None, evaluation.failure
            found[each["key"]] = evaluation.accuracy
            progress.advance()
    phase = setting.recipe.supernet
    return {"run": run, "steps": phase.steps, "seed": setting.seed, "revision": provenance().get("revision"), "scores": found}


def table(truth: dict[str, Any], supernets: dict[str, Any]) -> list[str]:
    """A row for each supernet: its networks' mean accuracy, tau as it is, with 0.8 points a block, and foretold by score and blocks, and the points
    that a network has more for each block, by least squares."""
    from nas.pareto import foretold_from_others, rank_figures  # which a checkout that is scored need not have
    from nas.searching.fidelity import blocks_of, ranked

    networks = ranked(truth)
    alone = [each["truth"] for each in networks]
    blocks = [blocks_of(each) for each in networks]
    scores = {BASE: [each["supernet"] for each in networks]}
    scores |= {name: [each["scores"][one["key"]] for one in networks] for name, each in supernets.items()}
    corrected = {
        f"{way}, {name}": its
        for name, plain in scores.items()
        for way, its in (
            ("a block", [score + A_BLOCK * number for score, number in zip(plain, blocks, strict=True)]),
            ("foretold", foretold_from_others([plain, blocks], alone)),
        )
    }
    tau = {name: figures["tau"] for name, figures in rank_figures(scores | corrected, alone, compared=(BASE,)).items()}
    rows = []
    for name, its in scores.items():
        less = tau.get(f"{BASE} - {name}")
        more = f"{0 - less.value:+.2f} [{0 - less.high:+.2f}, {0 - less.low:+.2f}]" if less else ""
        ways = (f"{tau[f'{way}, {name}'].value:.2f}" for way in ("a block", "foretold"))
        rows.append(f"| {' | '.join([name, f'{statistics.fmean(its):.2%}', f'{tau[name].value:.2f}', more, *ways, rise(blocks, its)])} |")
    return rows


def rise(blocks: list[int], accuracies: list[float]) -> str:
    """By how many points accuracies rise with each block, by least squares."""
    return f"{100 * statistics.linear_regression(blocks, accuracies).slope:+.2f}"


def rises_alone(truth: dict[str, Any]) -> str:
    """The same of networks trained alone, by the epochs after which they were judged."""
    from nas.searching.fidelity import blocks_of, ranked  # which a checkout that is scored need not have

    networks = ranked(truth)
    blocks = [blocks_of(each) for each in networks]
    found = {epoch: rise(blocks, [each["epochs"][epoch] for each in networks]) for epoch in networks[0]["epochs"]}
    return (
        "alone a block has "
        + ", ".join(f"{its} after {epoch}" for epoch, its in found.items())
        + (f" epochs, {rise(blocks, [each['truth'] for each in networks])} in the end")
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("file", type=Path)
    asked.add_argument("--run")
    asked.add_argument("--name")
    asked.add_argument("--gather", type=Path)
    asked.add_argument("--truth", type=Path, default=Path(__file__).parent.parent / "docs/results/fidelity-cifar10-5MMACs.json")
    given = asked.parse_args()
    truth = json.loads(given.truth.read_text(encoding="utf-8"))
    supernets = json.loads(given.file.read_text(encoding="utf-8")) if given.file.exists() else {}
    if given.gather:
        supernets = gathered(given.gather, truth["networks"])
    elif given.run:
        supernets[given.name or given.run] = scored(given.run, truth["networks"])
    if given.gather or given.run:
        given.file.write_text(json.dumps(supernets, indent=1) + "\n", encoding="utf-8")
        return
    print("| supernet | mean | tau | more than as it is | 0.8 a block | by score and blocks | a block has |", f"|{'---|' * 7}", sep="\n")
    print("\n".join(table(truth, supernets)), rises_alone(truth), sep="\n\n")


if __name__ == "__main__":
    main()
