"""A perceptual hash of a photo: what re-encoding, resizing and small crops leave as it is.

    hashes = PhotoHashes.of(np.stack([thumbnail_of_bytes(data) for data in photos]))
    hashes.hash[3] ^ hashes.hash[7]  # few bits set: the two may show the same

What is kept of a photo is a grey thumbnail of 16 x 16 pixels, 256 bytes. The hash is pHash (Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions"): whether each of the 63 lowest frequencies of the
thumbnail's cosine transform, its mean left out, is above their median. Against dHash (which of two neighbouring pixels
is brighter) it was measured on 300 photos of the Grocery Store data set. The median and the 99th percentile of the bits
that a change flips:

    JPEG of quality 50:    pHash 0 and 2, dHash 0 and 2      half the size:              pHash 0 and 2, dHash 0 and 2
    brightness times 1.4:  pHash 2 and 8, dHash 1 and 4      2.5 % cut off every edge:   pHash 6 and 12, dHash 6 and 13

Both lose a photo of which 5 % were cut off at a corner (10 to 12 bits in the median). But pHash is linear up to the
comparison, so that the hash of a crop follows from the thumbnail of the whole: the `CROPS` are tried, too, and find
0.99 of those photos, and 0.96 of those of which each edge lost anything up to 5 %. Whether two photos whose hashes are
close show the same is then for the thumbnails to say (`correlation`).
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from data.images import MAX_PIXELS
from data.images.decode import decode_small

SIDE = 16  # pixels of a thumbnail
NUM_BITS = 63
# What may have been cut off a photo: shares of its height and width (top, bottom, left, right). The first is nothing.
CROPS = (
    (0.0, 0.0, 0.0, 0.0),
    (0.05, 0.0, 0.05, 0.0),
    (0.05, 0.0, 0.0, 0.05),
    (0.0, 0.05, 0.05, 0.0),
    (0.0, 0.05, 0.0, 0.05),
    (0.04, 0.04, 0.04, 0.04),
)

_SAMPLED = 48  # pixels a side that a thumbnail is averaged from: a tenth of the time that all of 348 x 348 would take
_LEAST_CONTRAST = 5.0  # standard deviation of a thumbnail, in grey levels


@dataclass(frozen=True, eq=False)
class PhotoHashes:
    """Of n photos. thumbnail: uint8 [n, 16, 16], grey; hash: uint64 [n], 63 bits; structured: bool [n], False for blank
    and nearly black photos, whose hashes are noise and which are nobody's near-duplicates."""

    thumbnail: np.ndarray
    hash: np.ndarray
    structured: np.ndarray

    @classmethod
    def of(cls, thumbnails: np.ndarray) -> "PhotoHashes":
        """uint8 [n, 16, 16] -> the hashes of n photos."""
        flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE)
        parts = [flat[first : first + _ROWS] for first in range(0, len(flat), _ROWS)]
        structured = [part.std(axis=1, dtype=np.float32) >= _LEAST_CONTRAST for part in parts]
        return cls(thumbnails, crop_hashes(thumbnails, 0), np.concatenate([np.empty(0, bool), *structured]))

    def __len__(self) -> int:
        return len(self.hash)


def thumbnail_of_bytes(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Of an encoded photo, upright: uint8 [16, 16]. Raises BadSample where it does not decode."""
    return thumbnail_of_pixels(decode_small(data, side=_SAMPLED, max_pixels=max_pixels))


def thumbnail_of_pixels(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] or grey [H, W] -> uint8 [16, 16]."""
    sampled = cv2.resize(pixels, (_SAMPLED, _SAMPLED), interpolation=cv2.INTER_LINEAR)
    if sampled.ndim == 3:
        sampled = cv2.cvtColor(sampled, cv2.COLOR_RGB2GRAY)
    return cv2.resize(sampled, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def crop_hashes(thumbnails: np.ndarray, crop: int) -> np.ndarray:
    """uint8 [n, 16, 16] -> uint64 [n]: the hashes of the photos after `CROPS[crop]`."""
    down, across = _crop_matrices(crop)
    hashes = np.empty(len(thumbnails), np.uint64)
    for first in range(0, len(thumbnails), _ROWS):
        part = thumbnails[first : first + _ROWS].astype(np.float32)
        waves = (_COSINES @ down @ part @ (_COSINES @ across).T).reshape(len(part), -1)[:, _LOWEST]
        bits = waves > np.partition(waves, NUM_BITS // 2, axis=1)[:, NUM_BITS // 2, None]
        octets = np.ascontiguousarray(np.packbits(bits, axis=1, bitorder="little"))
        hashes[first : first + _ROWS] = octets.view("<u8")[:, 0]
    return hashes


def correlation(one: np.ndarray, other: np.ndarray, crop: int) -> np.ndarray:
    """float32 [n], -1 to 1: of the n thumbnails `one` after `CROPS[crop]` with the n thumbnails `other`, both
    uint8 [n, 16, 16]. Brightness and contrast make no difference (normalised cross-correlation)."""
    down, across = _crop_matrices(crop)
    cropped = _normalised(down @ one.astype(np.float32) @ across.T)
    return np.einsum("np,np->n", cropped, _normalised(other.astype(np.float32)))


def _normalised(thumbnails: np.ndarray) -> np.ndarray:
    """float32 [n, 16, 16] -> [n, 256] of mean 0 and length 1."""
    flat = thumbnails.reshape(len(thumbnails), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))


def _crop_matrices(crop: int) -> tuple[np.ndarray, np.ndarray]:
    top, bottom, left, right = CROPS[crop]
    return _stretch(top, bottom), _stretch(left, right)


@functools.cache
def _stretch(before: float, after: float) -> np.ndarray:
    """float32 [16, 16]: interpolates linearly what is left of 16 pixels to 16 pixels."""
    places = (before + (np.arange(SIDE) + 0.5) / SIDE * (1 - before - after)) * SIDE - 0.5
    places = np.clip(places, 0, SIDE - 1)
    lower = np.minimum(places.astype(int), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    matrix[np.arange(SIDE), lower] = 1 - (places - lower)
    matrix[np.arange(SIDE), lower + 1] += places - lower
    return matrix


_ROWS = 8192  # thumbnails that are transformed at a time, which bounds the memory
_COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(8), np.arange(SIDE) + 0.5)).astype(np.float32)  # DCT-II, [8, 16]
_COSINES[0] *= np.sqrt(0.5, dtype=np.float32)
# Every third frequency in turn: near_pairs cuts the hash into three parts, and neighbouring frequencies go together.
_LOWEST = np.concatenate([np.arange(1 + third, 64, 3) for third in range(3)])
