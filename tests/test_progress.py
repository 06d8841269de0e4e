"""Progress: a first line, one now and then, a last one; a rate and the time left in each."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from nas.progress import Progress, duration

REPOSITORY = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def lines_of(total: int, seconds: list[float], done: int = 0, each: int = 1) -> list[str]:
    """Of a work of which `each` units come at a time, after so many seconds; `done` were an earlier process's."""
    stream, clock = io.StringIO(), Clock()
    with Progress("train", total=total, stream=stream, clock=clock) as progress:
        progress.skip(done)
        for number, passed in enumerate(seconds):
            clock.seconds += passed
            progress.reach(done + each * (number + 1), f"loss {number}")
    return stream.getvalue().splitlines()


def test_plain_lines_come_first_now_and_then_and_last() -> None:
    assert lines_of(total=60, seconds=[0.5] * 60) == [
        "train: 1/60 steps, loss 0",
        "train: 25/60 steps, 2 steps/s, 0:18 left, loss 24",
        "train: 49/60 steps, 2 steps/s, 0:06 left, loss 48",
        "train: 60/60 steps, 2 steps/s, took 0:30, loss 59",
    ]


def test_what_is_slow_is_told_in_seconds_each() -> None:
    assert lines_of(total=3, seconds=[90, 90])[-1] == "train: 2/3 steps, 90 s/step, 1:30 left, loss 1"


def test_the_time_left_waits_until_it_means_something() -> None:
    """The first step of a training is slow: by it alone 23 seconds were foretold as 19 minutes."""
    first, second, *_, last = lines_of(total=200, seconds=[5.0, *[0.1] * 199])
    assert first == "train: 1/200 steps, loss 0" and ", 10 steps/s, 0:08 left" in second and ", 10 steps/s, took 0:25" in last


def test_work_of_an_earlier_process_does_not_count_as_speed() -> None:
    assert lines_of(total=120, seconds=[1.0] * 14, done=99)[1].startswith("train: 112/120 steps, 1 steps/s, 0:08 left")


def test_a_first_report_of_many_steps_is_not_an_earlier_process() -> None:
    """On a GPU every tenth step is told."""
    assert lines_of(total=200, seconds=[1.0] * 14, each=10)[1].startswith("train: 130/200 steps, 10 steps/s, 0:07 left")


def test_a_text_stays_until_there_is_another() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("search", total=3, stream=stream, clock=clock) as progress:
        for text in ("best 0.5", None):
            clock.seconds += 20
            progress.advance(text=text)
    assert all(line.endswith(", best 0.5") for line in stream.getvalue().splitlines())


def test_stopping_early_says_how_far_it_came() -> None:
    stream, clock = io.StringIO(), Clock()
    with pytest.raises(KeyboardInterrupt), Progress("search", total=9, unit="trial", stream=stream, clock=clock) as progress:
        for _ in range(3):
            clock.seconds += 1
            progress.advance()
        raise KeyboardInterrupt
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == ["search: 1/9 trials", "search: 3/9 trials"]


def test_nothing_to_do_shows_nothing() -> None:
    assert lines_of(total=0, seconds=[]) == []


def test_a_terminal_gets_one_line_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    stream, clock = Terminal(), Clock()
    with Progress("train", total=40, stream=stream, clock=clock) as progress:
        for number in range(40):
            clock.seconds += 0.1
            progress.advance(text=f"loss {number}" + " and more" * 9)
    first, *states = stream.getvalue().split("\r\x1b[K")
    assert first == "" and states[-1].endswith("\n") and "\n" not in "".join(states)[:-1]
    assert 13 <= len(states) <= 15, "four times a second"
    assert all(len(state.rstrip("\n")) < 50 for state in states), "what wraps is not rewritten"
    assert states[-1].startswith("train: 40/40 steps, 10 steps/s, took 0:04, loss")


def test_progress_is_on_stderr() -> None:
    code = "import nas.progress\nwith nas.progress.Progress('x', 1) as p: p.advance()"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr.startswith("x: 1/1 steps")  # stdout is for results


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 43, 59.6, 725, 12000)] == ["0:00", "0:43", "1:00", "12:05", "3:20:00"]


def test_short_work_is_not_shown_at_all() -> None:
    for seconds, shown in ((4, ""), (11, "decode: 2/3 images")):
        stream, clock = io.StringIO(), Clock()
        with Progress("decode", total=3, unit="image", stream=stream, clock=clock, quiet=10) as progress:
            for _ in range(2):
                clock.seconds += seconds / 2
                progress.advance()
        assert stream.getvalue().startswith(shown) and bool(stream.getvalue()) == bool(shown)


def test_a_total_that_was_an_estimate_may_be_put_right_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("climb", total=10, stream=stream, clock=clock) as progress:
        for _ in range(2):
            clock.seconds += 20
            progress.advance(3)
        progress.total = progress.done
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "climb: 3/10 steps", "climb: 6/10 steps", "climb: 6/6 steps",
    ]  # fmt: skip
    assert "left" not in stream.getvalue().splitlines()[-1]
