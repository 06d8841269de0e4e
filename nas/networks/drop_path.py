"""Stochastic depth: a branch is left out of some samples. timm's layer, which takes three seconds to import; so only training imports this file.

Source: G. Huang et al., "Deep Networks with Stochastic Depth", https://arxiv.org/abs/1603.09382.
"""

from __future__ import annotations

import timm.layers
from torch import Tensor


class DropPath(timm.layers.DropPath):
    """Also for a part of a batch: draws for all samples of the batch, so that each meets what it meets where the batch is done in one go.

    Attributes:
        rows: how many samples the whole batch has, and which of them [B] are given; None: all.
    """

    rows: tuple[int, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.rows is None or not self.training:
            return super().forward(x)
        total, places = self.rows
        kept = super().forward(x.new_ones(total, *(1 for _ in x.shape[1:])))
        return x * kept[places]
