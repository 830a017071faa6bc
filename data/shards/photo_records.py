"""What a build remembers of the photos in a shard: their hashes, and which files they came from.

Use: `photos = read_photos(folder, 7); photos.keys, photos.hashes(), photos.size, photos.digest`

It lies beside the record of the finished shard (`.build/000007.photos`, safetensors), and is written before it. About
280 bytes a photo, of which 256 are the thumbnail that hashes are made of.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from data.errors import DataError
from data.files import write_atomically
from data.images.photo_hash import SIDE, PhotoHashes
from data.index import pack_keys, unpack_keys
from data.shards.build_plan import RECORDS_FOLDER

SUFFIX = ".photos"
_COLUMNS = {
    "thumbnail": np.uint8,
    "size": np.int64,
    "digest": np.uint64,
    "key_bytes": np.uint8,
    "key_ends": np.int64,
    "group_bytes": np.uint8,
    "group_ends": np.int64,
}


@dataclass(frozen=True, eq=False)
class ShardPhotos:
    """Photos of one shard in its order. size: int64 [n], bytes of the source's file; digest: uint64 [n], `digest_of`
    them; thumbnail: uint8 [n, 16, 16], or [0, 16, 16] where no near-duplicates were asked for; groups: the group that
    each was said to belong to, "" for none."""

    keys: tuple[str, ...]
    size: np.ndarray
    digest: np.ndarray
    thumbnail: np.ndarray
    groups: tuple[str, ...]

    @property
    def has_thumbnails(self) -> bool:
        return len(self.thumbnail) == len(self.keys)

    def hashes(self) -> PhotoHashes:
        return PhotoHashes.of(self.thumbnail)


def digest_of(data: bytes) -> int:
    """64 bits of BLAKE2b of a file's bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def shard_photos(
    keys: Sequence[str],
    data_of: Sequence[tuple[int, int]],
    thumbnails: Sequence[np.ndarray],
    groups: Sequence[str] | None = None,
) -> ShardPhotos:
    """From (size, digest) of each photo; without thumbnails where that list is empty. groups: None is no groups."""
    size, digest = np.array(data_of, object).reshape(-1, 2).T
    stacked = np.stack(thumbnails) if thumbnails else np.empty((0, SIDE, SIDE), np.uint8)
    named = tuple(groups if groups is not None else [""] * len(keys))
    return ShardPhotos(tuple(keys), size.astype(np.int64), digest.astype(np.uint64), stacked, named)


def photos_path(folder: Path, number: int) -> Path:
    """Of shard `number` of a built folder."""
    return folder / RECORDS_FOLDER / f"{number:06d}{SUFFIX}"


def write_photos(folder: Path, number: int, photos: ShardPhotos) -> None:
    key_bytes, key_ends = pack_keys(photos.keys)
    group_bytes, group_ends = pack_keys(photos.groups)
    packed = {"key_bytes": key_bytes, "key_ends": key_ends, "group_bytes": group_bytes, "group_ends": group_ends}
    columns = {**vars(photos), **packed}
    tensors = {name: np.ascontiguousarray(columns[name], dtype) for name, dtype in _COLUMNS.items()}
    write_atomically(photos_path(folder, number), safetensors.numpy.save(tensors))


def read_photos(folder: Path, number: int) -> ShardPhotos | None:
    """None where the build left none. DataError names a broken file."""
    path = photos_path(folder, number)
    try:
        tensors = safetensors.numpy.load(path.read_bytes())
        columns = {name: tensors[name].astype(dtype, casting="equiv") for name, dtype in _COLUMNS.items()}
        keys = unpack_keys(columns.pop("key_bytes"), columns.pop("key_ends"))
        groups = unpack_keys(columns.pop("group_bytes"), columns.pop("group_ends"))
        photos = ShardPhotos(tuple(keys), **columns, groups=tuple(groups))
        if not len(photos.size) == len(photos.digest) == len(groups) == len(keys) or len(photos.thumbnail) not in (
            0,
            len(keys),
        ):
            raise ValueError("its columns differ in length")
        if photos.thumbnail.shape[1:] != (SIDE, SIDE):
            raise ValueError(f"its thumbnails are of {photos.thumbnail.shape[1:]} pixels")
    except FileNotFoundError:
        return None
    except Exception as error:  # safetensors has its own error type
        raise DataError(f"{path}: does not list photos ({error}); delete it and build again") from error
    return photos
