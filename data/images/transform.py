"""How the bytes of an image become a view of it: uint8 [size, size, 3].

transform = ImageTransform(size=224, operations=POLICIES["standard"], seed=0)
transform.make(jpeg, shard="000000.tar", key="cat_7", view=3, out=out)

Evaluation sees the image as Pillow's bilinear resize of the whole of it would show it, within a grey level on average:
a JPEG is decoded at twice the size or more, and the box is rendered where it lies, between two pixels if need be.
Random crops of training snap to the pixels that were decoded, which may be as few as the size needs.
"""

from dataclasses import dataclass

import numpy as np

from data.images import MAX_PIXELS
from data.images.augment import AugmentParams, Operations, draw_params, finish, view_key
from data.images.decode import WHOLE, Decoded, decode_stored, image_size
from data.images.resample import Box, resample

# Which pixels an image becomes. Teacher caches and checkpoints that saw other ones say so by another number; those that
# say none are of version 1, in which the boxes of scaled JPEGs lay beside their place.
PIXEL_VERSION = 2
FIRST_PIXEL_VERSION = 1

_EXACT_EIGHTHS = (1, 2, 4)
_FAST_EIGHTHS = (1, 2, 3, 4)
_EXACT_RATIO = 2  # from there on no trace of the decoder's own filter is left
_FAST_SOFT_ABOVE = 2.0  # down to half the size the two taps of the linear filter leave no pixel out


@dataclass(frozen=True)
class ImageTransform:
    """How a sample's bytes become pixels: uint8 [size, size, 3]."""

    size: int
    operations: Operations
    seed: int = 0
    max_pixels: int = MAX_PIXELS

    def make(self, data: bytes, *, shard: str, key: str, view: int, out: np.ndarray) -> None:
        """Decode, augment as the `view`-th view and write one sample into `out`. Raises BadSample."""
        height, width = image_size(data)
        random_key = view_key(self.seed, shard, key, view)
        params = draw_params(self.operations, height=height, width=width, key=random_key)
        render = render_bytes if self.operations.crop_scale is None else render_snapped
        render(data, params, height=height, width=width, size=self.size, max_pixels=self.max_pixels, out=out)


def render_bytes(
    data: bytes, params: AugmentParams, *, height: int, width: int, size: int, max_pixels: int, out: np.ndarray
) -> None:
    """A view of an image of height x width pixels into `out` (uint8 [size, size, 3]), as evaluation sees it."""
    eighths = _fewest(_EXACT_EIGHTHS, min(params.height, params.width), _EXACT_RATIO * size)
    decoded = decode_stored(data, eighths=eighths, max_pixels=max_pixels)
    box = decoded.box(Box(params.top, params.left, params.height, params.width))
    square = resample(decoded.pixels, box, height=size, width=size)
    out[:] = finish(decoded.upright(square), params)


def render_snapped(
    data: bytes, params: AugmentParams, *, height: int, width: int, size: int, max_pixels: int, out: np.ndarray
) -> None:
    """As render_bytes, faster: decoded only as finely as the crop needs, its box moved to whole decoded pixels."""
    eighths = _fewest(_FAST_EIGHTHS, min(params.height, params.width), size)
    decoded = decode_stored(data, eighths=eighths, max_pixels=max_pixels)
    box = _snapped(decoded, Box(params.top, params.left, params.height, params.width))
    square = resample(decoded.pixels, box, height=size, width=size, soft_above=_FAST_SOFT_ABOVE)
    out[:] = finish(decoded.upright(square), params)


def resize_image(data: bytes, *, height: int, width: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The whole upright image, uint8 [height, width, 3]. Raises BadSample."""
    whole_height, whole_width = image_size(data)
    eighths = _fewest(_EXACT_EIGHTHS, whole_height, _EXACT_RATIO * height)
    decoded = decode_stored(data, eighths=eighths, max_pixels=max_pixels)
    down, across = (width, height) if decoded.is_transposed else (height, width)
    box = decoded.box(Box(0, 0, whole_height, whole_width))
    return np.ascontiguousarray(decoded.upright(resample(decoded.pixels, box, height=down, width=across)))


def _fewest(choices: tuple[int, ...], length: int, needed: int) -> int:
    """The smallest number of eighths at which `length` pixels are decoded to `needed` or more."""
    return next((eighths for eighths in choices if length * eighths >= WHOLE * needed), WHOLE)


def _snapped(decoded: Decoded, view: Box) -> Box:
    top, left, height, width = decoded.box(view)
    rows, columns = decoded.pixels.shape[:2]
    first_row, first_column = min(round(top), rows - 1), min(round(left), columns - 1)
    return Box(
        first_row,
        first_column,
        max(1, min(round(top + height), rows) - first_row),
        max(1, min(round(left + width), columns) - first_column),
    )
