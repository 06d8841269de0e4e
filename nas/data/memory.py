"""Small sets: decoded once into one uint8 tensor."""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data.images import Images, pixels

CHUNK = 256  # images a thread decodes between two looks at the clock
REPORT_SECONDS = 10


def decode(
    images: Images, indices: Sequence[int] | NDArray[np.int64], channels: int, resolution: int, threads: int, name: str
) -> Tensor:
    """Decodes images in a small pool of threads (Pillow releases the interpreter while it decodes).

    Args:
        images: The split.
        indices: Which images, in the order wanted.
        channels: 1 or 3.
        resolution: Side in pixels.
        threads: Size of the pool, at least 1.
        name: The data set's, for the progress line that appears on stderr when this takes long.

    Returns:
        uint8, [len(indices), channels, resolution, resolution], on the CPU.

    Raises:
        ValueError: A broken image, named: the first one in order.
    """
    images.prepare()
    decoded = torch.empty(len(indices), channels, resolution, resolution, dtype=torch.uint8)
    rows = decoded.numpy()

    def decode_chunk(start: int) -> int:
        stop = min(start + CHUNK, len(rows))
        for row in range(start, stop):
            rows[row] = pixels(images, int(indices[row]), channels, resolution)
        return stop

    begun = reported = time.monotonic()
    pool = ThreadPoolExecutor(max(1, threads))
    try:
        for done in pool.map(decode_chunk, range(0, len(rows), CHUNK)):
            now = time.monotonic()
            if now - reported > REPORT_SECONDS:
                reported, rate = now, done / (now - begun)
                left = (len(rows) - done) / rate
                print(
                    f"{name}: decoded {done:,} of {len(rows):,} images, {rate:,.0f} a second, {left:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, without the rest of the set
    return decoded
