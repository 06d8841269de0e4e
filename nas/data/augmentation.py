"""Augmentation of whole batches, on whatever device they are; every sample has draws of its own.

Tensors: B batch, C channels, R resolution. The draws come from a CPU generator, so that they are the same on a GPU.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from nas.data.seeding import seeded

PAD_DIVISOR = 8  # crop "pad" pads by resolution / 8: 4 pixels at 32
RANDAUGMENT_GROUP = 8  # torchvision draws once per call: so many samples share their operations
BOX_TRIES = 10

Fraction = Annotated[float, Field(gt=0, le=1)]
Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Augmentation(BaseModel):
    """What training does to its images.

    Attributes:
        crop: `none`; `pad`: pad with zeros by an eighth and crop; `resized`: crop a box and scale it up.
        crop_scale: Least and greatest part of the area that a resized crop takes.
        flip: Mirror every other image.
        randaugment: Number of operations and their magnitude, 0 to 10 (10 the strongest), or None.
        erasing: Probability that a box of an image is blanked.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none. With both, each batch draws one of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: Literal["none", "pad", "resized"] = "none"
    crop_scale: tuple[Fraction, Fraction] = (0.35, 1.0)
    flip: bool = False
    randaugment: tuple[Annotated[int, Field(ge=1, le=10)], Annotated[int, Field(ge=0, le=10)]] | None = None
    erasing: float = Field(default=0.0, ge=0, le=1)
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0

    @model_validator(mode="after")
    def _check_scale(self) -> "Augmentation":
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale: got {list(self.crop_scale)}; accepted: the least first. Swap them.")
        return self

    @property
    def mixes(self) -> bool:
        """Whether targets are probabilities."""
        return self.mixup > 0 or self.cutmix > 0


def augment(x: Tensor, augmentation: Augmentation, mean: tuple[float, ...], draw: torch.Generator) -> Tensor:
    """Crops, flips and applies RandAugment.

    Args:
        x: uint8, [B, C, R, R].
        augmentation: What to do.
        mean: Per channel, in 0..1: the colour that RandAugment fills with.
        draw: CPU generator of this batch.

    Returns:
        uint8, [B, C, R, R]; `x` itself is not modified.
    """
    count, side = len(x), x.shape[-1]
    flip = torch.rand(count, generator=draw) < (0.5 if augmentation.flip else 0.0)
    if augmentation.crop == "resized":
        boxes = random_boxes(count, augmentation.crop_scale, (3 / 4, 4 / 3), draw)
        x = resized_crop(x, boxes.to(x.device), flip.to(x.device))
    else:
        pad = side // PAD_DIVISOR if augmentation.crop == "pad" else 0
        corners = torch.randint(2 * pad + 1, (count, 2), generator=draw)
        x = pad_crop(x, pad, corners.to(x.device), flip.to(x.device))
    if augmentation.randaugment is not None:
        x = randaugment(x, *augmentation.randaugment, mean, int(torch.randint(2**31, (), generator=draw)))
    return x


