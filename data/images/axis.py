"""How one direction of a box of pixels is resized: which pixels, averaged over how many, through which taps.

rows = Axis(start=58.5, length=348.0, size=224); photo[rows.first : rows.last]

For data.images.resample, which does it with OpenCV, and for the predict.py of an export, which is given this very
text and does it with NumPy.
"""

import math

import numpy as np

_LEFT = 3  # blocks are averaged down to no less than so many times the new size; the taps do the rest
_NO_FILTER = np.ones(1, dtype=np.float32)


class Axis:
    """One direction of a box. first, last: the pixels it touches; block: so many of them are averaged first; offset:
    where the box begins in the first block; length: of the box in blocks; ratio: blocks per new pixel."""

    def __init__(self, start: float, length: float, size: int) -> None:
        self.size = size
        self.first, self.last = math.floor(start), math.ceil(start + length)
        self.block = max(1, int(length / size / _LEFT))
        self.offset = (start - self.first) / self.block
        self.length = length / self.block
        self.ratio = self.length / size

    def taps(self, soft_above: float = 1.0) -> np.ndarray:
        """Of the filter before the linear interpolation; float32, odd in number.

        A triangle of a whole half width of m pixels, sampled at every pixel and interpolated linearly, is that triangle
        itself. One between m and m + 1 is mixed from the two so that its variance, its half width squared over 6, is
        right; what a shift between two pixels and the blocks add to the variance is taken off.
        """
        if self.offset == 0 and self.ratio <= soft_above:
            return _NO_FILTER
        wanted = self.ratio**2 if self.ratio > soft_above else 1.0
        added = self.offset * (1 - self.offset) + (1 - 1 / self.block**2) / 12
        square = max(1.0, wanted - 6 * added) if wanted > 1 else 1.0
        whole = math.isqrt(int(square))
        share = (square - whole**2) / (2 * whole + 1)
        places = np.abs(np.arange(-whole - 1, whole + 2) - self.offset)
        narrow, wide = (np.maximum(0, 1 - places / half) / half for half in (whole, whole + 1))
        return ((1 - share) * narrow + share * wide).astype(np.float32)
