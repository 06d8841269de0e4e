"""Many images: decoded once by threads where the set is small, batch by batch by processes where it is not.

Nothing is drawn at random here: what is wanted of each image comes with its index, so the number of threads or processes changes no batch.
"""

import itertools
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.augmentation import RESIZED_RATIO, random_boxes
from nas.data.images import REPLACE, Broken, Images, Unreadable, Unusable, picture, quiet, seems_whole
from nas.networks.preprocessing import Preprocessing, centre_square, scaled
from nas.progress import Progress

CHUNK = 256  # images a thread works on between two reports
POLL = 0.2  # seconds between two questions whether to stop
QUIET_SECONDS = 10  # before progress is shown
WAITING = 16  # threads that read headers, at least: these wait for a disk or a network
SHARED_MEMORY = "/dev/shm"
TWO_PAGES = 2 * 4096  # of a batch: its labels, and the rest of its last page of pixels
PREFETCHED = 4  # batches that each process prepares ahead
AHEAD = 2  # batches that threads decode ahead of a network
Wanted = tuple[int, list[float] | None]  # an image's index, and the random numbers of a box of it; None for its centre square
Heed = Callable[[], None]  # asked again and again; raises what is to end the work


def never() -> None:
    """Lets work go on to its end."""


def decode(
    images: Images, indices: NDArray[np.int64], shape: tuple[int, int], threads: int, name: str, heed: Heed = never
) -> tuple[Tensor, bool, list[Broken]]:
    """Decodes images in a pool of threads (Pillow releases the interpreter while it decodes), with progress where it takes long.

    Returns:
        The images' centre squares, uint8, [len(indices), channels, side, side] for a shape of (channels, side), on the CPU; whether every
        image had these sides by itself; and the broken images, in order, whose pixels are anything.
    """
    channels, side = shape
    decoded = torch.empty(len(indices), channels, side, side, dtype=torch.uint8)
    rows, unscaled = decoded.numpy(), np.ones(len(indices), bool)

    def decode_row(row: int) -> Broken | None:
        try:
            image, size = picture(images, int(indices[row]), channels, draft=side)
        except ValueError as error:
            return images.place(int(indices[row])), str(error)
        rows[row] = scaled(image, centre_square(image), side)
        unscaled[row] = size == (side, side)
        return None

    broken = _in_threads(decode_row, len(indices), threads, f"decode {name}", heed)
    return decoded, bool(unscaled.all()), broken


def look(images: Images, channels: int, side: int | None, threads: int, name: str, heed: Heed = never) -> tuple[list[Broken], int]:
    """Looks at all images and keeps nothing.

    Args:
        side: A resolution to decode all of them at; None: headers and endings, and only what these leave in doubt is decoded.

    Returns:
        The broken images, in order; and how many were not decoded.
    """
    undecoded = np.zeros(len(images.labels), bool)

    def look_at(index: int) -> Broken | None:
        try:
            undecoded[index] = side is None and seems_whole(images, index)
            if not undecoded[index]:
                picture(images, index, channels, draft=side or 1)
        except ValueError as error:
            return images.place(index), str(error)
        return None

    broken = _in_threads(look_at, len(images.labels), threads if side else max(threads, WAITING), f"look at {name}", heed)
    return broken, int(undecoded.sum())


def _in_threads(work: Callable[[int], Broken | None], count: int, threads: int, title: str, heed: Heed) -> list[Broken]:
    """Does `work` for 0 to count - 1 in a pool of threads; returns what it returned, in order, without the Nones."""
    found, ended = list[Broken](), threading.Event()

    def some(start: int) -> list[Broken]:
        results = (work(each) for each in range(start, min(start + CHUNK, count)) if not ended.is_set())
        return [each for each in results if each is not None]

    with quiet(), Progress(title, count, "image", quiet=QUIET_SECONDS) as progress:
        pool = ThreadPoolExecutor(threads)
        try:
            futures = [pool.submit(some, start) for start in range(0, count, CHUNK)]
            for number, future in enumerate(futures, start=1):
                heed()
                while not wait([future], POLL).done:
                    heed()
                found += future.result()
                progress.advance(min(number * CHUNK, count) - progress.done)
        finally:
            ended.set()  # after an error or Ctrl-C, without the rest of the set
            pool.shutdown(cancel_futures=True)
    return found