def pad_crop(x: Tensor, pad: int, corners: Tensor, flip: Tensor) -> Tensor:
    """Pads with zeros, crops back to the side of `x`, and mirrors, all in one lookup.

    Args:
        x: [B, C, R, R].
        pad: Pixels on every side.
        corners: Top and left of each crop in the padded image, [B, 2], 0 to 2 * pad.
        flip: Which samples to mirror, bool [B].
    """
    steps = torch.arange(x.shape[-1], device=x.device)
    rows = corners[:, :1] + steps
    columns = corners[:, 1:] + torch.where(flip[:, None], steps.flip(0), steps)
    samples = torch.arange(len(x), device=x.device)[:, None, None]
    padded_BHWC = F.pad(x, [pad] * 4).permute(0, 2, 3, 1)
    return padded_BHWC[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def resized_crop(x: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Scales a box of each image up to the whole side (bilinear), and mirrors.

    Args:
        x: uint8, [B, C, R, R].
        boxes: Top, left, height, width in parts of the side, [B, 4].
        flip: Which samples to mirror, bool [B].
    """
    top, left, height, width = boxes.unbind(1)
    zero = torch.zeros_like(top)
    # From output to input coordinates, both -1 to 1 across the image.
    theta = torch.stack(
        [
            torch.stack([torch.where(flip, -width, width), zero, 2 * left + width - 1], 1),
            torch.stack([zero, height, 2 * top + height - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    resized = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def randaugment(x: Tensor, num_ops: int, magnitude: int, mean: tuple[float, ...], seed: int) -> Tensor:
    """Applies torchvision's RandAugment to groups of samples, each group with operations of its own.

    Magnitude 0 to 10 as in timm, which the streamed images use: torchvision would count 0 to 30.

    Source: E. D. Cubuk et al., "RandAugment", arXiv:1909.13719.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import RandAugment

    transform = RandAugment(
        num_ops,
        magnitude,
        num_magnitude_bins=11,
        interpolation=InterpolationMode.BILINEAR,
        fill=[round(255 * value) for value in mean],
    )
    with seeded(seed):
        return torch.cat([transform(group) for group in x.split(RANDAUGMENT_GROUP)])


def erase(x: Tensor, probability: float, draw: torch.Generator) -> Tensor:
    """Sets a box of some images to zero, the mean after normalisation: 2% to a third of the area.

    Source: Z. Zhong et al., "Random Erasing Data Augmentation", arXiv:1708.04896.

    Args:
        x: Normalised, [B, C, R, R].
        probability: That an image has a box erased.
        draw: CPU generator of this batch.
    """
    chosen = torch.rand(len(x), generator=draw) < probability
    boxes = random_boxes(len(x), (0.02, 1 / 3), (0.3, 1 / 0.3), draw)
    centres = (torch.arange(x.shape[-1]) + 0.5) / x.shape[-1]
    rows = (centres >= boxes[:, :1]) & (centres < boxes[:, :1] + boxes[:, 2:3])
    columns = (centres >= boxes[:, 1:2]) & (centres < boxes[:, 1:2] + boxes[:, 3:])
    mask = chosen[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return x.masked_fill(mask[:, None].to(x.device), 0.0)


def mix(x: Tensor, labels: Tensor, augmentation: Augmentation, num_classes: int, *key: int) -> tuple[Tensor, Tensor]:
    """Applies mixup or cutmix to a batch of an even number of images, drawn by `key`.

    Returns:
        The images, and the class probabilities [B, num_classes], float.
    """
    from timm.data import Mixup

    mixup = Mixup(augmentation.mixup, augmentation.cutmix, label_smoothing=0.0, num_classes=num_classes)
    with seeded(*key):
        return mixup(x, labels)


def random_boxes(count: int, scale: tuple[float, float], ratio: tuple[float, float], draw: torch.Generator) -> Tensor:
    """Draws boxes by area and aspect ratio: for each the first of ten tries that fits into the image.

    Args:
        count: Number of boxes.
        scale: Least and greatest area, in parts of the image's.
        ratio: Least and greatest width over height; drawn evenly in the logarithm.
        draw: CPU generator.

    Returns:
        Top, left, height, width in parts of the side, [count, 4].
    """
    area = torch.empty(count, BOX_TRIES).uniform_(*scale, generator=draw)
    aspect = torch.empty(count, BOX_TRIES).uniform_(*torch.tensor(ratio).log().tolist(), generator=draw).exp()
    sizes = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], 2)
    first = (sizes <= 1).all(2).int().argmax(1)  # the first try where none fits, cut to the image
    size = sizes[torch.arange(count), first].clamp(max=1)
    corner = torch.rand(count, 2, generator=draw) * (1 - size)
    return torch.cat([corner, size], 1)
