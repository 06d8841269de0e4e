"""Networks of a band trained alone, with rungs: the truth that a ranking is held against. Resumable; one JSON line per finished training."""
import json, os, random, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, "/work/wt/truth")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch
torch.set_num_threads(1)
from nas.cost import cost
from nas.quantities import parse_budgets
from nas.searching.proposals import Band
from nas.spaces.decisions import SearchSpace
from nas.training.setting import Given, open_setting
from nas.training.train_network import train_network
from nas.training.report import Report
from nas.training.recipe import Phase
from nas.runs.folder import Run

BUDGET, EPOCHS, COUNT = 5e6, 20, 30

def networks(space):
    """COUNT networks with usage 0.9 to 1.1, mixers stratified: at each place every mixer about equally often; sharing fixed to false."""
    rng = random.Random("truth/0")
    band = Band(space, cost, parse_budgets(["5MMACs"]), 0.9)
    fixed = {n: False for n in space.decisions if n.endswith("sharing")}
    columns = {}
    for name, options in space.mixer_decisions.items():
        column = []
        while len(column) < COUNT:
            column += rng.sample(options, len(options))
        columns[name] = column[:COUNT]
    sizes = [n for n in space.decisions if n not in space.mixer_decisions and n not in fixed]
    found = []
    for k in range(COUNT):
        mixers = {n: columns[n][k] for n in columns}
        while True:
            level = rng.uniform(0.9, 1.1)
            values = {**space.random(rng), **mixers, **fixed}
            now = band.used(values)
            for name in [n for _ in range(6) for n in rng.sample(sizes, len(sizes))]:
                if abs(now - level) < 0.01: break
                option = rng.choice(space.decisions[name])
                after = band.used({**values, name: option})
                if abs(after - level) < abs(now - level):
                    values, now = {**values, name: option}, after
            if 0.9 <= now <= 1.1 and all(space.decode(values).key != a.key for a in found):
                found.append(space.decode(values)); break
    return found

def main(part, parts):
    space = SearchSpace.read(Path("/work/truth/cifar_small.yaml"))
    archs = networks(space)
    setting = open_setting(Given(data="/work/shared/data/cifar10", recipe="/work/wt/truth/recipes/cifar_cpu.yaml", device="cpu", seed=0), space.stride, space.frame.resolution)
    per = setting.images.steps_per_epoch("fit", 128)
    phase = Phase(**{**setting.recipe.retrain.model_dump(exclude={"epochs"}), "epochs": EPOCHS, "rungs": [per * e for e in (1, 2, 3, 5, 8, 10, 15)]})
    setting = replace(setting, recipe=setting.recipe.model_copy(update={"retrain": phase}))
    out = Path("/work/truth/truth.jsonl")
    jobs = [(seed, k) for seed in (0, 1) for k in range(12)] + [(0, k) for k in range(12, COUNT)] + [(1, k) for k in range(12, COUNT)]
    done = lambda: {(d["seed"], d["index"]) for d in map(json.loads, out.read_text().splitlines())} if out.exists() else set()
    for n, (seed, k) in enumerate(jobs):
        if n % parts != part or (seed, k) in done(): continue
        run = Run(f"truth-{k}-{seed}", Path("/work/truth/runs"))
        begun = time.monotonic()
        class Quiet(Report):
            def step(self, done, loss, lr):
                if done % 50 == 0 or done < 3: super().step(done, loss, lr)
                else: self._progress.done = done
        report = Quiet(run, "alone")
        r = train_network(archs[k], setting, fit="fit", evaluate_on="held_out", seed=seed, folder=run, report=report)
        c = cost(archs[k])
        with out.open("a") as f:
            f.write(json.dumps({"index": k, "seed": seed, "key": archs[k].key, "macs": c.macs, "params": c.params, "accuracy": r.accuracy, "rungs": [[s // per, a] for s, a in r.rungs], "seconds": round(time.monotonic() - begun), "architecture": archs[k].to_dict()}) + "\n")
        for name in ("checkpoint.pt", "checkpoint.pt.previous"): (run.folder / name).unlink(missing_ok=True)

if __name__ == "__main__":
    if sys.argv[1] == "list":
        space = SearchSpace.read(Path("/work/truth/cifar_small.yaml"))
        for a in networks(space): print(a.key, cost(a).macs, [s.mixers for s in a.stages], [s.width for s in a.stages])
    else: main(int(sys.argv[1]), int(sys.argv[2]))
