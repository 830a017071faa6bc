"""Some of many photos, spread evenly over all of them: `few = PhotoSubset(photos, count=256)`."""

from collections.abc import Sequence

import numpy as np

from train.photos import Photos


class PhotoSubset:
    """At most `count` photos as one group; the same ones in the same order every time.

    shuffled: a set may be ordered by class, and each batch shall have photos from all over it; batch norms measured on
    one class at a time would miss how the classes differ.
    """

    def __init__(self, photos: Photos, *, count: int, shuffled: bool = False) -> None:
        self._photos = photos
        ends = np.cumsum(photos.counts)
        total = int(ends[-1]) if len(ends) else 0
        picked = np.arange(min(count, total)) * total // max(1, min(count, total))
        if shuffled:
            picked = np.random.default_rng(0).permutation(picked)
        self._group = np.searchsorted(ends, picked, side="right")
        self._number = picked - np.concatenate([[0], ends])[self._group]

    @property
    def tasks(self) -> Sequence[str]:
        return self._photos.tasks

    @property
    def counts(self) -> np.ndarray:
        return np.array([len(self._group)], dtype=np.int64)

    def name(self, group: int, number: int) -> tuple[str, str]:
        return self._photos.name(*self._place(number))

    def labels(self, group: int, number: int) -> np.ndarray:
        return self._photos.labels(*self._place(number))

    def read(self, group: int, number: int) -> bytes:
        return self._photos.read(*self._place(number))

    def will_need(self, group: int, first: int, last: int) -> None:
        for number in range(first, last):
            at, photo = self._place(number)
            self._photos.will_need(at, photo, photo + 1)

    def _place(self, number: int) -> tuple[int, int]:
        return int(self._group[number]), int(self._number[number])
