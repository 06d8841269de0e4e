"""How OpenMP's threads should wait for each other: steps of one training with two threads, on an idle machine and beside busy processes.

    python benchmarks/openmp_waiting.py [--seconds 12] [--rounds 3] [--busy 0 2 5] [--json FILE]

Reference: the training as it comes, with nothing set. Each figure is the median over the rounds of the steps done in so many seconds; the
settings take turns within a round. What a setting gains or loses is its median over that of the reference under the same load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (0, 100, 1000, 4000, 10000)},
}
TRAINING = """
import sys, time, torch, torch.nn.functional as F
from pathlib import Path
sys.path.insert(0, sys.argv[2])
{imports}
space = SearchSpace.read(Path(sys.argv[2]) / "search_spaces/cifar.yaml")
torch.manual_seed(0)
torch.set_num_threads(2)
network = Network(space.decode({{name: options[0] for name, options in space.decisions.items()}}))
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))

def step():
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()

for _ in range(3):
    step()
done, until = 0, time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    step()
    done += 1
print(done)
"""
IMPORTS = "from nas.networks.network import Network; from nas.spaces.decisions import SearchSpace"


def steps(setting: dict[str, str], seconds: float) -> int:
    """Steps that one training does in so many seconds."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", TRAINING.format(imports=IMPORTS), str(seconds), str(REPOSITORY)]
    return int(subprocess.run(command, env={**plain, **setting}, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2, 5], help="busy processes beside the training")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    found: dict[int, dict[str, list[int]]] = {busy: {name: [] for name in SETTINGS} for busy in options.busy}
    for number in range(options.rounds):
        for busy, counts in found.items():
            # They end by themselves, also where this process is killed.
            spin = f"import time; end = time.monotonic() + {len(SETTINGS) * (options.seconds + 60)}\nwhile time.monotonic() < end: pass"
            others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(busy)]
            try:
                for name, setting in SETTINGS.items():
                    counts[name].append(steps(setting, options.seconds))
                    print(f"round {number + 1}, {busy} busy, {name}: {counts[name][-1]}", file=sys.stderr, flush=True)
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    medians = {busy: {name: statistics.median(each) for name, each in counts.items()} for busy, counts in found.items()}
    print(f"steps in {options.seconds:g} s, median of {options.rounds} (over the reference)")
    print(f"{'setting':12}" + "".join(f"{f'{busy} busy':>18}" for busy in medians))
    for name in SETTINGS:
        row = [f"{each[name]:g} ({each[name] / max(1, each['as it comes']):.2f})" for each in medians.values()]
        print(f"{name:12}" + "".join(f"{cell:>18}" for cell in row))
    if options.json:
        options.json.write_text(json.dumps({"seconds": options.seconds, "steps": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
