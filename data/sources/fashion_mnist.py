"""Importer for Fashion-MNIST (Xiao et al. 2017): the four idx files, gzipped or not, in one folder.

Use: `source = read_fashion_mnist(Path("fashion-mnist"), task="class")`
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.sources.source import Record, Source

CLASSES = (
    "t-shirt or top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_FILES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


def read_fashion_mnist(path: Path, *, task: str) -> Source:
    """60,000 training and 10,000 test images of 28x28 grey pixels. DataError names a missing or broken file."""
    arrays: list[np.ndarray] = []
    records: list[Record] = []
    for split, prefix in _FILES.items():
        images = _read_idx(path, f"{prefix}-images-idx3-ubyte", dimensions=3)
        labels = _read_idx(path, f"{prefix}-labels-idx1-ubyte", dimensions=1)
        if len(images) != len(labels):
            raise DataError(f"{path}: {prefix} has {len(images)} images, but {len(labels)} labels")
        if labels.size and labels.max() >= len(CLASSES):
            raise DataError(f"{path}: {prefix} has the label {labels.max()}, classes are 0 to {len(CLASSES) - 1}")
        first = sum(len(array) for array in arrays)
        records += [
            Record(f"{split}/{number:05d}", (int(label),), split, first + number) for number, label in enumerate(labels)
        ]
        arrays.append(images)
    return Source({task: CLASSES}, records, (), np.concatenate(arrays))


def _read_idx(folder: Path, name: str, *, dimensions: int) -> np.ndarray:
    """uint8 array of an idx file: big-endian magic 00 00 type dimensions, the sizes, then the values."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.is_file() and not packed.is_file():
        raise DataError(f"{plain}(.gz): no such file")
    try:
        data = plain.read_bytes() if plain.is_file() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{packed}: cannot be unpacked ({error})") from error
    if data[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(f"{plain}: is not an idx file of {dimensions} dimensions")
    start = 4 + 4 * dimensions
    shape = [int(size) for size in np.frombuffer(data[4:start], ">u4")]
    if len(data) - start != int(np.prod(shape)):
        raise DataError(f"{plain}: holds {len(data) - start} values, its header says {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
