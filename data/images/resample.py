"""A box of pixels at another size, antialiased; the box may begin and end between two pixels.

    image = resample(pixels, Box(0.0, 58.5, 348.0, 348.0), height=224, width=224)  # uint8 [224, 224, 3]

Where it shrinks this is a triangle filter as wide as two new pixels, which is what Pillow calls bilinear. A filter of
whole taps moves and softens the pixels, so that the linear interpolation that follows leaves none out: the two have
the triangle's centre and width. Where the box is large, whole blocks of pixels are averaged first.
"""

from typing import NamedTuple

import cv2
import numpy as np

from data.images.axis import Axis


class Box(NamedTuple):
    """A part of an image, in pixels from its upper left corner."""

    top: float
    left: float
    height: float
    width: float


def resample(pixels: np.ndarray, box: Box, *, height: int, width: int, soft_above: float = 1.0) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [height, width, 3]. Shrinking by `soft_above` or less is linear between two pixels."""
    rows = Axis(box.top, box.height, height)
    columns = Axis(box.left, box.width, width)
    part = pixels[rows.first : rows.last, columns.first : columns.last]
    part = _averaged(part, rows.block, columns.block)
    down, across = rows.taps(soft_above), columns.taps(soft_above)
    if len(down) > 1 or len(across) > 1:
        part = cv2.sepFilter2D(part, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    if part.shape[:2] == (rows.length, columns.length):
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    # Asked by factors instead of a size, OpenCV takes the scale as it is; what lies behind the box comes out, too.
    larger = cv2.resize(part, None, fx=1 / columns.ratio, fy=1 / rows.ratio, interpolation=cv2.INTER_LINEAR)
    return larger[:height, :width]


def _averaged(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The means of blocks of rows x columns pixels; the last pixels are repeated to fill the last blocks."""
    if rows == columns == 1:
        return pixels
    height, width = (-(-length // block) for length, block in zip(pixels.shape[:2], (rows, columns), strict=True))
    below, beside = height * rows - pixels.shape[0], width * columns - pixels.shape[1]
    if below or beside:
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
