"""Augmentation of whole batches, or of some rows of them, on whatever device they are; every sample has draws of its own.

Only the box of a resized crop is cut out of each image before (`decoding.py`), since it is a box of the original; where the originals are
in memory (images of the wanted side), it is cut here, from the same random numbers.

Tensors: B batch, C channels, R resolution. The draws come from a CPU generator, so that they are the same on a GPU.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from nas.data.parts import WHOLE, Rows
from nas.data.seeding import seeded
from nas.data.transfer import moved

PAD_DIVISOR = 8  # crop "pad" pads by resolution / 8: 4 pixels at 32
RANDAUGMENT_GROUP = 8  # torchvision draws once per call: so many samples share their operations
RANDAUGMENT_CHANCE = 0.5  # that an operation is applied, as in timm's `rand-m9-n2`, after which recipes are written
RESIZED_RATIO = 3 / 4, 4 / 3  # width over height of a resized crop, as in torchvision and timm
BOX_TRIES = 10
BOX_NUMBERS = 2 * BOX_TRIES + 2  # random numbers that make a box

Fraction = Annotated[float, Field(gt=0, le=1)]
Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Augmentation(BaseModel):
    """What training does to its images.

    Attributes:
        crop: `none`: the centre square; `pad`: the centre square, padded with zeros by an eighth of the resolution, and a crop of it;
            `resized`: a box of the whole original image, scaled to the resolution.
        crop_scale: Least and greatest part of the area that a resized crop takes.
        flip: Mirror an image with a chance of one half; `auto`, in recipes alone: where nothing says that a mirrored image is another thing.
        randaugment: Number of operations, each applied with a chance of one half, and their magnitude, 0 to 10 (10 the strongest), or None:
            `[2, 9]` is what timm calls `rand-m9-n2-inc1`.
        erasing: Probability that a box of an image is blanked.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none. With both, each batch draws one of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: Literal["none", "pad", "resized"] = "none"
    crop_scale: tuple[Fraction, Fraction] = (0.35, 1.0)
    flip: bool | Literal["auto"] = False
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


