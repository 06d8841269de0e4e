"""`dashboard`: a run in Optuna's dashboard."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from nas.commands.options import option, storage_option


@click.command(short_help="Open a run in Optuna's dashboard.")
@click.argument("run", metavar="[RUN]", required=False)
@option("--port", "PORT", "On 127.0.0.1 (default: 8080).", type=click.IntRange(1, 65535), default=8080)
@storage_option
def dashboard(run: str | None, port: int, storage: str) -> int:
    """Open a run in Optuna's dashboard, with a picture and a note for each network worth a look.

    RUN is the name or folder of a run that searched (default: the one of the last winner). The address is on this machine alone: the dashboard
    has no password. Of studies on a server it shows those of all runs there.
    """
    from nas.reporting.notes import tellings
    from nas.runs.folder import InUse, Run, run_folder
    from nas.runs.records import read_run
    from nas.searching.dashboard import HOST, check_port, note_of, serve, tell
    from nas.searching.finalist_study import write_finalists
    from nas.searching.story import read_story
    from nas.searching.study_storage import STUDY_FILE, address, place_of

    folder = run_folder(_of_last_winner() if run is None else run)
    study, artifacts = place_of(Run(folder.name, folder.parent), storage), folder / "artifacts"
    if isinstance(study, Path) and not study.exists():
        raise ValueError(f"{folder}: no study in it: got no {STUDY_FILE}; accepted: a run that searched. `runs` lists them.")
    check_port(port)
    print("Drawing pictures and writing notes: up to a minute.", flush=True)
    try:
        with Run(folder.name, folder.parent).lock():
            story = read_story(folder, storage)
            for search in story.searches.values():
                write_finalists(study, search.name, story.space, search.ladder, search.winner.architecture.key if search.winner else "")
            tell(study, artifacts, tellings(story))
    except InUse:
        print("A search is at work here: notes and pictures are as they were.")
    for name in read_run(folder).searches:
        print(f"Winner: http://{HOST}:{port}{note_of(study, name)}")
    print(f"Dashboard: http://{HOST}:{port}/dashboard/   (Ctrl-C ends it)")
    words = ["optuna-dashboard", address(study.resolve() if isinstance(study, Path) else study), "--artifact-dir", artifacts.resolve()]
    print(f"The same by hand: {shlex.join(map(str, [*words, '--port', port]))}", flush=True)
    serve(study, artifacts, port)
    return 0


def _of_last_winner() -> str:
    from nas.runs.folder import RUNS
    from nas.runs.records import read_search

    best = RUNS / "best.yaml"
    if not best.exists():
        raise ValueError(f"dashboard: no search has ended here: got no {best}; accepted: the name of a run. Name one.")
    return read_search(best).run
