"""Some photos from all over a set, shuffled: `few = PhotoSample(photos, count=512)`."""

import numpy as np

from train.photo_subset import PhotoSubset
from train.photos import Photos


class PhotoSample(PhotoSubset):
    """At most `count` photos, the same ones in the same order every time. A set may be ordered by class, so each batch
    has photos from all over it: batch norms measured on one class at a time would miss how the classes differ."""

    def __init__(self, photos: Photos, *, count: int) -> None:
        super().__init__(photos, count=count)
        self._order = np.random.default_rng(0).permutation(len(self._group))

    def _place(self, number: int) -> tuple[int, int]:
        return super()._place(int(self._order[number]))
