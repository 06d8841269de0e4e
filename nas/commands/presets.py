"""`presets`: the published networks."""

from __future__ import annotations

import json as json_format

import click


@click.command(short_help="List the published networks and their figures.")
@click.option("--json", is_flag=True, help="Print a JSON list, one object for each network.")
def presets(json: bool) -> int:
    """List the published networks with their counts and published figures."""
    from nas.published.presets import as_table, rows

    print(json_format.dumps(rows(), indent=2) + "\n" if json else as_table(), end="")
    return 0
