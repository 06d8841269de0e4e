"""The pictures of a real run in README and docs/: its winner, its report and its dashboard in Debian's chromium.

    python benchmarks/screenshots.py RUN docs/pictures

The run has ended and had finalists. Nothing is written into it but its report and the dashboard's notes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from nas.reporting.drawings import draw
from nas.runs.folder import run_folder
from nas.searching.finalist_study import study_of
from nas.searching.story import Search, read_story

PORT = 8790
SITE = f"http://127.0.0.1:{PORT}"


def winner(search: Search) -> bytes:
    """The winner beside the best network that anyone would have drawn."""
    assert search.winner is not None
    chosen, by_hand = search.ladder[0], next(each for each in search.ladder if each.by_hand)
    told = (("The winner", chosen), (f"{by_hand.origin}, drawn by hand", by_hand))
    named = {f"{text}: {each.last:.2%} of the held-out images": each.architecture for text, each in told}
    return draw(named, "svg", 2)


def report(browser: Any, page: Path, folder: Path) -> None:
    browser.open(page.as_uri(), 1000)
    browser.picture(folder / "report.png", 1310)


def dashboard(browser: Any, search: str, folder: Path) -> None:
    summaries = json.loads(urllib.request.urlopen(f"{SITE}/api/studies").read())["study_summaries"]
    ids = {each["study_name"]: each["study_id"] for each in summaries}
    for name, address, pictures, height in (
        ("dashboard", f"{ids[search]}/note", 4, 1300),
        ("winner-trial", f"{ids[study_of(search)]}/trials?numbers=0", 1, 900),
    ):
        browser.open(f"{SITE}/dashboard/studies/{address}", 1280)
        browser.until(f"[...document.images].filter(each => each.naturalWidth > 0).length >= {pictures}")
        browser.picture(folder / f"{name}.png", height)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("run")
    asked.add_argument("folder", type=Path)
    given = asked.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from browser import CHROMIUM, open_browser

    if CHROMIUM is None:
        asked.error(
            "no browser on PATH: got none; accepted: chromium, chromium-browser, google-chrome. Install one (apt install chromium)."
        )
    run, launch = run_folder(given.run), [sys.executable, "launch.py"]
    search = list(read_story(run).searches.values())[-1]
    (given.folder / "winner.svg").write_bytes(winner(search))
    subprocess.run([*launch, "report", given.run], check=True)
    server = subprocess.Popen(
        [*launch, "dashboard", given.run, "--port", str(PORT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        with open_browser() as browser:
            report(browser, (run / "report.html").resolve(), given.folder)
            while True:
                try:
                    urllib.request.urlopen(f"{SITE}/api/studies").close()
                    break
                except OSError:
                    time.sleep(0.5)
            dashboard(browser, search.name, given.folder)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
