"""The command line: search a hybrid network under a budget, retrain the winner.

    python launch.py search --budget 4.5GFLOPs
    python launch.py retrain runs/best.yaml
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from pathlib import Path
from typing import NoReturn

EPILOG = """FLOPs are counted as the papers count them: a multiply-add is one, so 4.5GFLOPs and 4.5GMACs are the same budget.
With no --data the data are scikit-learn's digits: that shows the machine working; --data gives a ranking that means something."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are one line with the nearest name."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if message.startswith("unrecognized arguments"):
            word = message.split(": ")[1].split()[0]
            near = difflib.get_close_matches(word.split("=")[0], known, n=1)
            message = f"unknown option {word!r}; known: {', '.join(sorted(known))}." + (f" Did you mean {near[0]!r}?" if near else "")
        elif "invalid choice" in message:
            word = message.split("invalid choice: ")[1].split(" (")[0].strip("'\"")
            choices = next((list(action.choices) for action in self._actions if action.choices and word not in action.choices and action.metavar in message), None)
            if choices:
                near = difflib.get_close_matches(word, choices, n=1)
                message = f"unknown {message.split(':')[0].removeprefix('argument ').lower()} {word!r}; known: {', '.join(choices)}." + (f" Did you mean {near[0]!r}?" if near else "")
        fail(message)


def fail(message: str) -> NoReturn:
    print(f"launch.py: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: got {number}")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more: got {number}")
    return number


_positive.__name__ = _count.__name__ = "whole number"  # how argparse names them in its messages


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    root = Parser(prog="launch.py", description=__doc__.split("\n")[0], epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    search = command("search", "search a network under a budget; trains the supernet first where the run has none")
    train = command("train", "train the supernet alone")
    retrain = command("retrain", "train the architecture of a YAML file from scratch, and test it")
    profile = command("profile", "count parameters, multiply-adds and activations of an architecture file or of a run's winner")

    for each in (search, train):
        each.add_argument("--space", default="hybrid", metavar="SPACE", help="search space: a name in search_spaces/ or a YAML file (default: hybrid)")
    retrain.add_argument("file", metavar="FILE", type=Path, help="an architecture, such as runs/best.yaml")
    profile.add_argument("file", metavar="FILE", type=Path, help="an architecture file, or a run's folder")
    profile.add_argument("--json", action="store_true", help="print one JSON object")

    for each in (search, train, retrain):
        each.add_argument("--data", metavar="DATA", help="digits; a folder with train.parquet and test.parquet; a folder with train/ and val/ or test/, a folder of images per class in each; a torchvision data set's name (with --data-root)")
        each.add_argument("--data-root", metavar="FOLDER", type=Path, help="where torchvision's data set is; nothing is downloaded")
        each.add_argument("--recipe", metavar="RECIPE", help="a name in recipes/ or a YAML file (default: digits for digits, cifar up to 64 px, else imagenet)")
        each.add_argument("--resolution", metavar="PX", type=_positive, help="side of the images in training (default: the recipe's, else the images' own, rounded up to the space's stride, at most the space's)")
        each.add_argument("--run", metavar="NAME", help="a folder under runs/ (default: named after what is run; the same command continues it)")
        each.add_argument("--device", metavar="DEVICE", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
        each.add_argument("--seed", metavar="N", type=_count, default=0, help="default: 0")
        length = each.add_mutually_exclusive_group()
        what = "retraining" if each is retrain else "the supernet's training"
        length.add_argument("--epochs", metavar="N", type=float, help=f"length of {what}, instead of the recipe's")
        length.add_argument("--steps", metavar="N", type=_positive, help="the same in steps")
        each.add_argument("--smoke", action="store_true", help="a few steps and trials: seconds, for tests")

    search.add_argument("--budget", metavar="BUDGET", action="append", required=True, help="4.5GFLOPs, 4.5GMACs, 300MMACs, 28Mparams or 8ms; may be repeated")
    search.add_argument("--floor", metavar="SHARE", type=float, default=0.8, help="a winner uses at least this share of its tightest budget (default: 0.8)")
    search.add_argument("--trials", metavar="N", type=_positive, help="networks to evaluate, instead of the recipe's number")
    search.add_argument("--sampler", metavar="SAMPLER", default="nsga2", choices=("nsga2", "tpe", "random"), help="nsga2, tpe or random (default: nsga2)")
    search.add_argument("--workers", metavar="N", type=_count, default=0, help="Ray actors that evaluate; 0: in this process (default: 0)")
    search.add_argument("--latency-batch", metavar="N", type=_positive, default=1, help="images in a timed pass (default: 1)")
    return root


def main() -> int:
    """Runs one command; the exit status."""
    options = vars(parser().parse_args())
    command = options.pop("command")
    try:
        from nas import jobs  # torch and the rest: only now, so that --help answers at once

        return getattr(jobs, command)(**options)
    except (ValueError, OSError) as error:
        if os.environ.get("NAS_TRACEBACK"):  # for whoever looks for a fault in the program
            raise
        fail(str(error))
    except KeyboardInterrupt:
        print("launch.py: stopped; the same command continues.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
