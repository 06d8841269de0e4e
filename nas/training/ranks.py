"""Several processes that train one model together, as torchrun starts them: what they tell each other, and how they end.

All run the same command on a part of every batch each, and the first alone writes. Gradients are summed by `Ranks.sum`, with a mark beside them by
which a wish to stop is agreed on without a message of its own. Whatever only the first does, the others wait for (`Ranks.of_first`) through the
launcher's store, however long it takes: a collective operation would run out of time. Who fails says why, once, and nobody waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from nas.data.parts import Part
from nas.machine import place_among_processes
from nas.runs.folder import Run
from nas.runs.interrupt import SIGNALS, Interrupt, Stopped

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # for a message of another process: a large checkpoint is written meanwhile
LOOK, SELDOM = 0.05, 1.0  # seconds between two looks at the store by those who wait, and by the first while it works
FORCE = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "")  # seconds after which torchrun ends by force what it has told to stop; else 30
LAST = max(5.0, (float(FORCE) if FORCE.isdecimal() else 30.0) - 10)  # seconds that who waits and is to stop waits on
LEAVING = 5.0  # seconds that the first one waits for the others to see why all end, where it has the store: torchrun has it
SEEN = 90.0  # seconds until a file that one machine wrote is seen by all: NFS looks once a minute
BUCKET = 2**23  # numbers that are summed in one message


def _never() -> bool:
    return False


class Elsewhere(Exception):
    """Another process has failed, and says why."""


class Lost(ValueError):
    """Another process is gone, or at work for too long, and cannot say why."""


class Ranks:
    """The processes that train together, as one of them sees them; by default it is alone.

    Attributes:
        number: of this process, from 0.
        count: of all.
        local: number of this process on its machine, and how many there are.
    """

    def __init__(self, number: int = 0, count: int = 1, local: tuple[int, int] = (0, 1), store: Any = None) -> None:
        self.number, self.count, self.local = number, count, local
        self._store, self._told, self._looked, self._launcher = store, 0, 0.0, os.getppid()
        self._wish: Callable[[], bool] = _never

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    @property
    def part(self) -> Part:
        """Of every batch."""
        return Part(self.number, self.count)

    def gpu(self) -> torch.device:
        """This process's own, which no other process of its machine uses.

        Raises:
            ValueError: fewer GPUs than processes.
        """
        if self.local[1] > torch.cuda.device_count():
            raise ValueError(
                f"torchrun: more processes than GPUs on a machine: got {self.local[1]}; accepted: at most {torch.cuda.device_count()}. "
                "Give a smaller --nproc-per-node, or --device cpu."
            )
        return torch.device("cuda", self.local[0])

    @contextlib.contextmanager
    def interrupt(self) -> Iterator[Callable[[], bool]]:
        """Gives a function that says whether this process is to stop: by a signal, since its launcher is gone, or, to the first one while it
        works and the others wait, since one of these is."""
        with Interrupt(together=self.count > 1, quiet=not self.first) as interrupt:
            if self.count == 1:
                yield lambda: interrupt.requested
                return
            self._wish = lambda: interrupt.requested or os.getppid() != self._launcher
            try:
                yield lambda: self._wish() or self._asked_by_others()
            finally:
                self._wish = _never

    def _asked_by_others(self) -> bool:
        if not self.first or time.monotonic() - self._looked < SELDOM:
            return False
        self._looked = time.monotonic()
        with _losing():
            return bool(self._store.check(["stop"]))

    @contextlib.contextmanager
    def holding(self, run: Run) -> Iterator[None]:
        """Holds a run for all of them.

        Raises:
            ValueError: another command holds it, or this process does not see the folder of the first one.
        """
        path = run.folder / ".lock"
        with contextlib.ExitStack() as held:

            def hold() -> str:
                held.enter_context(run.lock())
                return path.read_text()

            holder, until = self.of_first(hold), time.monotonic() + SEEN
            while not (path.exists() and path.read_text() == holder):
                if time.monotonic() > until:
                    raise ValueError(
                        f"{run.folder}: not the folder of the first process; accepted: one that all see. Put it on a shared disk."
                    )
                time.sleep(LOOK)
            yield

    def of_first(self, work: Callable[[], T]) -> T:
        """What `work` gives on the first process (plain values), which alone does it; all go on together after it.

        Raises:
            Elsewhere: it failed there; or whatever it raised, on the first.
            Stopped: it was stopped there.
        """
        if self.count == 1:
            return work()
        self._told += 1
        key = f"told {self._told}"
        if self.first:
            try:
                result = work()
            except BaseException as error:
                with contextlib.suppress(RuntimeError):
                    self._store.set(key, json.dumps({"stopped": isinstance(error, Stopped)}))
                raise
            self._store.set(key, json.dumps({"result": result}))
        else:
            self._wait_for(key)
            told = json.loads(self._store.get(key))
            if "result" not in told:
                raise Stopped("stopped by the first process") if told["stopped"] else Elsewhere
            result = told["result"]
        self.sum([torch.zeros(1)])  # who is gone is noticed here, and nobody runs ahead
        return result

    def _wait_for(self, key: str) -> None:
        until = None
        with _losing():
            while not self._store.check([key]):
                if until is None and self._wish():
                    until = time.monotonic() + LAST
                    self._store.set("stop", "")
                if self._store.check(["failed"]):
                    raise Elsewhere
                if until is not None and time.monotonic() > until:
                    raise Lost(
                        f"training: not stopped in order: got no end of what the first process does alone within {LAST:g} s; accepted: an end between two "
                        "batches. The same command continues from the last checkpoint."
                    )
                time.sleep(LOOK)

    def agree(self, told: dict[str, object]) -> None:
        """Refuses to train together what is not the same everywhere.

        Raises:
            ValueError: this process is about something else than the first.
        """
        mine = {name: str(value) for name, value in told.items()}
        for name, first in self.of_first(lambda: mine).items():
            if mine[name] != first:
                raise ValueError(
                    f"process {self.number} of {self.count}, on {platform.node()}, does not train what the first one does: {name}: got {mine[name]}; accepted: {first}. "
                    "Give all the same command, program and images, and a folder of runs that all see."
                )

    def share(self, model: nn.Module) -> None:
        """Gives every process the first one's weights: fresh ones may differ by their last bit between processors."""
        if self.count > 1:
            with _losing():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, 0)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Puts into each tensor, on every process, the sum over all: to the same bits everywhere. Sizes and their order are the same there."""
        flat: list[tuple[list[Tensor], Tensor, Any]] = []
        for bucket in _buckets(tensors):
            joined = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _losing():
                flat.append((bucket, joined, dist.all_reduce(joined, async_op=True)))
        for bucket, joined, pending in flat:
            with _losing():
                pending.wait()
            for tensor, whole in zip(bucket, joined.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(whole.view_as(tensor))

    def says(self, error: BaseException) -> bool:
        """Whether this process is the one to say why all of them end."""
        if isinstance(error, (Stopped, Elsewhere)):
            return self.first and isinstance(error, Stopped)
        try:
            return int(self._store.add("failed", 1)) == 1
        except RuntimeError:  # the store is gone, with whoever could have said it
            return True

    def leave(self) -> None:
        """At the end after an error: where the first one has the store it stays until all know, for a while."""
        with contextlib.suppress(RuntimeError):
            self._store.add("left", 1)
            if self.first and not os.environ.get("TORCHELASTIC_USE_AGENT_STORE") and not torch.cuda.is_initialized():
                dist.destroy_process_group()  # who waits for a sum is told
                until = time.monotonic() + LEAVING
                while int(self._store.add("left", 0)) < self.count and time.monotonic() < until:
                    time.sleep(LOOK)


ALONE = Ranks()


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The processes of the launcher that started this one, for a command to be run by all of them; one alone where there is none.

    The first speaks, on stdout and stderr, and the others are silent. An error is said once, by whoever met it first, and ends them all.
    """
    number, count = place_among_processes()
    if count == 1:
        yield ALONE
        return
    ranks = _meet(number, count)
    try:
        with contextlib.ExitStack() as silence:
            if not ranks.first:
                nowhere = silence.enter_context(open(os.devnull, "w"))
                silence.enter_context(contextlib.redirect_stdout(nowhere))
                silence.enter_context(contextlib.redirect_stderr(nowhere))
            yield ranks
            ranks.of_first(lambda: None)  # all end together
    except Exception as error:
        for each in SIGNALS:  # who ends first makes torchrun stop the others, which are ending themselves
            signal.signal(each, signal.SIG_IGN)
        says = ranks.says(error)
        ranks.leave()
        if says:
            raise
        raise SystemExit(error.exit_status if isinstance(error, Stopped) else 2) from None
    dist.destroy_process_group()


