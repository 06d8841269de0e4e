"""The token mixers, one per file. To add one: write its file, and add its line to `MIXERS`.

A mixer is an `nn.Module` class that keeps this contract (`tests/test_mixers.py` holds every entry of `MIXERS` to it):

- `options`: the fields of `architecture.Stage` that it reads, besides the width;
- `__init__(width, grid, **options)`: `width` channels on a `grid` of (height, width) tokens; a shape that it cannot
  take is a `ValueError` that names the shape. No buffers: the supernet runs it with parameters of its choice, nothing else;
- `forward(x_BHWC)`: same shape and dtype out, the input not modified, samples independent of each other;
- `cost(width, grid, **options)`: a static method, multiply-adds, parameters and activations by arithmetic;
- `take(name, shared)`, where leading slices would be wrong: this module's own part of `shared`, the parameter `name` of the
  same mixer at a larger width or kernel. Without it, every dimension takes its first entries.
"""

from torch import nn

from nas.mixers.as_shift import ASShift
from nas.mixers.attention import Attention
from nas.mixers.conv import Conv
from nas.mixers.permute import Permute
from nas.mixers.s2_shift import S2Shift
from nas.mixers.token_mlp import TokenMLP

# In the order in which a search space lists them and a seed draws them.
MIXERS: dict[str, type[nn.Module]] = {
    "conv": Conv,
    "attention": Attention,
    "token_mlp": TokenMLP,
    "s2_shift": S2Shift,
    "as_shift": ASShift,
    "permute": Permute,
}
