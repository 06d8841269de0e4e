"""The token mixers, one per file. To add one: write its file, and add its line to `MIXERS`.

A mixer is an `nn.Module` class that keeps this contract (`tests/test_mixers.py` holds every entry of `MIXERS` to it):

- `options`: the fields of `architecture.Stage` that it reads, besides the width. Of those that `__init__` lets be None, exactly one is given;
- `__init__(width, grid, **options)`: `width` channels on a `grid` of (height, width) tokens; a shape or an option that it cannot
  take is a `ValueError` that names it. No buffers: the supernet runs it with parameters of its choice, nothing else;
- `forward(x_BHWC)`: same shape and dtype out, the input not modified, samples independent of each other;
- `cost(width, grid, **options)`: a static method, multiply-adds, parameters and activations by arithmetic;
- `take(name, shared)`, where leading slices would be wrong: this module's own part of `shared`, the parameter `name` of the
  same mixer at a larger width or kernel. Without it, every dimension takes its first entries.

A block may also have no mixer (`NO_MIXER`): then it has no branch either, and nothing here is built for it.
"""

from torch import nn

from nas.networks.mixers.as_shift import ASShift
from nas.networks.mixers.attention import Attention
from nas.networks.mixers.conv import Conv
from nas.networks.mixers.permute import Permute
from nas.networks.mixers.s2_shift import S2Shift
from nas.networks.mixers.s2_shift_v2 import S2ShiftV2
from nas.networks.mixers.token_linear import TokenLinear
from nas.networks.mixers.token_mlp import TokenMLP

# In the order in which a search space lists them and a seed draws them.
MIXERS: dict[str, type[nn.Module]] = {
    "conv": Conv,
    "attention": Attention,
    "token_mlp": TokenMLP,
    "token_linear": TokenLinear,
    "s2_shift": S2Shift,
    "s2_shift_v2": S2ShiftV2,
    "as_shift": ASShift,
    "permute": Permute,
}

NO_MIXER = "none"  # a block without a mixer's branch; with its position encoding it is SPACH's convolution block
NAMES = (NO_MIXER, *MIXERS)  # whatever may stand as a block's mixer


def options_of(mixer: str) -> tuple[str, ...]:
    """The fields of `architecture.Stage` that a mixer reads, besides the width; none for a block without one."""
    return () if mixer == NO_MIXER else MIXERS[mixer].options  # type: ignore[attr-defined]