def _meet(number: int, count: int) -> Ranks:
    local = tuple(int(os.environ.get(name, usual)) for name, usual in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")))
    gpus, ranks = torch.cuda.device_count(), None
    if gpus:
        torch.cuda.set_device(local[0] % gpus)
    try:
        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(_meeting(store, number, count), store)
        ranks = Ranks(number, count, (local[0], local[1]), dist.PrefixStore("nas", store))
        backend = "cpu:gloo,cuda:nccl" if gpus and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=number, world_size=count, timeout=PATIENCE)
        return ranks
    except (RuntimeError, ValueError) as error:
        if ranks and not ranks.says(error):  # another one came, and failed at once
            raise SystemExit(2) from None
        raise ValueError(
            f"torchrun: {count} processes did not find each other: got {_first_line(error)}; accepted: what torchrun sets in the environment. "
            "Start them with torchrun, and see that every machine reaches the first one."
        ) from None


def _meeting(store: Any, number: int, count: int) -> str:
    """A name for this meeting of all. Where torchrun starts processes anew the store holds what those before them left, also where they are."""
    mine, until = uuid.uuid4().hex, time.monotonic() + PATIENCE.total_seconds()
    came = {0}
    if number == 0:
        store.set("meeting", mine)
    while time.monotonic() < until:
        if number == 0:
            for other in [each for each in range(count) if each not in came and store.check([f"{mine} {each}"])]:
                store.set(f"{mine} {other} seen", store.get(f"{mine} {other}"))
                came.add(other)
            if len(came) == count:
                return mine
        elif store.check(["meeting"]):  # it may be an earlier one: then nobody sees who comes
            name = store.get("meeting").decode()
            store.set(f"{name} {number}", mine)
            if store.check([f"{name} {number} seen"]) and store.get(f"{name} {number} seen").decode() == mine:
                return str(name)
        time.sleep(LOOK)
    raise RuntimeError(f"{len(came)} came" if number == 0 else "nobody saw this one come")


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """In their order, those of one type together, in groups of at most `BUCKET` numbers where there are several."""
    buckets: list[list[Tensor]] = []
    for tensor in tensors:
        if not buckets or buckets[-1][0].dtype != tensor.dtype or sum(map(torch.numel, buckets[-1])) + tensor.numel() > BUCKET:
            buckets.append([])
        buckets[-1].append(tensor)
    return buckets


@contextlib.contextmanager
def _losing() -> Iterator[None]:
    """Raises `Lost` where torch says that a connection is."""
    try:
        yield
    except RuntimeError as error:
        said = f"got {_first_line(error)}; accepted: all of them until the end"
        raise Lost(f"training: another process is gone: {said}. The same command continues from the last checkpoint.") from None


def _first_line(error: BaseException) -> str:
    """What torch says, without the place in its source and without its advice."""
    said = re.sub(r"\[\S+\.cc?(pp)?:\d+\]\s*", "", (str(error) or type(error).__name__).splitlines()[0])
    return said.split(". ")[0][:200].rstrip(".")
