"""Importer for CIFAR-10 (Krizhevsky 2009): the original python batches, or a folder of images.

Use: `source = read_cifar10(Path("cifar-10-batches-py"), task="class")`

The batches are pickles, and unpickling runs whatever the file asks for. Here only three names are known, and they
stand for inert containers of ours: nothing in the file can be called.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.sources.folder import read_folder
from data.sources.source import Record, Source, make_keys

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = 3 * 32 * 32


def read_cifar10(path: Path, *, task: str) -> Source:
    """Read data_batch_1 to 5 (train) and test_batch (test); a folder without them is read as class folders."""
    inside = path / "cifar-10-batches-py"
    path = inside if inside.is_dir() else path
    batches = [("train", path / f"data_batch_{number}") for number in range(1, 6)] + [("test", path / "test_batch")]
    present = [(split, file) for split, file in batches if file.is_file()]
    if not present:
        return read_folder(path, task=task)
    missing = [file.name for split, file in batches if (split, file) not in present]
    notes = (f"{path}: {', '.join(missing)} are not there",) if missing else ()
    arrays, labels, splits, names = [], [], [], []
    for split, file in present:
        pixels, numbers, filenames = _read_batch(file)
        arrays.append(pixels)
        labels += numbers
        splits += [split] * len(numbers)
        names += [f"{split}/{name}" for name in filenames]
    records = [
        Record(key, (label,), split, row)
        for row, (key, label, split) in enumerate(zip(make_keys(names), labels, splits, strict=True))
    ]
    return Source({task: CLASSES}, records, notes, np.concatenate(arrays))


def _read_batch(file: Path) -> tuple[np.ndarray, list[int], list[str]]:
    """(pixels uint8 [n, 32, 32, 3], labels, file names) of one batch."""
    try:
        with file.open("rb") as stream:
            content = _Unpickler(stream, encoding="bytes").load()
        data, labels, names = content[b"data"], content[b"labels"], content[b"filenames"]
        pixels = np.frombuffer(data.raw, np.uint8).reshape(len(labels), 3, 32, 32)
        filenames = [name.decode("ascii") for name in names]
    except Exception as error:  # a broken pickle fails in as many ways as there are opcodes
        raise DataError(f"{file}: is not a CIFAR-10 batch ({error})") from error
    if data.shape != (len(labels), _PIXELS) or len(filenames) != len(labels):
        raise DataError(f"{file}: has {data.shape} pixels, {len(labels)} labels and {len(filenames)} names")
    if not all(isinstance(label, int) and 0 <= label < len(CLASSES) for label in labels):
        raise DataError(f"{file}: has labels that are not 0 to {len(CLASSES) - 1}")
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels, filenames


class _Array:
    """Takes the place of a pickled numpy array: keeps its shape and raw bytes."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.raw = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, dtype, fortran_order, self.raw = state
        if dtype.name not in ("u1", b"u1") or fortran_order:
            raise ValueError("pixels are not uint8 in row order")


class _DataType:
    """Takes the place of a pickled numpy dtype."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which one-byte pixels do not need."""


def _text_to_bytes(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes into old pickles as a call of `_codecs.encode(text, "latin1")`."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DataType,
    ("_codecs", "encode"): _text_to_bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 batch needs")
        return _KNOWN[module, name]
