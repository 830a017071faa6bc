"""JSON files with a checksum of their own, so that a damaged number or name is not taken for the written one.

path.write_bytes(seal({"format": "x/1", "classes": ["cat"]})); content = open_sealed(path.read_bytes(), name=str(path))

Files without a checksum, from before there were any or written by hand, are read as they are.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import google_crc32c

CHECKSUM = "checksum"


class BrokenSeal(ValueError):
    """The file is JSON, but not what was written; the message names it and what to do."""


def seal(content: Mapping[str, Any], *, indent: int | None = None, apart: str = "") -> bytes:
    """The file's bytes; its last key is the checksum. apart: a key that it does not cover, because its value is checked
    in another way. ValueError for NaN and infinity, which JSON has not."""
    sealed = {**content, CHECKSUM: _checksum(content, apart)}
    separators = (",", ":") if indent is None else None
    text = json.dumps(sealed, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    # Names of files may hold bytes that are no UTF-8: lone surrogates, which JSON escapes just so.
    return (text if indent is None else text + "\n").encode("utf-8", "backslashreplace")


def open_sealed(data: bytes, *, name: str, apart: str = "") -> Any:
    """What the file holds, without its checksum. ValueError where it is not JSON, BrokenSeal where it was changed."""
    content = json.loads(data)
    if not isinstance(content, dict) or CHECKSUM not in content:
        return content
    checksum = content.pop(CHECKSUM)
    if checksum != _checksum(content, apart):
        raise BrokenSeal(
            f"{name}: is damaged, or was changed after it was written (checksum); take or write it anew, or, if the "
            f"change is meant, delete its key {CHECKSUM!r}"
        )
    return content


def finite_or_null(value: Any) -> Any:
    """The same value with None for each NaN and infinity in it, at any depth of mappings and lists."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checksum(content: Mapping[str, Any], apart: str) -> str:
    covered = {key: value for key, value in content.items() if key != apart}
    text = json.dumps(covered, separators=(",", ":"), allow_nan=False)
    return f"crc32c:{google_crc32c.value(text.encode()):08x}"
