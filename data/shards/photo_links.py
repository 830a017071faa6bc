"""Which photos of a source belong together, before it is split: near-duplicates and files of equal bytes.

Use: `links = near_duplicate_links(source, source.records, workers=2)`  # int64 [m, 2], for the units of a split
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import BadSample
from data.images import MAX_PIXELS
from data.images.near_pairs import find_pairs
from data.images.photo_hash import SIDE, PhotoHashes, thumbnail_of_bytes, thumbnail_of_pixels
from data.shards.process_pool import map_in_processes
from data.sources import Record, Source

_JOB = 256  # photos
_SAMPLE = 4096  # bytes, at the start, in the middle and at the end of a file
_READ_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class _HashSettings:
    source: Source
    max_pixels: int


def near_duplicate_links(
    source: Source, records: Sequence[Record], *, workers: int, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """int64 [m, 2]: pairs of numbers in `records` whose photos show the same, each set of copies as a star."""
    pairs, _ = find_pairs(hash_photos(source, records, workers=workers, max_pixels=max_pixels))
    return np.concatenate([pairs, equal_files(source, records)])


def hash_photos(
    source: Source, records: Sequence[Record], *, workers: int, max_pixels: int = MAX_PIXELS
) -> PhotoHashes:
    """Of n records in their order. Photos that do not decode have no structure: the build that follows names them."""
    jobs = [records[first : first + _JOB] for first in range(0, len(records), _JOB)]
    settings = _HashSettings(Source(source.tasks, [], arrays=source.arrays), max_pixels)  # records travel with the jobs
    thumbnails = map_in_processes(
        _hash_some, jobs, shared=settings, workers=workers, what="Looking for near-duplicates"
    )
    return PhotoHashes.of(np.concatenate([np.empty((0, SIDE, SIDE), np.uint8), *thumbnails]))


def _hash_some(settings: _HashSettings, records: Sequence[Record]) -> np.ndarray:
    """uint8 [n, 16, 16], zeros for bad photos."""
    thumbnails = np.zeros((len(records), SIDE, SIDE), np.uint8)
    for number, record in enumerate(records):
        if isinstance(record.image, int):
            assert settings.source.arrays is not None
            thumbnails[number] = thumbnail_of_pixels(settings.source.arrays[record.image])
            continue
        try:
            data = settings.source.image_bytes(record)
            thumbnails[number] = thumbnail_of_bytes(data, max_pixels=settings.max_pixels)
        except BadSample:
            continue
    return thumbnails


def equal_files(source: Source, records: Sequence[Record]) -> np.ndarray:
    """int64 [m, 2]: numbers of records whose files hold equal bytes (arrays: equal pixels), each linked to the first of
    them. Only files of one size are read: three samples of each, then all bytes where the samples are equal. A file
    that cannot be read equals none."""
    images = [record.image for record in records]
    everything: list[Sequence[int]] = [range(len(images))]
    if source.arrays is not None:
        arrays = source.arrays
        return _stars(_alike(everything, lambda number: _digest([arrays[images[number]].tobytes()])))
    paths = [str(image) for image in images]
    same_size = _alike(everything, lambda number: _size(paths[number]))
    same_samples = _alike(same_size, lambda number: _samples(paths[number]))
    return _stars(_alike(same_samples, lambda number: _bytes(paths[number])))


def _alike(groups: Iterable[Sequence[int]], value: Callable[[int], int | bytes | None]) -> list[Sequence[int]]:
    """The groups parted by the values of their members, without those that stay alone; None is like nothing."""
    parted: list[Sequence[int]] = []
    for group in groups:
        by_value: dict[int | bytes, list[int]] = {}
        for number in group:
            if (found := value(number)) is not None:
                by_value.setdefault(found, []).append(number)
        parted += [members for members in by_value.values() if len(members) > 1]
    return parted


def _stars(groups: Iterable[Sequence[int]]) -> np.ndarray:
    links = [(group[0], number) for group in groups for number in group[1:]]
    return np.array(links, np.int64).reshape(-1, 2)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _samples(path: str) -> bytes | None:
    """A digest of up to three samples: of all of a small file."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 3 * _SAMPLE:
                return _digest([file.read()])
            return _digest(os.pread(file.fileno(), _SAMPLE, place) for place in (0, size // 2, size - _SAMPLE))
    except OSError:
        return None


def _bytes(path: str) -> bytes | None:
    """A digest of all of a file, unless `_samples` has read it all."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size <= 3 * _SAMPLE:
                return b""
            return _digest(iter(lambda: file.read(_READ_AT_ONCE), b""))
    except OSError:
        return None


def _digest(parts: Iterable[bytes]) -> bytes:
    """128 bits of BLAKE2b."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()
