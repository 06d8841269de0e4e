"""The official SPACH, AS-MLP and ViP networks, built a second time: from their definitions, under the module names that their authors published.

Their state dicts have the layout of the official files, their functions are written another way than the project's. `randomised` moves every
weight away from where it begins: with heads of zeros and scales of 1e-4 all networks look alike. Sizes are free, for tests at a small one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fresh float32 values on the CPU for all parameters and buffers: weights by their fan-in, everything per channel between 1/2 and 3/2."""
    module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for tensor in (*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())):
        fan_in = tensor[0].numel() if tensor.dim() > 1 and tensor.shape[0] > 1 else 1
        values = torch.rand(tensor.shape, generator=generator)
        tensor.data.copy_(values + 0.5 if fan_in == 1 else (2 * values - 1) * math.sqrt(3 / fan_in))
    for buffer in module.buffers():
        if not buffer.is_floating_point():
            buffer.zero_()
    return module.eval()


class Named(nn.Module):
    """Modules by name, for levels that only name things."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def two_layers(fc1: nn.Module, fc2: nn.Module, x: Tensor) -> Tensor:
    return fc2(F.gelu(fc1(x)))


# --------------------------------------------------------------------------------------------------------- SPACH


class SpachAttention(Named):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        self.heads = heads

    def forward(self, x_BNC: Tensor) -> Tensor:
        mixed = []
        rows = self.qkv(x_BNC).chunk(3, dim=-1)  # all of q, all of k, all of v
        for q, k, v in zip(*(part.chunk(self.heads, dim=-1) for part in rows), strict=True):  # in each, head after head
            scores = torch.einsum("bnc,bmc->bnm", q, k) / math.sqrt(q.shape[-1])
            mixed.append(torch.einsum("bnm,bmc->bnc", scores.softmax(dim=-1), v))
        return self.proj(torch.cat(mixed, dim=-1))


class SpachMLP(Named):
    def __init__(self, tokens: int) -> None:
        hidden = int(tokens * 0.5) or tokens
        super().__init__(fc1=nn.Linear(tokens, hidden), fc2=nn.Linear(hidden, tokens))

    def forward(self, x_BNC: Tensor) -> Tensor:
        return two_layers(self.fc1, self.fc2, x_BNC.mT).mT


class SpachBlock(nn.Module):
    """z + gamma * F(norm1(z)) + depthwise(z), then the channel MLP; without F (`pass`) neither norm1 nor gamma."""

    def __init__(self, width: int, ratio: float, mixer: nn.Module | None) -> None:
        super().__init__()
        if mixer is not None:
            self.spatial_func = mixer
            self.norm1 = nn.LayerNorm(width, eps=1e-6)
            self.gamma_1 = nn.Parameter(torch.empty(1, 1, width))
        self.channel_func = Named(fc1=nn.Linear(width, int(width * ratio)), fc2=nn.Linear(int(width * ratio), width))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.cpe_net = Named(net=nn.Sequential(nn.Identity(), nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Identity()))
        self.mixes = mixer is not None

    def forward(self, z_BNC: Tensor) -> Tensor:
        side = math.isqrt(z_BNC.shape[1])
        y = z_BNC + self.cpe_net.net(z_BNC.mT.unflatten(-1, (side, side))).flatten(2).mT
        if self.mixes:
            y = y + self.gamma_1 * self.spatial_func(self.norm1(z_BNC))
        return y + two_layers(self.channel_func.fc1, self.channel_func.fc2, self.norm2(y))


class SpachDownsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convolution = nn.Sequential(nn.Conv2d(width, 2 * width, 2, stride=2, bias=False), nn.GroupNorm(1, 2 * width))
        self.net = nn.Sequential(nn.Identity(), convolution, nn.Identity())

    def forward(self, x_BNC: Tensor) -> Tensor:
        side = math.isqrt(x_BNC.shape[1])
        return self.net(x_BNC.mT.unflatten(-1, (side, side))).flatten(2).mT


class Spach(nn.Module):
    """`stages` names each block's spatial function, pass, attn or mlp. One stage is the official Spach, several are SpachMS."""

    def __init__(
        self,
        resolution: int,
        patch: int,
        width: int,
        stages: list[list[str]],
        heads: int = 1,
        ratio: float = 2.0,
        shared: bool = False,
        conv4: bool = False,
        classes: int = 5,
    ) -> None:
        super().__init__()
        self.stem = Named(proj=self._conv4(width, patch) if conv4 else nn.Conv2d(3, width, patch, stride=patch))
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        tokens = (resolution // patch) ** 2
        self.parts = []
        for i, functions in enumerate(stages):
            width, tokens = (2 * width, tokens // 4) if i else (width, tokens)
            makers = {"pass": lambda: None, "attn": lambda w=width: SpachAttention(w, heads), "mlp": lambda n=tokens: SpachMLP(n)}
            common = makers[functions[0]]() if shared and (i or len(stages) == 1) else None
            blocks = [SpachBlock(width, ratio, common or makers[name]()) for name in functions]
            self.parts.append(f"layer{i + 1}" if len(stages) > 1 else "blocks")
            self.add_module(self.parts[-1], nn.Sequential(*([SpachDownsample(width // 2)] if i else []), *blocks))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    @staticmethod
    def _conv4(width: int, patch: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels, kernel, stride in ((3, 7, 2), (64, 3, 1), (64, 3, 1)):
            layers += [nn.Conv2d(channels, 64, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(64, width, patch // 2, stride=patch // 2))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x_BNC = self.norm1(self.stem.proj(images_BCHW).flatten(2).mT)
        for part in self.parts:
            x_BNC = self.get_submodule(part)(x_BNC)
        return self.head(self.norm2(x_BNC).mean(dim=1))


# -------------------------------------------------------------------------------------------------------- AS-MLP


def axial_shift(x_BCHW: Tensor, dim: int) -> Tensor:
    """Channel c moves by c // ceil(C / 5) - 2 along `dim`, as a fixed depthwise convolution with zeros around: the tap of what moves by s is at 2 - s."""
    channels = x_BCHW.shape[1]
    taps = [2 - (c // math.ceil(channels / 5) - 2) for c in range(channels)]
    kernels = F.one_hot(torch.tensor(taps), 5).to(x_BCHW.dtype)
    shape, padding = ((channels, 1, 5, 1), (2, 0)) if dim == 2 else ((channels, 1, 1, 5), (0, 2))
    return F.conv2d(x_BCHW, kernels.reshape(shape), padding=padding, groups=channels)


class AxialShift(Named):
    def __init__(self, width: int) -> None:
        convolutions = {name: nn.Conv2d(width, width, 1) for name in ("conv1", "conv2_1", "conv2_2", "conv3")}
        super().__init__(**convolutions, norm1=nn.GroupNorm(1, width), norm2=nn.GroupNorm(1, width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x_BCHW)))
        left_right, top_down = self.conv2_1(axial_shift(x, 3)), self.conv2_2(axial_shift(x, 2))
        return self.conv3(self.norm2(F.gelu(left_right) + F.gelu(top_down)))


class ASBlock(Named):
    def __init__(self, width: int) -> None:
        mlp = Named(fc1=nn.Conv2d(width, 4 * width, 1), fc2=nn.Conv2d(4 * width, width, 1))
        super().__init__(norm1=nn.GroupNorm(1, width), axial_shift=AxialShift(width), norm2=nn.GroupNorm(1, width), mlp=mlp)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW + self.axial_shift(self.norm1(x_BCHW))
        return x + two_layers(self.mlp.fc1, self.mlp.fc2, self.norm2(x))


class ASMerge(Named):
    def __init__(self, width: int) -> None:
        super().__init__(reduction=nn.Conv2d(4 * width, 2 * width, 1, bias=False), norm=nn.GroupNorm(1, 4 * width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # space_to_depth by hand: channel groups in the order (row, column) = (0, 0), (1, 0), (0, 1), (1, 1)
        B, C, H, W = x_BCHW.shape
        cells = x_BCHW.reshape(B, C, H // 2, 2, W // 2, 2)
        return self.reduction(self.norm(torch.einsum("bchrwk->bkrchw", cells).reshape(B, 4 * C, H // 2, W // 2)))


class ASLayer(nn.Module):
    def __init__(self, width: int, depth: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ASBlock(width) for _ in range(depth))
        self.downsample = None if last else ASMerge(width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return x_BCHW if self.downsample is None else self.downsample(x_BCHW)


class ASMLP(nn.Module):
    def __init__(self, patch: int, width: int, depths: list[int], classes: int = 5) -> None:
        super().__init__()
        self.patch_embed = Named(proj=nn.Conv2d(3, width, patch, stride=patch), norm=nn.GroupNorm(1, width))
        last = len(depths) - 1
        self.layers = nn.ModuleList(ASLayer(width * 2**i, depth, i == last) for i, depth in enumerate(depths))
        self.norm = nn.GroupNorm(1, width * 2**last)
        self.head = nn.Linear(width * 2**last, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x = self.patch_embed.norm(self.patch_embed.proj(images_BCHW))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=(2, 3)))


# ----------------------------------------------------------------------------------------------------------- ViP


class WeightedPermuteMLP(Named):
    def __init__(self, width: int, segments: int) -> None:
        branches = {name: nn.Linear(width, width, bias=False) for name in ("mlp_c", "mlp_h", "mlp_w")}
        reweight = Named(fc1=nn.Linear(width, width // 4), fc2=nn.Linear(width // 4, 3 * width))
        super().__init__(**branches, reweight=reweight, proj=nn.Linear(width, width))
        self.segments = segments

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x = x_BHWC.unflatten(-1, (self.segments, -1))  # channel = (segment g, place in it s)
        sides = (x.shape[1], x.shape[-1])
        rows, columns = (layer.weight.unflatten(1, sides).unflatten(0, sides) for layer in (self.mlp_h, self.mlp_w))
        h = torch.einsum("itjs,bjwgs->biwgt", rows, x).flatten(3)
        w = torch.einsum("itjs,bhjgs->bhigt", columns, x).flatten(3)
        c = self.mlp_c(x_BHWC)
        summary = (h + w + c).mean(dim=(1, 2))
        shares = two_layers(self.reweight.fc1, self.reweight.fc2, summary).unflatten(-1, (-1, 3)).softmax(dim=-1)
        return self.proj(sum(each * shares[:, None, None, :, i] for i, each in enumerate((h, w, c))))


class ViPBlock(Named):
    def __init__(self, width: int, segments: int) -> None:
        mlp = Named(fc1=nn.Linear(width, 3 * width), fc2=nn.Linear(3 * width, width))
        super().__init__(norm1=nn.LayerNorm(width), attn=WeightedPermuteMLP(width, segments), norm2=nn.LayerNorm(width), mlp=mlp)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x = x_BHWC + self.attn(self.norm1(x_BHWC))
        return x + two_layers(self.mlp.fc1, self.mlp.fc2, self.norm2(x))


class ViPDownsample(Named):
    def __init__(self, width: int, next_width: int) -> None:
        super().__init__(proj=nn.Conv2d(width, next_width, 2, stride=2))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.proj(x_BHWC.movedim(-1, 1)).movedim(1, -1)


class ViP(nn.Module):
    """`groups`: the depth of each group of blocks; a downsample doubles the width after group number `transition`, counted from 0."""

    def __init__(self, resolution: int, patch: int, width: int, groups: list[int], transition: int | None = None, classes: int = 5) -> None:
        super().__init__()
        self.patch_embed = Named(proj=nn.Conv2d(3, width, patch, stride=patch))
        side = resolution // patch
        network: list[Any] = []
        for i, depth in enumerate(groups):
            network.append(nn.Sequential(*(ViPBlock(width, side) for _ in range(depth))))
            if i == transition:
                network.append(ViPDownsample(width, 2 * width))
                width, side = 2 * width, side // 2
        self.network = nn.ModuleList(network)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x = self.patch_embed.proj(images_BCHW).movedim(1, -1)
        for part in self.network:
            x = part(x)
        return self.head(self.norm(x).mean(dim=(1, 2)))
