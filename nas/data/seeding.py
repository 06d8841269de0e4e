"""Randomness as a function of seed and step: no state to save, nothing to restore."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

# First words of a key: they keep apart the draws that share a seed and a step.
ORDER, DRAW, MIX, BOX, SPLIT = range(1, 6)


def seed_step(seed: int, step: int) -> None:
    """Seeds Python's, numpy's and torch's global generators (CPU and GPU) for one step of a run; `seed` is any integer."""
    word = key_word(seed, step)
    _seed_cpu(word)
    torch.manual_seed(word)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seeds the global CPU generators by `key` for the body and restores their states after it.

    For library code that draws from the global generators, so that a batch neither sees nor moves the state that the training loop draws
    from. GPU generators stay as they are.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed_cpu(key_word(*key))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def key_word(*key: int) -> int:
    """Returns 63 well-mixed bits for a tuple of integers, negative ones allowed."""
    return int(_sequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*key: int) -> torch.Generator:
    """Returns a CPU generator of its own for a key: the same draws whichever device the images are on."""
    return torch.Generator().manual_seed(key_word(*key))


def permutation(count: int, *key: int) -> NDArray[np.int64]:
    """Returns a permutation of `range(count)` that depends on the key alone.

    numpy promises PCG64's raw stream for ever but not `Generator.permutation`, and a split that moves with a version of numpy would leak
    held-out images into training.
    """
    return np.argsort(np.random.PCG64(_sequence(key)).random_raw(count), kind="stable")


def _sequence(key: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([word % 2**64 for word in key])


def _seed_cpu(word: int) -> None:
    random.seed(word)
    np.random.seed(word % 2**32)
    # The CPU generator only: torch.manual_seed would move the GPU's as well.
    torch.default_generator.manual_seed(word)