def decoded(
    images: Images, indices: NDArray[np.int64], how: Preprocessing, batch_size: int, threads: int
) -> Iterator[list[Tensor | ValueError]]:
    """Yields batch by batch, in order, uint8 pixels [C, R, R] of each image as a network takes them, or the error of a broken one.

    Threads decode a little ahead of whoever asks, so that any number of images can be gone through.
    """

    def one(index: int) -> Tensor | ValueError:
        try:
            image, _ = picture(images, int(index), how.channels, draft=how.enough)
            return torch.from_numpy(how.pixels(image).copy())
        except ValueError as error:
            return error

    pool = ThreadPoolExecutor(threads)
    with quiet():
        try:
            ahead: deque[Iterator[Tensor | ValueError]] = deque()
            for start in range(0, len(indices), batch_size):
                ahead.append(pool.map(one, indices[start : start + batch_size]))
                if len(ahead) > AHEAD:
                    yield list(ahead.popleft())
            while ahead:
                yield list(ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class Samples(Dataset[Any]):
    """Decodes one image at a time, in whichever process asks.

    For a broken image the next whole one of the split stands, in its own row and box: a function of the images alone, so that every process and
    every sitting does the same.
    """

    images: Images
    channels: int
    resolution: int
    scale: tuple[float, float]  # least and greatest part of the area that a random box takes
    split: NDArray[np.int64]  # its images, ascending
    most: int = 0  # broken ones of them, behind each other, that others stand for; with 0 there is no image in place of a broken one

    def __getitem__(self, wanted: Wanted) -> tuple[Tensor | None, int, list[Unusable]] | ValueError:
        """Returns pixels (None: of no image), the label, and the broken images that were met; or the error of an image that the system does not give
        out: raised, the DataLoader would wrap it in the worker's long traceback."""
        (index, numbers), broken = wanted, list[Unusable]()
        while len(broken) <= self.most:
            try:
                return self._pixels(index, numbers), int(self.images.labels[index]), broken
            except Unreadable as error:  # a plain copy: the original's cause may not survive pickling
                return ValueError(str(error).replace(REPLACE, "Put it back: the same command goes on."))
            except ValueError as error:
                broken.append((index, str(error)))
            index = int(self.split[(np.searchsorted(self.split, index) + 1) % len(self.split)])
        return None, 0, broken

    def _pixels(self, index: int, numbers: list[float] | None) -> Tensor:
        with quiet():
            image, (width, height) = picture(self.images, index, self.channels, draft=self.resolution if numbers is None else None)
        if numbers is None:
            box = centre_square(image)
        else:
            drawn = random_boxes(torch.tensor([numbers]), self.scale, RESIZED_RATIO, width / height)
            top, left, tall, wide = drawn[0].tolist()
            # float32 may exceed the image by its last bit, which Pillow would refuse.
            box = left * width, top * height, min((left + wide) * width, width), min((top + tall) * height, height)
        return torch.from_numpy(scaled(image, box, self.resolution).copy())


def stream(
    samples: Samples, batches: Iterable[list[Wanted]], processes: int, pin: bool, met: Callable[[list[Unusable]], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields uint8 images [B, C, R, R] and labels [B] on the CPU, in the order of `batches`, which may be endless.

    With 0 processes they are decoded in this one; `pin` is for batches that go to a GPU. `met` is told of broken images before their batch comes, in
    which they are not; a batch of none but such does not come.

    Raises:
        ValueError: An image that the system does not give out, named; or too little shared memory for the processes.
    """
    wanted = iter(batches)
    first = next(wanted, [])
    if processes:
        _check_shared_memory(processes, len(first) * samples.channels * samples.resolution**2)
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=itertools.chain([first] * bool(first), wanted),  # type: ignore[arg-type]  # any iterable of lists will do
        num_workers=processes,
        prefetch_factor=PREFETCHED if processes else None,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_heedless,
        # Its own: a DataLoader draws a base seed, from the global generator if it is given none.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        x, labels, broken = batch
        if broken:
            met(broken)
        if len(labels):
            yield x, labels


def _check_shared_memory(processes: int, batch_bytes: int) -> None:
    """Processes hand batches over in shared memory: where it has no room a batch never comes, and whoever asked for it waits for ever.

    Raises:
        ValueError: Batches that are prepared ahead have no room there.
    """
    if sys.platform != "linux":
        return
    try:
        there = os.statvfs(SHARED_MEMORY)
        free = 0 if there.f_flag & os.ST_RDONLY else there.f_bavail * there.f_frsize
    except OSError:
        free = 0
    if free < (needed := (processes * PREFETCHED + 2) * (batch_bytes + TWO_PAGES)):
        raise ValueError(
            f"--loaders: too little shared memory for {processes} processes: got {free / 1e6:.3g} MB free in {SHARED_MEMORY}; accepted: "
            f"{needed / 1e6:.3g} MB. Take --loaders 0, or fewer, or make it larger (docker run --shm-size)."
        )


def _heedless(worker: int) -> None:
    """Signals that stop a command go to all its processes at times (Slurm's, torchrun's, Ctrl-C's). A loader that died of one would take the command
    with it before it has written a checkpoint; it ends with the command instead."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _collate(samples: list[Any]) -> Any:
    if errors := [sample for sample in samples if isinstance(sample, ValueError)]:
        return errors[0]
    whole, broken = [(x, label) for x, label, _ in samples if x is not None], [each for *_, those in samples for each in those]
    return torch.stack([x for x, _ in whole]) if whole else torch.empty(0), torch.tensor([label for _, label in whole]), broken
