"""One shard's rows: byte range, checksum, labels and key of every sample, kept in a safetensors file (`NAME.idx`).

Use: `rows = shard_index_from_bytes(Path("000000.idx").read_bytes(), name="000000.idx"); rows.key(3)`
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import safetensors.numpy

from data.errors import DataError
from data.index.labels import MISSING
from data.names import as_text

_DTYPES = {
    "offset": np.int64,
    "size": np.int32,
    "crc32c": np.uint32,
    "labels": np.int32,
    "key_bytes": np.uint8,
    "key_ends": np.int64,
}


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """Rows of one shard, in sample order.

    offset [n]: byte position of the image member's data in the tar; size [n]: its bytes; crc32c [n]: of the image
    bytes; labels [n, num_tasks]: class number in the order of `Index.tasks`, -1 where the label is missing; key_bytes
    and key_ends [n]: all keys as UTF-8, one after the other. `bad` maps the number of a sample that was found unusable
    when the shard was indexed to the reason; a sample without an image has size 0. `corrected` maps (sample, column of
    the labels) to the class number that the tar says, where `labels` holds a later correction.
    """

    offset: np.ndarray
    size: np.ndarray
    crc32c: np.ndarray
    labels: np.ndarray
    key_bytes: np.ndarray
    key_ends: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)
    corrected: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offset)

    def find_error(self, num_classes: Sequence[int], num_bytes: int) -> str | None:
        """Why these cannot be the rows of a shard of `num_bytes` bytes whose tasks have so many classes; else None."""
        count = len(self)
        if any(len(column) != count for column in (self.size, self.crc32c, self.labels, self.key_ends)):
            return "its columns differ in length"
        ends = np.concatenate([[0], self.key_ends])
        if (np.diff(ends) < 0).any() or ends[-1] != len(self.key_bytes):
            return "its keys do not end where it says"
        if any(not 0 <= number < count for number in self.bad):
            return f"it names a bad sample beyond its {count} samples"
        if (self.offset < 0).any() or (self.size < 0).any() or (self.offset + self.size > num_bytes).any():
            return "an image lies beyond the end of the shard"
        for column, classes in zip(self.labels.T, num_classes, strict=True):
            wrong = np.flatnonzero((column < MISSING) | (column >= classes))
            if len(wrong):
                label, key = column[wrong[0]], self.key(wrong[0])
                return f"label {label} of {key!r} is out of range, there are {classes} classes"
        for (sample, task), label in self.corrected.items():
            if not (0 <= sample < count and 0 <= task < len(num_classes) and MISSING <= label < num_classes[task]):
                return f"it tells of a correction of sample {sample}, task {task}, which cannot be"
        return None

    def uncorrected(self) -> "ShardIndex":
        """The rows as they were before any correction: with the labels that the tar says."""
        labels = self.labels.copy()
        for place, label in self.corrected.items():
            labels[place] = label
        return replace(self, labels=labels, corrected={})

    def key(self, number: int) -> str:
        """Key of one sample: its member's path in the tar without the extension, as text (see `data.names`)."""
        start = int(self.key_ends[number - 1]) if number else 0
        return as_text(self.key_bytes[start : int(self.key_ends[number])].tobytes().decode("utf-8", "surrogateescape"))

    def keys(self) -> list[str]:
        """Of all samples; quicker than one at a time."""
        data, ends = self.key_bytes.tobytes(), self.key_ends.tolist()
        texts = (data[start:end].decode("utf-8", "surrogateescape") for start, end in pairwise([0, *ends]))
        return [as_text(text) for text in texts]


def idx_name(shard_name: str) -> str:
    """`000000.tar` -> `000000.idx`."""
    return shard_name.removesuffix(".tar") + ".idx"


def pack_keys(keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Keys -> (key_bytes uint8 [total], key_ends int64 [n])."""
    encoded = [as_text(key).encode() for key in keys]
    ends = np.cumsum([len(key) for key in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def unpack_keys(key_bytes: np.ndarray, key_ends: np.ndarray) -> list[str]:
    """What `pack_keys` packed. ValueError where it cannot be that."""
    data, ends = key_bytes.tobytes(), key_ends.tolist()
    starts = [0, *ends[:-1]] if ends else []
    if (ends[-1] if ends else 0) != len(data) or any(end < start for start, end in zip(starts, ends, strict=True)):
        raise ValueError("its keys do not end where it says")
    return [data[start:end].decode() for start, end in zip(starts, ends, strict=True)]


def shard_index_to_bytes(rows: ShardIndex) -> bytes:
    """Contents of the .idx file; the same rows always give the same bytes."""
    tensors = {name: np.ascontiguousarray(getattr(rows, name), dtype) for name, dtype in _DTYPES.items()}
    bad = {str(number): rows.bad[number] for number in sorted(rows.bad)}
    # One metadata entry only: safetensors does not keep several in a fixed order.
    if not rows.corrected:
        return safetensors.numpy.save(tensors, metadata={"bad": json.dumps(bad)})
    corrected = [[*place, rows.corrected[place]] for place in sorted(rows.corrected)]
    return safetensors.numpy.save(tensors, metadata={"corrections": json.dumps({"bad": bad, "corrected": corrected})})


def shard_index_from_bytes(data: bytes, *, name: str) -> ShardIndex:
    """Parse a .idx file; `name` is used in the DataError when it is broken."""
    try:
        tensors = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        told = (
            json.loads(metadata["corrections"]) if "corrections" in metadata else {"bad": json.loads(metadata["bad"])}
        )
        bad = {int(number): reason for number, reason in told["bad"].items()}
        corrected = {(int(sample), int(task)): int(label) for sample, task, label in told.get("corrected", [])}
        columns = {column: tensors[column] for column in _DTYPES}
    except Exception as error:  # safetensors has its own error type, JSON and the columns have theirs
        raise DataError(f"{name}: is not a shard index ({error}); run data.index or data.build again") from error
    if any(columns[column].dtype != dtype for column, dtype in _DTYPES.items()):
        raise DataError(f"{name}: columns are not of the expected types; run data.index or data.build again")
    return ShardIndex(**columns, bad=bad, corrected=corrected)
