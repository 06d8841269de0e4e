"""Which images of a batch a process works on, where several processes share every batch."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Rows(NamedTuple):
    """Some rows of a batch. What is random is drawn for the whole batch, and these rows take their own of it.

    Attributes:
        total: How many the whole batch has.
        places: Those meant here, ascending, int64 on the CPU.
    """

    total: int
    places: Tensor


@dataclass(frozen=True)
class Part:
    """The share of one of several processes in every batch; of one process the whole.

    mixup and cutmix mix image i of B with image B - 1 - i. The two go to the same process, so that mixing its own part from both ends does to each
    image what mixing the whole batch does.
    """

    number: int = 0
    of: int = 1

    def rows(self, batch_size: int) -> Rows:
        """Its rows of a batch of so many; parts differ by two at most.

        Raises:
            ValueError: Fewer pairs than processes.
        """
        if (batch_size + 1) // 2 < self.of:
            raise ValueError(
                f"--batch-size: too few images for so many processes: got {batch_size} for {self.of}; accepted: {2 * self.of} or more, two for each. "
                "Give a larger one, or start fewer processes."
            )
        first = np.array_split(np.arange((batch_size + 1) // 2), self.of)[self.number]
        return Rows(batch_size, torch.from_numpy(np.unique(np.concatenate([first, batch_size - 1 - first]))))

    def least(self, batch_size: int) -> int:
        """How many rows the smallest part has."""
        return len(Part(self.of - 1, self.of).rows(batch_size).places)


WHOLE = Part()
