"""Importers: one file per kind of data set, listed in SOURCES.

Use: `source = open_source("folder:photos/birds", task=None)`
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from data.errors import BadArgument
from data.sources.cells import MISSING_WORDS
from data.sources.cifar10 import read_cifar10
from data.sources.elpv import read_elpv
from data.sources.fashion_mnist import read_fashion_mnist
from data.sources.folder import read_folder
from data.sources.food11 import read_food11
from data.sources.grocery import read_grocery
from data.sources.manifest import read_manifest
from data.sources.source import Record, Source

__all__ = ["MISSING_WORDS", "SOURCES", "Record", "Source", "open_source"]

DEFAULT_TASK = "class"

# kind -> reader of (path after the colon, --task); sources that name their own tasks refuse --task.
SOURCES: dict[str, Callable[[str, str | None], Source]] = {
    "folder": lambda path, task: read_folder(_path("folder", path), task=task or DEFAULT_TASK),
    "manifest": lambda path, task: read_manifest(_own_tasks("manifest", path, task)),
    "food11": lambda path, task: read_food11(_path("food11", path), task=task or DEFAULT_TASK),
    "cifar10": lambda path, task: read_cifar10(_path("cifar10", path), task=task or DEFAULT_TASK),
    "fashion-mnist": lambda path, task: read_fashion_mnist(_path("fashion-mnist", path), task=task or DEFAULT_TASK),
    "elpv": lambda path, task: read_elpv(_own_tasks("elpv", path, task) if path or task else None),
    "grocery": lambda path, task: read_grocery(_own_tasks("grocery", path, task)),
}


def open_source(text: str, *, task: str | None = None, missing: Sequence[str] | None = None) -> Source:
    """Open `KIND:PATH`; `task` names the task of a single-task source, `missing` the words that are no label in a table
    (None: MISSING_WORDS). BadArgument lists the kinds there are."""
    kind, colon, path = text.partition(":")
    if not colon or kind not in SOURCES:
        raise BadArgument(f"--source {text}: must be KIND:PATH with KIND one of {', '.join(SOURCES)}")
    if missing is None:
        return SOURCES[kind](path, task)
    if kind != "manifest":
        raise BadArgument(f"--missing: is for the cells of a manifest, {kind} has none; leave it out")
    return read_manifest(_own_tasks(kind, path, task), missing=missing)


def _path(kind: str, path: str) -> Path:
    if not path:
        raise BadArgument(f"--source {kind}: needs a path, as {kind}:PATH")
    return Path(path).expanduser()


def _own_tasks(kind: str, path: str, task: str | None) -> Path:
    if task is not None:
        raise BadArgument(f"--task {task}: {kind} names its tasks itself; leave --task out")
    return _path(kind, path)
