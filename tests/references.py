"""The mixers by their papers' equations, one number at a time: slow twins that the real ones must equal in float64.

A grid of tokens is a nested list, x[h][w][c]; a reference takes a module for its weights, and one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

Grid = list[list[list[float]]]


def gelu(value: float) -> float:
    return value * 0.5 * (1 + math.erf(value / math.sqrt(2)))


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(values)) for value in values]
    return [each / sum(exponentials) for each in exponentials]


def linear(layer: nn.Linear, vector: list[float]) -> list[float]:
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    return [b + sum(w * v for w, v in zip(row, vector, strict=True)) for row, b in zip(layer.weight.tolist(), bias, strict=True)]


def per_token(function: Callable[[list[float]], list[float]], x: Grid) -> Grid:
    return [[function(token) for token in row] for row in x]


def fill(x: Grid, value: Callable[[int, int, int], float]) -> Grid:
    """A grid of the shape of x, by the value at (h, w, c)."""
    return [[[value(h, w, c) for c in range(len(x[0][0]))] for w in range(len(x[0]))] for h in range(len(x))]


def at(x: Grid, h: int, w: int, c: int) -> float:
    """A value of the grid, zero outside it."""
    return x[h][w][c] if 0 <= h < len(x) and 0 <= w < len(x[0]) else 0.0


def conv(mixer: Any, x: Grid) -> Grid:
    weight, bias = mixer.weight.tolist(), mixer.bias.tolist()
    kernel = len(weight[0][0])
    taps = [(i, j) for i in range(kernel) for j in range(kernel)]

    def value(h: int, w: int, c: int) -> float:
        return bias[c] + sum(weight[c][0][i][j] * at(x, h + i - kernel // 2, w + j - kernel // 2, c) for i, j in taps)

    return fill(x, value)


def attention(mixer: Any, x: Grid) -> Grid:
    tokens = [token for row in x for token in row]
    width, size = len(tokens[0]), mixer.head_width
    qkv = [linear(mixer.qkv, token) for token in tokens]
    queries, keys, values = ([token[part * width : (part + 1) * width] for token in qkv] for part in range(3))
    mixed = [[0.0] * width for _ in tokens]
    for head in range(width // size):
        channels = range(head * size, (head + 1) * size)
        for n, query in enumerate(queries):
            weights = softmax([sum(query[c] * key[c] for c in channels) / math.sqrt(size) for key in keys])
            for c in channels:
                mixed[n][c] = sum(weight * value[c] for weight, value in zip(weights, values, strict=True))
    columns = len(x[0])
    return [[linear(mixer.proj, mixed[h * columns + w]) for w in range(columns)] for h in range(len(x))]


def token_mlp(mixer: Any, x: Grid) -> Grid:
    columns = len(x[0])
    mixed = []
    for c in range(len(x[0][0])):
        hidden = linear(mixer.fc1, [token[c] for row in x for token in row])
        mixed.append(linear(mixer.fc2, [gelu(value) for value in hidden]))
    return fill(x, lambda h, w, c: mixed[c][h * columns + w])


def token_linear(mixer: Any, x: Grid) -> Grid:
    columns = len(x[0])
    mixed = [linear(mixer.linear_tokens, [token[c] for row in x for token in row]) for c in range(len(x[0][0]))]
    return fill(x, lambda h, w, c: mixed[c][h * columns + w])


def s2_shifted(x: Grid) -> Grid:
    """Group by group: what stands before, after, left and right of a position; at a border its own value."""
    height, columns, quarter = len(x), len(x[0]), len(x[0][0]) // 4
    sources = [
        lambda h, w: (max(h - 1, 0), w),
        lambda h, w: (min(h + 1, height - 1), w),
        lambda h, w: (h, max(w - 1, 0)),
        lambda h, w: (h, min(w + 1, columns - 1)),
    ]

    def value(h: int, w: int, c: int) -> float:
        source_h, source_w = sources[c // quarter](h, w)
        return x[source_h][source_w][c]

    return fill(x, value)


def s2_shift(mixer: Any, x: Grid) -> Grid:
    y = per_token(lambda token: [gelu(value) for value in linear(mixer.fc1, token)], x)
    return per_token(lambda token: linear(mixer.fc2, token), s2_shifted(y))


def transposed(x: Grid) -> Grid:
    return [[x[h][w] for h in range(len(x))] for w in range(len(x[0]))]


def s2_shift_v2(mixer: Any, x: Grid) -> Grid:
    height, columns, width = len(x), len(x[0]), len(x[0][0])
    expanded = per_token(lambda token: linear(mixer.mlp1, token), x)
    x1, x2, x3 = (per_token(lambda token, part=part: token[part * width : (part + 1) * width], expanded) for part in range(3))
    splits = (s2_shifted(x1), transposed(s2_shifted(transposed(x2))), x3)
    positions = height * columns if mixer.split_pool == "mean" else 1
    summary = [sum(split[h][w][c] for split in splits for h in range(height) for w in range(columns)) / positions for c in range(width)]
    scores = linear(mixer.sa_mlp2, [gelu(value) for value in linear(mixer.sa_mlp1, summary)])
    shares = [softmax([scores[k * width + c] for k in range(3)]) for c in range(width)]
    total = fill(x, lambda h, w, c: sum(share * split[h][w][c] for share, split in zip(shares[c], splits, strict=True)))
    return per_token(lambda token: linear(mixer.mlp2, token), total)


def as_shifted(x: Grid, axis: int) -> Grid:
    """Channel c comes from c // ceil(C / 5) - 2 positions before, along the height (0) or the width (1)."""
    chunk = math.ceil(len(x[0][0]) / 5)

    def value(h: int, w: int, c: int) -> float:
        step = c // chunk - 2
        return at(x, h - step, w, c) if axis == 0 else at(x, h, w - step, c)

    return fill(x, value)


