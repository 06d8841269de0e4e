"""`runs`: what lies in runs/."""

from __future__ import annotations

import click


@click.command(short_help="List the runs.")
@click.option(
    "--clean", is_flag=True, help="Remove what ended runs no longer need: the states of finished trainings. Weights and results stay."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def runs(clean: bool, yes: bool) -> int:
    """List the runs: what each is, how far it came, its size on disk, and a line for each winner or trained network.

    With --clean, after asking, checkpoints of what has ended are removed. A supernet stays, since further searches use it.
    """
    from nas.runs.folder import RUNS, Run
    from nas.runs.overview import overview, overviews

    found = list(overviews(RUNS))
    if not found:
        print(f"No runs in {RUNS}/.")
        return 0
    rows = [("run", "what", "state", "size", "search", "network", "accuracy")]
    for each in found:
        first, *others = each.results or (("", "", ""),)
        rows += [(each.name, each.what, each.state, _size(each.size), *first), *(("", "", "", "", *other) for other in others)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())
    if not clean:
        return 0
    spare = {each.name: each.spare for each in found if each.spare}
    number, size = sum(map(len, spare.values())), sum(path.stat().st_size for paths in spare.values() for path in paths)
    if not number:
        print("Nothing to remove.")
    elif yes or click.confirm(f"Remove {number} checkpoints of what has ended in {len(spare)} runs ({_size(size)})?"):
        for name, paths in spare.items():
            with Run(name).lock():  # not while a process writes there, nor what one went on from while the answer was awaited
                for path in {*paths} & {*overview(RUNS / name).spare}:
                    path.unlink(missing_ok=True)
        print(f"Removed: {number} files, {_size(size)}.")
    return 0


def _size(size: int) -> str:
    """``1.2 GB``, in powers of 1,000 as disks are sold."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= length:
            return f"{size / length:.3g} {unit}"
    return f"{size} B"
