"""The command line: search a hybrid network under a budget, retrain the winner.

python launch.py search --budget 4.5GFLOPs
python launch.py retrain runs/best.yaml
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

EPILOG = """FLOPs are counted as the papers count them: a multiply-add is one, so 4.5GFLOPs and 4.5GMACs are the same budget.
With no --data the data are scikit-learn's digits: that shows the machine working; --data gives a ranking that means something."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are one finished line, with the nearest name."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        # Misspelt options first: of --bugdet argparse would say that --budget is missing.
        words = sys.argv[1:] if args is None else args
        if self._subparsers:  # what comes after the command is the command's own
            words = itertools.takewhile(lambda word: word.startswith("-"), words)
        known = sorted(option for action in self._actions for option in action.option_strings)
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in known:
                where = self.prog.partition(" ")[2] or "before the command"
                fail(f"{where}: unknown option {name!r}; known: {', '.join(known)}.{_did_you_mean(name, known)}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        name, _, what = message.removeprefix("argument ").partition(": ")
        command = self.prog.partition(" ")[2]
        action = next((each for each in self._actions if name in (*each.option_strings, each.metavar)), None)
        if action is not None and action.choices and what.startswith("invalid choice"):
            word, known = what.split(what[len("invalid choice: ")])[1], list(action.choices)  # between the first quotes
            fail(f"unknown {name.lstrip('-').lower()} {word!r}; known: {', '.join(known)}.{_did_you_mean(word, known)}")
        if action is not None and what == "expected one argument":
            fail(f"{name}: no value: got nothing, or a word that begins with '-'; accepted: {action.metavar}: {action.help}.")
        if name == "the following arguments are required" and not command:
            known = [choice for each in self._actions for choice in each.choices or ()]
            fail(f"no command; accepted: {', '.join(known)}. See launch.py --help.")
        if name == "the following arguments are required":
            accepted = "; ".join(str(each.help) for each in self._actions if each.required)
            fail(f"{command}: missing {what}; accepted: {accepted}. Add it.")
        if name == "unrecognized arguments":
            fail(
                f"unexpected {what.split()[0]!r}: the command takes no such word; its options begin with '--'. See launch.py COMMAND --help."
            )
        fail(f"{name}: {what}" if what else name)


def fail(message: str) -> NoReturn:
    """Ends the program as every mistake ends: with one line and status 2."""
    print(f"launch.py: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _did_you_mean(word: str, known: list[str]) -> str:
    from nas.yaml_files import did_you_mean  # only once there is a mistake: it brings pydantic

    return did_you_mean(word, known)


def _whole(least: int) -> Callable[[str], int]:
    """Reads a whole number from `least` up to what torch takes for a seed."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number < 2**63:
            raise argparse.ArgumentTypeError(f"out of range: got {text!r}; accepted: whole numbers from {least} to 2**63 - 1")
        return number

    return read


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: got {text!r}; accepted: a number, such as 0.5") from None


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    root = Parser(
        prog="launch.py",
        description=__doc__.split("\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    search = command("search", "search a network under a budget; trains the supernet first where the run has none")
    train = command("train", "train the supernet alone")
    retrain = command("retrain", "train the architecture of a YAML file from scratch, and test it")
    profile = command(
        "profile", "count parameters, multiply-adds and activations of an architecture file, a published network or a run's winner"
    )
    presets = command("presets", "list the published networks with their counts and published figures")
    imports = command("import-weights", "turn a checkpoint of the original code into weights of a published network")

    for each in (search, train):
        each.add_argument(
            "--space", default="hybrid", metavar="SPACE", help="search space: a name in search_spaces/ or a YAML file (default: hybrid)"
        )
    retrain.add_argument(
        "file", metavar="FILE", type=Path, help="an architecture, such as runs/best.yaml, or a published network, such as as_mlp_t"
    )
    profile.add_argument("file", metavar="FILE", type=Path, help="an architecture file, a published network's name, or a run's folder")
    profile.add_argument("--json", action="store_true", help="print one JSON object")
    form = presets.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list, one object for each network")
    form.add_argument("--markdown", action="store_true", help="print the page docs/networks.md")
    imports.add_argument("preset", metavar="PRESET", help="a published network's name, such as mixer_b_16; launch.py presets lists them")
    imports.add_argument("file", metavar="FILE", type=Path, help="its checkpoint: safetensors, or what torch.save wrote")
    imports.add_argument("--run", metavar="NAME", help="a folder under runs/ (default: import-PRESET)")

    for each in (search, train, retrain):
        each.add_argument(
            "--data",
            metavar="DATA",
            help="digits; a folder with train.parquet and test.parquet; a folder with train/ and val/ or test/, a folder of images per class in each; a torchvision data set's name (with --data-root)",
        )
        each.add_argument("--data-root", metavar="FOLDER", type=Path, help="where torchvision's data set is; nothing is downloaded")
        each.add_argument(
            "--recipe",
            metavar="RECIPE",
            help="a name in recipes/ or a YAML file (default: digits for digits, cifar up to 64 px, else imagenet)",
        )
        each.add_argument(
            "--resolution",
            metavar="PX",
            type=_whole(1),
            help="side of the images in training (default: the recipe's, else the images' own, rounded up to the space's stride, at most the space's)",
        )
        each.add_argument(
            "--run", metavar="NAME", help="a folder under runs/ (default: named after what is run; the same command continues it)"
        )
        each.add_argument("--device", metavar="DEVICE", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
        each.add_argument("--seed", metavar="N", type=_whole(0), default=0, help="of everything random (default: 0)")
        length = each.add_mutually_exclusive_group()
        what = "retraining" if each is retrain else "the supernet's training"
        length.add_argument("--epochs", metavar="N", type=_number, help=f"length of {what}, instead of the recipe's")
        length.add_argument("--steps", metavar="N", type=_whole(1), help="the same in steps")
        each.add_argument("--smoke", action="store_true", help="a few steps and trials: seconds, for tests")

    search.add_argument(
        "--budget",
        metavar="BUDGET",
        action="append",
        required=True,
        help="4.5GFLOPs, 4.5GMACs, 300MMACs, 28Mparams or 8ms; may be repeated",
    )
    search.add_argument(
        "--floor",
        metavar="SHARE",
        type=_number,
        default=0.8,
        help="a winner uses at least this share of its tightest budget (default: 0.8)",
    )
    search.add_argument(
        "--start",
        metavar="NETWORK",
        action="append",
        help="an architecture file or a published network to begin with; may be repeated (published networks that the space contains are taken by themselves)",
    )
    search.add_argument("--trials", metavar="N", type=_whole(1), help="networks to evaluate, instead of the recipe's number")
    search.add_argument(
        "--sampler", metavar="SAMPLER", default="nsga2", choices=("nsga2", "tpe", "random"), help="nsga2, tpe or random (default: nsga2)"
    )
    search.add_argument(
        "--workers", metavar="N", type=_whole(0), default=0, help="Ray actors that evaluate; 0: in this process (default: 0)"
    )
    search.add_argument("--latency-batch", metavar="N", type=_whole(1), default=1, help="images in a timed pass (default: 1)")
    return root


def main() -> int:
    """Runs one command; the exit status."""
    options = vars(parser().parse_args())
    command = options.pop("command")
    try:
        from nas import catalogue, jobs  # torch and the rest: only now, so that --help answers at once

        room = jobs if command in ("search", "train", "retrain") else catalogue
        return getattr(room, command.replace("-", "_"))(**options)
    except (ValueError, OSError) as error:
        if os.environ.get("NAS_TRACEBACK"):  # for whoever looks for a fault in the program
            raise
        fail(str(error))
    except (RuntimeError, MemoryError) as error:
        if type(error).__name__ not in ("OutOfMemoryError", "MemoryError"):  # torch's is named only, so that torch is not imported here
            raise
        fail(f"out of memory: {str(error).split('. ')[0]}. Lower 'batch_size' in the recipe, or --resolution; the same command continues.")
    except KeyboardInterrupt:
        print("launch.py: stopped; the same command continues.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