def group_norm(norm: Any, x: Grid) -> Grid:
    weight, bias = norm.weight.tolist(), norm.bias.tolist()
    everything = [value for row in x for token in row for value in token]
    mean = sum(everything) / len(everything)
    variance = sum((value - mean) ** 2 for value in everything) / len(everything)
    return fill(x, lambda h, w, c: (x[h][w][c] - mean) / math.sqrt(variance + 1e-5) * weight[c] + bias[c])


def as_shift(mixer: Any, x: Grid) -> Grid:
    y = group_norm(mixer.norm1, per_token(lambda token: linear(mixer.conv1, token), x))
    y = per_token(lambda token: [gelu(value) for value in token], y)
    along_width = per_token(lambda token: [gelu(value) for value in linear(mixer.conv2_1, token)], as_shifted(y, axis=1))
    along_height = per_token(lambda token: [gelu(value) for value in linear(mixer.conv2_2, token)], as_shifted(y, axis=0))
    total = group_norm(mixer.norm2, fill(x, lambda h, w, c: along_width[h][w][c] + along_height[h][w][c]))
    return per_token(lambda token: linear(mixer.conv3, token), total)


def along_height(weight: list[list[float]], x: Grid) -> Grid:
    """Permute's branch: y[h'][w][segment, s'] = sum over (h, s) of weight[h', s'][h, s] * x[h][w][segment, s]."""
    height = len(x)
    size = len(x[0][0]) // height  # channels of a segment

    def value(h_out: int, w: int, c: int) -> float:
        segment, s_out = divmod(c, size)
        row = weight[h_out * size + s_out]
        return sum(row[h * size + s] * x[h][w][segment * size + s] for h in range(height) for s in range(size))

    return fill(x, value)


def along_width(weight: list[list[float]], x: Grid) -> Grid:
    columns = len(x[0])
    size = len(x[0][0]) // columns

    def value(h: int, w_out: int, c: int) -> float:
        segment, s_out = divmod(c, size)
        row = weight[w_out * size + s_out]
        return sum(row[w * size + s] * x[h][w][segment * size + s] for w in range(columns) for s in range(size))

    return fill(x, value)


