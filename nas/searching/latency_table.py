"""A target's latency table: its parts and some whole networks, timed, kept as a run, and how far it can be trusted."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from nas.cost import cost
from nas.cost.latency import Milliseconds, measure, measure_latency, timed
from nas.cost.table import Error, Part, PartModule, Table, error, fit, parts
from nas.cost.targets import Target, conditions
from nas.machine import OtherLoad, pasted
from nas.networks.architecture import Architecture
from nas.pareto import kendall_tau
from nas.progress import Progress
from nas.quantities import Budget
from nas.runs.folder import RUNS, Run
from nas.runs.interrupt import Stopped
from nas.searching.proposals import around, draw, stratified
from nas.spaces.decisions import SearchSpace

LEARN, CHECK = 12, 30  # whole networks that teach the correction, and others that the table is held against
STEADY = 0.05  # a spread up to here is believed; a larger one is tried again
TRIES = 3
LONG_ENOUGH = 100.0  # milliseconds of passes in a timing


@dataclass(frozen=True)
class TableRun:
    """What was timed on a target under the conditions of today, in `root`/latency-TARGET; other conditions' figures stay there unread."""

    target: Target
    root: Path = RUNS

    @cached_property
    def run(self) -> Run:
        return Run(f"latency-{self.target.slug}", self.root)

    @cached_property
    def conditions(self) -> dict[str, str]:
        return conditions(self.target)

    @cached_property
    def digest(self) -> str:
        """Of the conditions: marks the figures taken under them."""
        return hashlib.sha256(json.dumps(self.conditions, sort_keys=True).encode()).hexdigest()[:8]

    def times(self) -> dict[str, float]:
        """Milliseconds of the parts that were timed."""
        return {line["key"]: line["ms"] for line in self._lines("part")}

    def networks(self, role: str) -> dict[str, tuple[Architecture, float]]:
        """Whole networks that were timed, by key: those to "learn" from, or to "check" by."""
        lines = [line for line in self._lines("network") if line["role"] == role]
        return {line["key"]: (Architecture.from_dict(line["architecture"], str(self.run.folder)), line["ms"]) for line in lines}

    def _lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.run.metrics(kind) if line.get("conditions") == self.digest]

    def table_for(self, space: SearchSpace, called: str) -> Table:
        """The table of a space, by a path or name as `measure --space` takes it, corrected by the whole networks of its frame.

        Raises:
            ValueError: there is none, it was made under other conditions, or it lacks parts of the space; says which command makes it.
        """
        known, make = self.times(), f"`{pasted('measure', '--space', called, '--target', self.target)}` makes one."
        if not known:
            others = [each for each in self.run.recorded().get("conditions", {}).values() if each != self.conditions]
            got = f"one made with {_difference(others[-1], self.conditions)}" if others else "none"
            raise ValueError(f"--target {self.target}: no latency table: got {got}; accepted: one made here and now. {make}")
        missing = [part.key for part in distinct_parts(space) if part.key not in known]
        if missing:
            raise ValueError(
                f"--target {self.target}: the latency table lacks {len(missing)} parts of space {space.name}: got none of {missing[0]}; "
                f"accepted: a table of this space. {make}"
            )
        return self._corrected(Table(known), space)

    def _corrected(self, table: Table, space: SearchSpace) -> Table:
        learnt = [(each, ms) for each, ms in self.networks("learn").values() if each.frame == space.frame]
        learnt = [(each, ms) for each, ms in learnt if all(part.key in table.times for part in parts(each))]
        if len(learnt) < LEARN // 2:
            return table
        return replace(table, correction=fit([table.total(each) for each, _ in learnt], [ms for _, ms in learnt]))


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value} (here {now.get(name)})" for name, value in before.items() if now.get(name) != value)


def distinct_parts(space: SearchSpace) -> list[Part]:
    """One part for each key that any network of a space has."""
    found: dict[str, Part] = {}
    for architecture in space.covering("cpe"):
        for part in parts(architecture):
            found.setdefault(part.key, part)
    return list(found.values())


def networks_of(space: SearchSpace, budgets: Sequence[Budget], num: int, seed: int) -> list[Architecture]:
    """Networks of all mixers near the budgets, or of all sizes without an exact one."""
    exact = [each for each in budgets if not each.quantity.measured]
    band = around(space, cost, exact)
    values = stratified(band, num, seed) if exact else [each.values for each in draw(band, num, set(), random.Random(seed))]
    return [space.decode(each) for each in values]


