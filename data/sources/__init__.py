"""Importers: one file per kind of data set, listed in SOURCES.

Use: `source = open_source("folder:photos/birds", task=None)`
"""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from data.errors import BadArgument
from data.sources.cells import CASES, MISSING_WORDS
from data.sources.cifar10 import read_cifar10
from data.sources.columns import TableOptions
from data.sources.elpv import read_elpv
from data.sources.fashion_mnist import read_fashion_mnist
from data.sources.folder import read_folder
from data.sources.food11 import read_food11
from data.sources.grocery import read_grocery
from data.sources.manifest import read_manifest
from data.sources.source import Record, Source
from data.tables import is_table

__all__ = ["CASES", "MISSING_WORDS", "SOURCES", "Record", "Source", "TableOptions", "open_source"]

DEFAULT_TASK = "class"

# kind -> reader of (path after the colon, --task); sources that name their own tasks refuse --task. Tables are apart.
SOURCES: dict[str, Callable[[str, str | None, TableOptions], Source]] = {
    "folder": lambda path, task, options: read_folder(
        _path("folder", path), task=task or DEFAULT_TASK, case=options.case
    ),
    "manifest": lambda path, task, options: read_manifest(_own_tasks("manifest", path, task), options),
    "food11": lambda path, task, _: read_food11(_path("food11", path), task=task or DEFAULT_TASK),
    "cifar10": lambda path, task, _: read_cifar10(_path("cifar10", path), task=task or DEFAULT_TASK),
    "fashion-mnist": lambda path, task, _: read_fashion_mnist(_path("fashion-mnist", path), task=task or DEFAULT_TASK),
    "elpv": lambda path, task, _: read_elpv(_own_tasks("elpv", path, task) if path or task else None),
    "grocery": lambda path, task, _: read_grocery(_own_tasks("grocery", path, task)),
}
# Fields of TableOptions that other kinds understand, too.
_FOR_ALL = {"group", "case"}


def open_source(text: str, *, task: str | None = None, options: TableOptions | None = None) -> Source:
    """Open `KIND:PATH`, a table or a folder of class folders; `task` names the task of a single-task source, `options`
    say how a table is read. For other sources `options.group` is a regular expression (see `group_by_name`).

    BadArgument lists the kinds there are, and names an option that the kind has no use for."""
    options = options or TableOptions()
    kind, path = _kind_of(text)
    if kind == "manifest":
        return SOURCES[kind](path, task, options)
    defaults = asdict(TableOptions())
    given = [name for name, value in asdict(options).items() if value != defaults[name]]
    if useless := [name.replace("_", "-") for name in given if name not in _FOR_ALL]:
        raise BadArgument(f"--{useless[0]}: is for tables, {kind}: reads none; leave it out")
    source = SOURCES[kind](path, task, options)
    return source if options.group is None else group_by_name(source, options.group)


def _kind_of(text: str) -> tuple[str, str]:
    """(kind, path). A path alone is a table or a folder."""
    kind, colon, path = text.partition(":")
    if colon and kind in SOURCES:
        return kind, path
    alone = Path(text).expanduser()
    if alone.is_dir():
        return "folder", text
    if is_table(alone):
        return "manifest", text
    raise BadArgument(
        f"--source {text}: must be a table (.csv, .jsonl), a folder of class folders, or KIND:PATH with KIND one of "
        f"{', '.join(SOURCES)}"
    )


def group_by_name(source: Source, pattern: str) -> Source:
    """The records grouped by what `pattern`, a regular expression, finds in their keys: its first (...), or all of it.

    Raises BadArgument for a pattern that is wrong or found in no key."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadArgument(f"--group {pattern}: is no regular expression ({error})") from error
    found = [compiled.search(record.key) for record in source.records]
    if not any(found):
        raise BadArgument(
            f"--group {pattern}: is found in none of the {len(found):,} names, as {source.records[0].key!r}; for a "
            r"person's number before a dash: --group '([0-9]+)-'"
        )
    records = [
        record._replace(group=(match[1] or "" if compiled.groups else match[0]) if match else "")
        for record, match in zip(source.records, found, strict=True)
    ]
    notes = source.notes
    if alone := sum(not record.group for record in records):
        notes = (*notes, f"--group {pattern}: is not found in {alone:,} of {len(records):,} names; these stand alone")
    return replace(source, records=records, notes=notes)


def _path(kind: str, path: str) -> Path:
    if not path:
        raise BadArgument(f"--source {kind}: needs a path, as {kind}:PATH")
    return Path(path).expanduser()


def _own_tasks(kind: str, path: str, task: str | None) -> Path:
    if task is not None:
        raise BadArgument(f"--task {task}: {kind} names its tasks itself; leave --task out")
    return _path(kind, path)
