"""Splits that are the same for every run: stratified by class, chosen by a fixed seed."""

import numpy as np
from numpy.typing import NDArray

from nas.data.seeding import SPLIT, permutation

MAX_HELD_OUT = 5000


def held_out_size(num_images: int) -> int:
    """Returns how many training images are held out for selection: a fifth, at most 5,000."""
    return min(MAX_HELD_OUT, num_images // 5)


def stratified(labels: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sets images aside so that every class gives its share.

    Shares are rounded by largest remainder, so the total is exact; a class keeps at least one image, even where that
    leaves the total short.

    Args:
        labels: Class of each image, [N].
        count: Number of images to set aside.

    Returns:
        The indices kept and the indices set aside, each ascending.
    """
    counts = np.bincount(labels)
    exact = counts * (count / max(1, len(labels)))
    shares = np.floor(exact).astype(np.int64)
    # Ties go to the lower class, so that equal remainders split alike everywhere.
    for label in np.argsort(-(exact - shares), kind="stable")[: count - int(shares.sum())]:
        shares[label] += 1
    shares = np.minimum(shares, np.maximum(counts - 1, 0))
    order = permutation(len(labels), SPLIT)
    aside = np.zeros(len(labels), dtype=bool)
    for label, share in enumerate(shares):
        aside[order[labels[order] == label][:share]] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)