@dataclass(frozen=True)
class Measured:
    """How far a table agrees with whole networks that it had not seen: foretold and measured milliseconds, and what follows.

    Attributes:
        plain: the error of the sums without a correction.
        tau: Kendall's, of foretold and measured times; `tau_macs` of multiply-adds and measured times.
        busy: cores that other processes kept busy meanwhile; None where the system does not tell.
    """

    table: Table
    networks: Sequence[Architecture]
    foretold: Sequence[float]
    measured: Sequence[float]
    error: Error
    plain: Error
    tau: float
    tau_macs: float
    busy: float | None

    def entries(self) -> dict[str, Any]:
        """For a JSON file."""
        each = [
            {
                "key": one.key,
                "architecture": one.to_dict(),
                **cost(one)._asdict(),
                "foretold_ms": round(foretold, 5),
                "measured_ms": measured,
            }
            for one, foretold, measured in zip(self.networks, self.foretold, self.measured, strict=True)
        ]
        figures = {"error": self.error._asdict(), "uncorrected": self.plain._asdict(), "tau": self.tau, "tau_macs": self.tau_macs}
        return {"correction": vars(self.table.correction), **figures, "busy_cores": self.busy, "networks": each}


def measure_space(
    opened: TableRun, space: SearchSpace, budgets: Sequence[Budget], stop: Callable[[], bool], *, seed: int = 0, check: int = CHECK
) -> Measured:
    """Times what the table lacks of a space, then whole networks to learn a correction from, then others to hold it against.

    Everything is kept at once; the same call goes on.

    Raises:
        Stopped: `stop` became true.
        ValueError: the band of the budgets has too few networks.
    """
    load, steady = OtherLoad(), partial(_steady, stop=stop)
    target, run, known = opened.target, opened.run, opened.times()
    run.record(conditions={**run.recorded().get("conditions", {}), opened.digest: opened.conditions})
    missing = [part for part in distinct_parts(space) if part.key not in known]
    with Progress(f"parts of {space.name}", len(missing), "part") as progress:
        for part in missing:
            timing = measure(PartModule(part), torch.randn(target.batch, *part.shape), target, steady)
            run.log("part", key=part.key, ms=timing, spread=timing.spread, conditions=opened.digest)
            progress.advance(text=f"{timing:.3f} ms")
    drawn = networks_of(space, budgets, LEARN + check, seed)
    roles = [*("learn" for _ in range(LEARN)), *("check" for _ in range(check))]
    known_networks = {role: opened.networks(role) for role in ("learn", "check")}
    todo = [(role, each) for role, each in zip(roles, drawn, strict=False) if each.key not in known_networks[role]]
    with Progress("whole networks", len(todo), "network") as progress:
        for role, each in todo:
            timing = measure_latency(each, target, steady)
            run.log(
                "network", role=role, key=each.key, architecture=each.to_dict(), ms=timing, spread=timing.spread, conditions=opened.digest
            )
            known_networks[role][each.key] = each, timing
            progress.advance(text=f"{timing:.3f} ms")
    table = opened.table_for(space, space.name)  # lacks nothing now
    # With another seed or budget a network may have been learnt from before.
    checked = [each for role, each in zip(roles, drawn, strict=False) if role == "check" and each.key not in known_networks["learn"]]
    measured = [known_networks["check"][each.key][1] for each in checked]
    foretold, sums = [table.latency_ms(each) for each in checked], [table.total(each)[0] for each in checked]
    tau, by_macs = kendall_tau(foretold, measured), kendall_tau([cost(each).macs for each in checked], measured)
    return Measured(table, checked, foretold, measured, error(foretold, measured), error(sums, measured), tau, by_macs, load.cores())


def _steady(run: Callable[[], object], stop: Callable[[], bool]) -> Milliseconds:
    """The fastest of up to three timings, the last as soon as one is steady: what disturbs makes slower, never faster. Short passes are timed more
    often: thirty of 20 microseconds tell little."""
    found: list[Milliseconds] = []
    while not found or (min(found).spread > STEADY and len(found) < TRIES):
        if stop():
            raise Stopped("measuring stopped")
        found.append(timed(run, runs=max(30, min(1000, round(LONG_ENOUGH / timed(run))))))
    return min(found)