def permute(mixer: Any, x: Grid) -> Grid:
    height, columns, width = len(x), len(x[0]), len(x[0][0])
    h_branch, w_branch = along_height(mixer.mlp_h.weight.tolist(), x), along_width(mixer.mlp_w.weight.tolist(), x)
    c_branch = per_token(lambda token: linear(mixer.mlp_c, token), x)
    branches = (h_branch, w_branch, c_branch)
    positions = [(h, w) for h in range(height) for w in range(columns)]
    mean = [sum(branch[h][w][c] for branch in branches for h, w in positions) / len(positions) for c in range(width)]
    scores = linear(mixer.reweight_fc2, [gelu(value) for value in linear(mixer.reweight_fc1, mean)])
    shares = [softmax(scores[3 * c : 3 * c + 3]) for c in range(width)]
    total = fill(x, lambda h, w, c: sum(share * branch[h][w][c] for share, branch in zip(shares[c], branches, strict=True)))
    return per_token(lambda token: linear(mixer.proj, token), total)


REFERENCES: dict[str, Callable[[Any, Grid], Grid]] = {
    "conv": conv,
    "attention": attention,
    "token_mlp": token_mlp,
    "token_linear": token_linear,
    "s2_shift": s2_shift,
    "s2_shift_v2": s2_shift_v2,
    "as_shift": as_shift,
    "permute": permute,
}


def attention_count(C: int, H: int, W: int, head_width: int = 0, heads: int = 0) -> tuple[int, int]:
    """q, k, v and the projection; queries times keys and weights times values, head by head."""
    size, number = (head_width, C // head_width) if head_width else (C // heads, heads)
    return (
        H * W * C * 3 * C + H * W * C * C + number * (H * W * H * W * size + H * W * H * W * size),
        (C * 3 * C + 3 * C) + (C * C + C),
    )


def token_mlp_count(C: int, H: int, W: int, token_hidden: str) -> tuple[int, int]:
    """From N to the hidden width and back, once per channel."""
    hidden = {"tokens": H * W // 2, "channels": C // 2}[token_hidden]
    return C * (H * W * hidden + hidden * H * W), (H * W * hidden + hidden) + (hidden * H * W + H * W)


# (multiply-adds, parameters) written out by hand: C channels, H x W positions, N of them.
HAND_COUNTS: dict[str, Callable[..., tuple[int, int]]] = {
    "conv": lambda C, H, W, kernel: (H * W * C * kernel * kernel, C * kernel * kernel + C),
    "attention": attention_count,
    "token_mlp": token_mlp_count,
    # one N x N matrix, once per channel
    "token_linear": lambda C, H, W: (C * (H * W * H * W), H * W * H * W + H * W),
    "s2_shift": lambda C, H, W: (H * W * C * C + H * W * C * C, (C * C + C) + (C * C + C)),
    # to three times the channels and the projection, per position; the split attention once; shifts cost nothing
    "s2_shift_v2": lambda C, H, W, split_pool: (
        H * W * C * 3 * C + H * W * C * C + C * (C // 4) + (C // 4) * 3 * C,
        (C * 3 * C + 3 * C) + (C * C + C) + C * (C // 4) + (C // 4) * 3 * C,
    ),
    # four 1x1 convolutions, two norms
    "as_shift": lambda C, H, W: (4 * (H * W * C * C), 4 * (C * C + C) + 2 * (C + C)),
    # W * (C / S_h) linears of (H * S_h)^2 = C^2 along the height, likewise along the width, channels and projection per position; the weighting MLP once
    "permute": lambda C, H, W: (
        W * H * C * C + H * W * C * C + H * W * C * C + H * W * C * C + C * (C // 4) + (C // 4) * 3 * C,
        3 * C * C + (C * C + C) + (C * (C // 4) + C // 4) + ((C // 4) * 3 * C + 3 * C),
    ),
}
