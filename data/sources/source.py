"""What every importer gives: tasks with their class names, and a deterministic list of records.

Use: `source = open_source("folder:photos"); data = source.image_bytes(source.records[0])`
"""

import io
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.errors import BadSample
from data.names import as_text

# Folder names in the wild -> the split's name in a shard folder.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "evaluation": "test",
}


class Record(NamedTuple):
    """One image: `key` is unique in the source, `labels` are class numbers in the order of the source's tasks (-1 =
    missing), `split` is the published split ("" where there is none), `image` the path of a file or a row of
    `Source.arrays`. Records of one `group` are never parted by a split; "" is no group."""

    key: str
    labels: tuple[int, ...]
    split: str
    image: str | int
    group: str = ""


# What `_tidy` or `as_text` would change: control and odd characters, \\, absolute paths, . and .. and empty parts.
_UNUSUAL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff\\]|^/|(^|/)\.{0,2}(/|$)", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """An importer's answer. `notes` are notes for the user; `arrays` holds uint8 pixels [n, H, W] or [n, H, W, 3]
    where the images come as arrays instead of files."""

    tasks: dict[str, tuple[str, ...]]
    records: list[Record]
    notes: tuple[str, ...] = ()
    arrays: np.ndarray | None = None

    def image_bytes(self, record: Record) -> bytes:
        """Encoded image (arrays become PNG, without loss). BadSample when the file cannot be read."""
        if isinstance(record.image, str):
            try:
                return Path(record.image).read_bytes()
            except OSError as error:
                raise BadSample(f"{as_text(record.image)}: {error.strerror}") from error
        assert self.arrays is not None
        buffer = io.BytesIO()
        Image.fromarray(self.arrays[record.image]).save(buffer, "PNG")
        return buffer.getvalue()


def make_keys(names: Sequence[str]) -> list[str]:
    """Unique keys from relative paths, safe in a tar: text (see `data.names`), no extension, and no other dot in the
    base name, because webdataset would split the key there. Names that become equal get _2, _3, ... in the order given.
    """
    taken: set[str] = set()
    keys = []
    together = "\n".join(names)
    plain = together.count("\n") == len(names) - 1 and not _UNUSUAL.search(together)
    for name in names:
        folder, base = posixpath.split(name if plain else _tidy(name))
        stem = (base.rpartition(".")[0] or base).replace(".", "_")
        key = wanted = f"{folder}/{stem}" if folder else stem
        number = 1
        while key in taken:
            number += 1
            key = f"{wanted}_{number}"
        taken.add(key)
        keys.append(key)
    return keys


def _tidy(name: str) -> str:
    """A path that stays in its folder, as text."""
    folder, base = posixpath.split(posixpath.normpath(as_text(name.replace("\\", "/"))).lstrip("/"))
    return posixpath.join("/".join("_" if part == ".." else part for part in folder.split("/")), base)