def augment(x: Tensor, augmentation: Augmentation, mean: tuple[float, ...], draw: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Pads and crops, flips and applies RandAugment.

    Args:
        x: uint8, [B, C, R, R]; boxes of the originals where the crop is `resized`, else their centre squares. Not modified.
        augmentation: What to do.
        mean: Per channel, in 0..1: the colour that RandAugment fills with.
        draw: CPU generator of this batch.
        rows: Which rows of a batch x is; None: the batch.
    """
    rows = rows or WHOLE.rows(len(x))
    assert augmentation.flip != "auto", "a recipe settles it for its images"
    flip = torch.rand(rows.total, generator=draw)[rows.places] < (0.5 if augmentation.flip else 0.0)
    pad = x.shape[-1] // PAD_DIVISOR if augmentation.crop == "pad" else 0
    corners = torch.randint(2 * pad + 1, (rows.total, 2), generator=draw)[rows.places]
    if pad or augmentation.flip:
        corners, flip = moved(x.device, corners, flip)
    if pad:
        x = pad_crop(x, pad, corners, flip)
    elif augmentation.flip:
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
    if augmentation.randaugment is not None:
        x = randaugment(x, *augmentation.randaugment, mean, int(torch.randint(2**31, (), generator=draw)), rows)
    return x


def pad_crop(x: Tensor, pad: int, corners: Tensor, flip: Tensor) -> Tensor:
    """Pads [B, C, R, R] by `pad` zeros on every side, crops back to R, and mirrors, all in one lookup.

    `corners` are top and left of each crop in the padded image, [B, 2], 0 to 2 * pad; `flip` says which samples to mirror, bool [B].
    """
    steps = torch.arange(x.shape[-1], device=x.device)
    rows = corners[:, :1] + steps
    columns = corners[:, 1:] + torch.where(flip[:, None], steps.flip(0), steps)
    samples = torch.arange(len(x), device=x.device)[:, None, None]
    padded_BHWC = F.pad(x, [pad] * 4).permute(0, 2, 3, 1)
    return padded_BHWC[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def resized_crop(x: Tensor, boxes: Tensor) -> Tensor:
    """Scales a box of each uint8 image [B, C, R, R] up to R (bilinear), as Pillow's `resize` does with one.

    `boxes` are top, left, height and width in parts of R, [B, 4].
    """
    top, left, height, width = boxes.unbind(1)
    zero = torch.zeros_like(top)
    # From output to input coordinates, both -1 to 1 across the image.
    theta = torch.stack([torch.stack([width, zero, 2 * left + width - 1], 1), torch.stack([zero, height, 2 * top + height - 1], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    resized = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def randaugment(x: Tensor, num_ops: int, magnitude: int, mean: tuple[float, ...], seed: int, rows: Rows) -> Tensor:
    """Applies RandAugment to groups of samples of a batch, each group with operations of its own, and returns these rows of it.

    The operations are torchvision's, which work on batches and on a GPU (timm's work on one Pillow image at a time: 9 against 4 ms for 128
    images of 32 pixels); magnitude and chance are counted as timm does, 0 to 10 and one half.

    Source: E. D. Cubuk et al., "RandAugment", arXiv:1909.13719.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import RandAugment

    fill = [round(255 * value) for value in mean]
    one = RandAugment(1, magnitude, num_magnitude_bins=11, interpolation=InterpolationMode.BILINEAR, fill=fill)
    sizes = torch.bincount(rows.places // RANDAUGMENT_GROUP, minlength=-(-rows.total // RANDAUGMENT_GROUP))
    groups = list(x.split(sizes.tolist()))
    nobody = torch.zeros(
        1, x.shape[1], 1, 1, dtype=torch.uint8
    )  # stands for a group of which nothing is wanted: it draws as its images would

    def changed(group: Tensor) -> Tensor:
        return one(group) if len(group) else (one(nobody), group)[1]

    with seeded(seed):
        for _ in range(num_ops):
            groups = [changed(group) if torch.rand(()) < RANDAUGMENT_CHANCE else group for group in groups]
    return torch.cat(groups)


def erase(x: Tensor, probability: float, seed: int, rows: Rows | None = None) -> Tensor:
    """Sets a box, 2% to a third of the area, of some normalised images [B, C, R, R] to zero, which is the mean; in place.

    `rows` says which rows of a batch they are; None: all of it.

    Source: Z. Zhong et al., "Random Erasing Data Augmentation", arXiv:1708.04896.
    """
    from timm.data.random_erasing import RandomErasing

    erasing, nobody = RandomErasing(probability, device=x.device), torch.empty(x.shape[1:], device="meta")
    own = dict(zip((rows or WHOLE.rows(len(x))).places.tolist(), x, strict=True))
    with seeded(seed):
        for row in range(max(own) + 1):  # the draws of an image follow those of the images before it, which nobody may want here
            erasing(own.get(row, nobody))
    return x


def mix(x: Tensor, labels: Tensor, augmentation: Augmentation, num_classes: int, *key: int) -> tuple[Tensor, Tensor]:
    """Applies mixup or cutmix to an even number of images, drawn by `key`; returns them and class probabilities [B, num_classes], float."""
    from timm.data import Mixup

    mixup = Mixup(augmentation.mixup, augmentation.cutmix, label_smoothing=0.0, num_classes=num_classes)
    with seeded(*key):
        return mixup(x, labels)


def random_boxes(numbers: Tensor, scale: tuple[float, float], ratio: tuple[float, float], shape: float = 1.0) -> Tensor:
    """Makes boxes by area and aspect ratio: for each the first of ten tries that fits into the image.

    The same law as torchvision's `RandomResizedCrop`, also where no try fits: then the middle of the image, as large as the ratios allow.

    Args:
        numbers: Random numbers, even in 0..1, [B, BOX_NUMBERS].
        scale: Least and greatest area, in parts of the image's.
        ratio: Least and greatest width over height; drawn evenly in the logarithm.
        shape: The image's own width over height.

    Returns:
        Top, left, height, width in parts of the image's height and width, [B, 4].
    """
    tries = numbers[:, :-2].unflatten(1, (BOX_TRIES, 2))
    area = scale[0] + (scale[1] - scale[0]) * tries[..., 0]
    aspect = ratio[0] * (ratio[1] / ratio[0]) ** tries[..., 1] / shape
    sizes = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], 2)
    fits = (sizes <= 1).all(2)
    first = sizes[torch.arange(len(sizes)), fits.int().argmax(1)]
    largest = torch.tensor([shape / ratio[0], ratio[1] / shape]).clamp(max=1)
    some = fits.any(1, keepdim=True)
    size = torch.where(some, first, largest)
    corner = torch.where(some, numbers[:, -2:], 0.5) * (1 - size)
    return torch.cat([corner, size], 1)
