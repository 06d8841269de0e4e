"""`measure`: a latency table of a space on a target, and how far it can be trusted."""

from __future__ import annotations

import click

from nas.commands.options import option


@click.command(short_help="Make a latency table for a device.")
@option("--target", "TARGET", "DEVICE:RUNTIME, then ,batch=N,threads=N,dtype=NAME: cpu:onnxruntime,threads=2.", required=True)
@option("--space", "SPACE", "Search space: a name in search_spaces/ or a YAML file (default: hybrid).")
@option("--budget", "BUDGET", "Check the table by networks within 10% of it (default: of all sizes); may be repeated.", multiple=True)
@option("--networks", "N", "Whole networks that the table is checked by (default: 30).", type=click.IntRange(10), default=30)
@option("--seed", "N", "Which networks these are (default: 0).", type=click.IntRange(0), default=0)
def measure(target: str, space: str | None, budget: tuple[str, ...], networks: int, seed: int) -> int:
    """Make a latency table for a device: time each distinct part of a space's networks on it.

    The table is kept in runs/latency-TARGET, and every search with that --target uses it. It ends with its own error on whole networks that it
    had not seen. Stopped, the same command continues.
    """
    import json

    from nas.cost import cost
    from nas.cost.targets import check_target, parse_target
    from nas.machine import DISTURBED
    from nas.quantities import parse_budgets
    from nas.runs.interrupt import Interrupt
    from nas.searching.latency_table import TableRun, measure_space
    from nas.searching.search import check_budgets
    from nas.searching.supernet_run import SPACE
    from nas.spaces.decisions import SearchSpace
    from nas.training.setting import shipped
    from nas.yaml_files import write_atomically

    opened, budgets = TableRun(parse_target(target)), parse_budgets(budget)
    check_target(opened.target)
    named = SearchSpace.read(shipped("search_spaces", space or SPACE, "--space"))
    binding, _ = check_budgets(named, cost, budgets)
    with opened.run.lock(), Interrupt() as interrupt:
        found = measure_space(opened, named, binding, lambda: interrupt.requested, seed=seed, check=networks)
    path = opened.run.folder / f"{named.name}.json"
    entries = {
        "target": str(opened.target),
        "conditions": opened.conditions,
        "space": named.name,
        "budgets": [each.text for each in budgets],
    }
    write_atomically(path, json.dumps({**entries, **found.entries()}, indent=1).encode())
    correction = found.table.correction
    print(f"{opened.target} on {opened.conditions['device']}, space {named.name}: {len(found.table.times)} parts.")
    print(
        f"Held against {len(found.measured)} networks that it had not seen, of {min(found.measured):.3f} to {max(found.measured):.3f} ms:"
    )
    print(f"  median error {found.error.median:.1%}; {found.error.within_5:.0%} within 5%, {found.error.within_10:.0%} within 10%")
    print(f"  the plain sums: {found.plain.median:.1%}; {found.plain.within_5:.0%} and {found.plain.within_10:.0%}")
    print(f"  (corrected: {correction.scale:.3f} x sum + {correction.each:.4f} ms x parts + {correction.start:.4f} ms)")
    print(f"  Kendall's tau {found.tau:.2f}; of multiply-adds {found.tau_macs:.2f}")
    if found.busy is not None and found.busy > DISTURBED:
        print(
            f"Other processes kept {found.busy:.1f} cores busy meanwhile: these figures are too long. Delete {opened.run.folder} and measure again on a quiet machine."
        )
    print(f"Written to {path}")
    return 0
