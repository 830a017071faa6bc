"""Where the images to evaluate or predict come from: a shard folder, a folder of photos, or one photo.

images, notes = open_images("holiday/"); images.read(0, 3)
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from data.errors import BadSample, DataError
from data.index import INDEX_NAME, Index, load_index
from data.index.labels import MISSING
from data.names import as_text
from data.sampling.sampler import Run
from data.shards.range_cache import DEFAULT_CACHE_BYTES, RangeCache
from data.shards.shard_reader import ShardReader
from data.storage import is_remote
from data.walk import IMAGE_SUFFIXES, walk
from launch.cache_folder import cache_folder


class ImageSet(Protocol):
    """Numbered images in groups (shards). Loader processes work on copies: nothing is open until the first read."""

    @property
    def tasks(self) -> Sequence[str]:
        """Names of the labels, in their order."""
        ...

    @property
    def counts(self) -> np.ndarray:
        """Images per group, int64 [num_groups]."""
        ...

    def name(self, group: int, number: int) -> tuple[str, str]:
        """(shard, key)."""
        ...

    def labels(self, group: int, number: int) -> np.ndarray:
        """int [num_tasks], -1 where the label is missing."""
        ...

    def read(self, group: int, number: int) -> bytes:
        """The encoded image. Raises BadSample."""
        ...

    def prefetch(self, runs: Sequence[Run]) -> None:
        """These are read next."""
        ...

    def close(self) -> None:
        """No files stay open; the next read opens them again."""
        ...


class ShardImages:
    """The samples of a shard index, checked against its hashes. cache: folder and bytes of the cache of what is read
    from elsewhere; by default remote shards have the one in the user's cache folder."""

    def __init__(self, index: Index, *, cache: tuple[str, int] | None = None) -> None:
        self.index = index
        self.tasks = list(index.tasks)
        self._cache = cache
        if cache is None and is_remote(index.root):
            self._cache = (str(cache_folder("shards")), DEFAULT_CACHE_BYTES)
        self._range_cache: RangeCache | None = None
        self._reader: ShardReader | None = None

    @property
    def counts(self) -> np.ndarray:
        return self.index.counts

    def name(self, group: int, number: int) -> tuple[str, str]:
        return self.index.shards[group].name, self._open().info(group).key(number)

    def labels(self, group: int, number: int) -> np.ndarray:
        return self._open().info(group).labels[number]

    def read(self, group: int, number: int) -> bytes:
        return self._open().read(group, number)

    def prefetch(self, runs: Sequence[Run]) -> None:
        self._open().prefetch(runs)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._range_cache is not None:
            self._range_cache.close()
        self._reader = self._range_cache = None

    @property
    def range_cache(self) -> RangeCache | None:
        """For others who read remote files beside these."""
        if self._range_cache is None and self._cache is not None:
            folder, max_bytes = self._cache
            self._range_cache = RangeCache(folder, max_bytes=max_bytes)
        return self._range_cache

    def _open(self) -> ShardReader:
        if self._reader is None:
            self._reader = ShardReader(self.index, self.range_cache)
        return self._reader


@dataclass(frozen=True)
class FileImages:
    """Image files below a folder; their keys are their paths from there as text, so the folder may move. A folder that
    cannot be read stands for its images; its path ends with a slash."""

    folder: Path
    files: Sequence[str]
    tasks: Sequence[str] = ()

    @property
    def counts(self) -> np.ndarray:
        return np.array([len(self.files)], dtype=np.int64)

    def name(self, group: int, number: int) -> tuple[str, str]:
        return "", as_text(self.files[number])

    def labels(self, group: int, number: int) -> np.ndarray:
        return np.full(len(self.tasks), MISSING)

    def read(self, group: int, number: int) -> bytes:
        try:
            if self.files[number].endswith("/"):
                os.scandir(self.folder / self.files[number]).close()
                raise BadSample("could not be read when the photos were looked for")
            return (self.folder / self.files[number]).read_bytes()
        except OSError as error:
            raise BadSample(f"cannot be read ({error.strerror})") from error

    def prefetch(self, runs: Sequence[Run]) -> None:
        return None

    def close(self) -> None:
        return None


def open_images(place: str) -> tuple[ShardImages | FileImages, list[str]]:
    """The images of a shard folder (local or remote), a folder (recursive, sorted by path) or a file, and notes for
    the user. Raises DataError when there are none."""
    path = Path(place.removeprefix("file://"))
    if is_remote(place) or (path / INDEX_NAME).exists():
        return ShardImages(load_index(place)), []
    if path.is_file():
        return FileImages(path.parent, [path.name]), []
    if not path.is_dir():
        raise DataError(f"--data {place}: no such file or folder")
    found = walk(path, pass_unreadable=True)
    if not found.images and not found.unreadable:
        splits = sorted(str(index.parent) for index in path.glob(f"*/{INDEX_NAME}"))
        hint = f"; it holds shard folders, take one of {', '.join(splits)}" if splits else ""
        raise DataError(f"--data {place}: no photos found ({', '.join(IMAGE_SUFFIXES)}){hint}")
    return FileImages(path, sorted([*found.images, *found.unreadable])), found.notes()


def named_images(paths: Sequence[str]) -> FileImages:
    """These photos, by the paths that they are named by. DataError for a folder; a file that is not there is bad."""
    for path in paths:
        if os.path.isdir(path):
            raise DataError(f"{path}: is a folder; predict its photos with --data {path} --out predictions.csv")
    return FileImages(Path(), [path.removeprefix("file://") for path in paths])


class ImageSubset:
    """At most `count` images as one group; the same ones in the same order every time.

    shuffled: a set may be ordered by class, and each batch shall have images from all over it; batch norms measured on
    one class at a time would miss how the classes differ.
    """

    def __init__(self, images: ImageSet, *, count: int, shuffled: bool = False) -> None:
        self._images = images
        ends = np.cumsum(images.counts)
        total = int(ends[-1]) if len(ends) else 0
        picked = np.arange(min(count, total)) * total // max(1, min(count, total))
        if shuffled:
            picked = np.random.default_rng(0).permutation(picked)
        self._group = np.searchsorted(ends, picked, side="right")
        self._number = picked - np.concatenate([[0], ends])[self._group]

    @property
    def tasks(self) -> Sequence[str]:
        return self._images.tasks

    @property
    def counts(self) -> np.ndarray:
        return np.array([len(self._group)], dtype=np.int64)

    def name(self, group: int, number: int) -> tuple[str, str]:
        return self._images.name(*self._place(number))

    def labels(self, group: int, number: int) -> np.ndarray:
        return self._images.labels(*self._place(number))

    def read(self, group: int, number: int) -> bytes:
        return self._images.read(*self._place(number))

    def prefetch(self, runs: Sequence[Run]) -> None:
        numbers = [number for run in runs for number in range(run.first, run.last)]
        self._images.prefetch([Run(group, image, image + 1) for group, image in map(self._place, numbers)])

    def close(self) -> None:
        self._images.close()

    def _place(self, number: int) -> tuple[int, int]:
        return int(self._group[number]), int(self._number[number])
