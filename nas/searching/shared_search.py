"""Several drivers of the same searches, whose studies are on a server: one leads, the others evaluate for it, and lead where it ends before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from nas.progress import Progress
from nas.runs.folder import InUse
from nas.runs.interrupt import Stopped
from nas.searching.evaluating import open_evaluator
from nas.searching.optuna_study import all_facts, check_facts
from nas.searching.search_run import SearchRun
from nas.searching.study_queue import PAUSE, Queue
from nas.searching.study_storage import Server, connected
from nas.training.setting import look_at_images

WAIT = 600.0  # seconds that who holds the run may take until there is something to evaluate; once there was, it is known to lead


def lead_or_help(searches: Sequence[SearchRun], lead: Callable[[bool], None], stop: Callable[[], bool]) -> None:
    """Leads the searches, one after the other; where another driver does that already, evaluates for it until nothing is left to evaluate. Between
    two searches it trains finalists, which may take hours: who helps waits.

    Args:
        searches: on one supernet.
        lead: leads all of them; is told whether this process has helped another, whose winners are then not looked for again.
        stop: asked now and then.

    Raises:
        InUse: another process holds the run, and does not search it on a server.
        Stopped: `stop` became true.
    """
    begun, helped, said = time.monotonic(), 0, False
    while helped < len(searches):
        try:
            return lead(said)
        except InUse as error:
            if not _can_help(searches[helped]):
                raise
            if not said:
                print(f"{error} Evaluating for it meanwhile.", flush=True)
            said, in_use = True, error
        done = help_with(searches[helped], stop)
        if done is not None:
            begun, helped = time.monotonic(), helped + done
        elif not helped and time.monotonic() - begun > WAIT:
            raise in_use
        if stop():
            raise Stopped("evaluating for another driver stopped")
        time.sleep(PAUSE)
    print("Nothing is left to evaluate; the driver that leads goes on alone, and writes the winner.")


def _can_help(search: SearchRun) -> bool:
    return isinstance(search.place, Server) and bool(search.request.trials) and search.supernet.finished()


def help_with(search: SearchRun, stop: Callable[[], bool]) -> bool | None:
    """Evaluates for the driver that leads a search: True once all is evaluated, False where it ended before, None where there is none yet.

    Raises:
        ValueError: its study was begun with something else; one line.
        Stopped: `stop` became true.
    """
    place, setting, request = search.place, search.supernet.setting, search.request
    assert isinstance(place, Server)
    with connected(place) as storage:
        queue = Queue(place, storage, search.study)
        if queue.over(request.trials, search.finalists):
            return True
        begun = queue.begun()
        if begun is None:
            return None
        supernet = search.supernet.loaded()
        if supernet is None:
            raise ValueError(
                f"{search.supernet.checkpoint}: not the trained supernet: got none that can be loaded; accepted: that of the driver that leads. Copy it."
            )
        check_facts(place, search.study, begun, all_facts(request, search.facts(supernet)))
        look_at_images(setting, search.supernet.run, None, stop, remember=False)
        batches = setting.images.kept("held_out", setting.recipe.search.batch_size)
        with (
            open_evaluator(supernet, batches, setting.recipe, setting.device, search.crew, stop) as evaluator,
            Progress(f"evaluate for {search.study}", request.trials, "evaluation") as progress,
        ):
            done = queue.help(evaluator.evaluate, request.trials, stop, progress.reach)
            progress.total = progress.done  # the others were evaluated elsewhere
            return done
