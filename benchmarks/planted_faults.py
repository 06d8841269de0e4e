"""Plants faults one at a time in a copy of the repository and says which of them the tests notice.

    python benchmarks/planted_faults.py [--module nas/data] [--first 5] [--json FILE]

`planted_faults.json` has the faults: module, what is replaced by what, the test files that concern it, and the outcome when it was last run. The
files of tests are first run without a fault: a test that fails anyway kills nothing. All of them take hours on two cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FAULTS = Path(__file__).with_suffix(".json")


def failing(copy: Path, names: list[str], seconds: float = 600) -> str | None:
    """The first test file of these that fails or hangs in the copy; None where all pass."""
    for name in names:
        options = ["-m", "not slow and not gpu", "-n", "0", "-x", "-q", "-p", "no:cacheprovider", "--tb=line"]
        command = [sys.executable, "-m", "pytest", *options, f"tests/test_{name}.py"]
        try:
            done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"tests/test_{name}.py (hangs)"
        if done.returncode:
            return next((line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))), name)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", default="nas/", help="only faults in files whose path begins so")
    parser.add_argument("--first", type=int, help="only so many of these")
    parser.add_argument("--json", type=Path, help="where to write the outcomes")
    options = parser.parse_args()
    faults = [fault for fault in json.loads(FAULTS.read_text()) if fault["module"].startswith(options.module)][: options.first]
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        # Only what git knows: runs/ may hold gigabytes.
        for name in subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy / name)
        broken = failing(copy, sorted({name for fault in faults for name in fault["tests"]}))
        if broken:
            sys.exit(f"{broken} fails without a fault: mend that first")
        for fault in faults:
            path = copy / fault["module"]
            text = path.read_text()
            if fault["old"] not in text:
                fault["outcome"] = "the text is no longer there"
            else:
                path.write_text(text.replace(fault["old"], fault["new"], 1))
                found = failing(copy, fault["tests"])
                path.write_text(text)
                fault["outcome"] = f"killed: {found}" if found else "survived"
                killed += found is not None
            print(f"{fault['module']}: {fault['name']}: {fault['outcome']}", flush=True)
    print(f"{killed} of {len(faults)} died")
    if options.json:
        options.json.write_text(json.dumps(faults, indent=1) + "\n")


if __name__ == "__main__":
    main()
