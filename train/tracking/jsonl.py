"""Append-only JSON lines that survive a kill, and that can be cut back to a step on resume.

log = JsonLines(path, sync=True); log.write({"step": 3, "loss": 0.5}); cut_lines(path, before_step=3)
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.files import write_result


class JsonLines:
    """One JSON object a line, each with a `step`; with `sync` every line is on disk when write returns."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._sync = sync

    def write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(without_nan(record)) + "\n")
        self._file.flush()
        if self._sync:
            os.fsync(self._file.fileno())

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file; a last line that a kill cut short is left out. Empty when there is no file."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def cut_lines(path: Path, *, before_step: int, but: Callable[[Mapping[str, Any]], bool] = lambda record: False) -> None:
    """Keep the lines whose `step` is below `before_step`, but those that `but` names: a resumed run writes the others
    again."""
    if not path.exists():
        return
    kept = [record for record in read_lines(path) if record["step"] < before_step and not but(record)]
    path.with_suffix(".part").unlink(missing_ok=True)  # left by a version before data.files
    write_result(path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def without_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: a measure without samples is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
