"""Augmentation as a pure function of (augment seed, shard, key, view): the same crop, flip and colours everywhere.

    operations = POLICIES["standard"]
    params = draw_params(operations, height=348, width=348, key=view_key(0, "000000.tar", "cat_7", view=3))
    pixels = finish(resized_box_of(params), params)

Drawing comes before decoding: the loader chooses a DCT scale from the crop box.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from data.randomness import draw_uniform, mix, text_key

_VIEW = 101  # domain of the random keys, apart from those of the sample order
_EVALUATION_SEED = 0  # not an option: the same image has the same views in every evaluation
_NUM_TRIES = 10
_NUM_DRAWS = 12 + 2 * _NUM_TRIES


@dataclass(frozen=True)
class Operations:
    """What may be done to a training image; every field can be set on its own over a policy."""

    crop_scale: tuple[float, float] | None = None  # share of the area that the crop keeps; None: centre square
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # aspect ratio of the crop
    flip: float = 0.0  # probability of a left-right flip
    rotate: float = 0.0  # degrees, drawn from [-rotate, rotate]
    brightness: float = 0.0  # factor drawn from [1 - x, 1 + x]
    contrast: float = 0.0  # factor around the image's mean grey, likewise
    saturation: float = 0.0  # factor, likewise
    erase: float = 0.0  # probability of painting 2 to 20 % of the area mid-grey


POLICIES: dict[str, Operations] = {
    "none": Operations(),
    "mild": Operations(crop_scale=(0.64, 1.0), flip=0.5),
    "standard": Operations(crop_scale=(0.08, 1.0), flip=0.5),
    "strong": Operations(
        crop_scale=(0.08, 1.0), flip=0.5, rotate=10.0, brightness=0.4, contrast=0.4, saturation=0.4, erase=0.25
    ),
}
_CROPS = Operations(crop_scale=POLICIES["mild"].crop_scale)
OPERATION_NAMES = tuple(field.name for field in fields(Operations))


@dataclass(frozen=True)
class AugmentParams:
    """One drawn augmentation of one image: a box in pixels and what follows the resize."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    angle: float = 0.0  # degrees, counter-clockwise
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    erase: tuple[float, float, float, float] | None = None  # top, left, height, width as shares of the side


def view_key(seed: int, shard: str, key: str, view: int) -> int:
    """The random key of one view of one sample."""
    return int(mix(_VIEW, seed, text_key(f"{shard}/{key}"), view))


def draw_params(operations: Operations, *, height: int, width: int, key: int) -> AugmentParams:
    """Draw the parameters for an image of height x width pixels. The draws have fixed places: an operation that is
    switched off does not move the others."""
    draws = iter(draw_uniform(key, _NUM_DRAWS).tolist())
    flip_at, angle_at, brightness_at, contrast_at, saturation_at, erase_at = (next(draws) for _ in range(6))
    erase_draws = [next(draws) for _ in range(4)]
    if operations.crop_scale is None:
        box = centre_square(height, width)
    else:
        box = _draw_crop(operations.crop_scale, operations.crop_ratio, height, width, draws)
    return AugmentParams(
        *box,
        flip=flip_at < operations.flip,
        angle=operations.rotate * (2 * angle_at - 1),
        brightness=1 + operations.brightness * (2 * brightness_at - 1),
        contrast=1 + operations.contrast * (2 * contrast_at - 1),
        saturation=1 + operations.saturation * (2 * saturation_at - 1),
        erase=_draw_erase(erase_draws) if erase_at < operations.erase else None,
    )


def evaluation_view(number: int, *, height: int, width: int, shard: str, key: str) -> AugmentParams:
    """The views that test-time augmentation averages over: 0 is the centre square, 1 its mirror image; then mild random
    crops, the odd ones mirrored. height, width: of the image, in pixels."""
    if number < 2:
        params = AugmentParams(*centre_square(height, width))
    else:
        params = draw_params(_CROPS, height=height, width=width, key=view_key(_EVALUATION_SEED, shard, key, number))
    return replace(params, flip=number % 2 == 1)


def centre_square(height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest centred square."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def finish(pixels: np.ndarray, params: AugmentParams) -> np.ndarray:
    """What follows the crop and the resize: uint8 [size, size, 3] of the box -> uint8 [size, size, 3]."""
    size = pixels.shape[0]
    if params.flip:
        pixels = cv2.flip(pixels, 1)
    if params.angle:
        rotation = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), params.angle, 1.0)
        pixels = cv2.warpAffine(pixels, rotation, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    pixels = _jitter(pixels, params)
    if params.erase is not None:
        top, left, height, width = (round(share * size) for share in params.erase)
        pixels = pixels.copy()
        pixels[top : top + height, left : left + width] = 128
    return pixels


def _jitter(pixels: np.ndarray, params: AugmentParams) -> np.ndarray:
    if params.brightness != 1:
        pixels = cv2.convertScaleAbs(pixels, alpha=params.brightness)
    if params.contrast != 1:
        grey = float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())
        ramp = np.arange(256) * params.contrast + (1 - params.contrast) * grey
        pixels = cv2.LUT(pixels, np.clip(np.rint(ramp), 0, 255).astype(np.uint8))
    if params.saturation != 1:
        grey_image = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        pixels = cv2.addWeighted(pixels, params.saturation, grey_image, 1 - params.saturation, 0)
    return pixels


def _draw_crop(
    scale: tuple[float, float], ratio: tuple[float, float], height: int, width: int, draws: Iterator[float]
) -> tuple[int, int, int, int]:
    """The random resized crop of Szegedy et al. 2014, drawn as torchvision does: area and log aspect ratio uniform;
    after ten misses the largest centred box of a legal ratio."""
    place_row, place_column = next(draws), next(draws)
    for _ in range(_NUM_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * next(draws))
        log_ratio = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * next(draws)
        box_width = round(math.sqrt(area * math.exp(log_ratio)))
        box_height = round(math.sqrt(area / math.exp(log_ratio)))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(place_row * (height - box_height + 1))
            left = int(place_column * (width - box_width + 1))
            return top, left, box_height, box_width
    box_width = min(width, max(1, round(height * ratio[1])))
    box_height = min(height, max(1, round(width / ratio[0])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _draw_erase(draws: list[float]) -> tuple[float, float, float, float]:
    area = 0.02 + 0.18 * draws[0]
    ratio = math.exp(math.log(0.5) + math.log(4) * draws[1])
    height, width = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    return draws[2] * (1 - height), draws[3] * (1 - width), height, width
