"""`index.json`: the tasks with their class names, and every shard's sample count, size and hashes.

Use: `index = load_index("https://host/shards/train"); print(index.num_samples, list(index.tasks))`
"""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import google_crc32c
import numpy as np

from data.errors import BadArgument, DataError
from data.files import settle_if_allowed, write_atomically
from data.index.label_rule import LabelRule, label_rule_to_json, parse_label_rule
from data.index.labels import MISSING, check_names
from data.index.shard import ShardIndex, idx_name, shard_index_from_bytes
from data.sealed_json import BrokenSeal, open_sealed, seal
from data.storage import is_remote, join_url, local_root, read_bytes

FORMAT = "slimheads-index/1"
INDEX_NAME = "index.json"
_COLUMNS = {"name": str, "count": int, "bytes": int, "sha256": str, "idx_crc32c": int}


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file: its name in the folder, samples, bytes, SHA-256 (hex) and the crc32c of its .idx file."""

    name: str
    count: int
    bytes: int
    sha256: str
    idx_crc32c: int


@dataclass(frozen=True)
class Index:
    """A split: `tasks` maps each task to its class names in label order; `shards` are sorted by name. The last
    `num_unlabelled` tasks are not in the files: no sample has a label of them."""

    root: str
    tasks: dict[str, tuple[str, ...]]
    shards: tuple[Shard, ...]
    num_unlabelled: int = 0
    label_rule: LabelRule = field(default_factory=LabelRule)
    # task -> class number in the files -> number in `tasks`, where the two differ; -1 for a class that has no sample
    renumbered: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def counts(self) -> np.ndarray:
        """Samples per shard, int64 [num_shards]."""
        return np.fromiter((shard.count for shard in self.shards), np.int64, len(self.shards))

    @property
    def num_samples(self) -> int:
        return int(self.counts.sum())

    @property
    def fingerprint(self) -> str:
        """Hash of tasks, classes and shard contents: all that the order of an epoch takes from the data."""
        content = [self.tasks, [(shard.name, shard.count, shard.sha256, shard.idx_crc32c) for shard in self.shards]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def with_unlabelled(self, tasks: Mapping[str, tuple[str, ...]]) -> "Index":
        """The same data with further tasks, of which every label is missing."""
        more = self.num_unlabelled + len(tasks)
        return replace(self, tasks={**self.tasks, **tasks}, num_unlabelled=more)

    def shard_url(self, number: int) -> str:
        """Path or URL of the tar."""
        return join_url(self.root, self.shards[number].name)

    def idx_url(self, number: int) -> str:
        """Path or URL of the .idx file."""
        return join_url(self.root, idx_name(self.shards[number].name))

    def load_shard(self, number: int) -> ShardIndex:
        """Read and check one shard's rows. DataError names the file when it is missing or is not the indexed one."""
        return self.parse_shard(number, read_bytes(self.idx_url(number)))

    def parse_shard(self, number: int, data: bytes) -> ShardIndex:
        """Check and parse the bytes of one shard's .idx file, for callers that fetched them on their own."""
        shard, url = self.shards[number], self.idx_url(number)
        if google_crc32c.value(data) != shard.idx_crc32c:
            raise DataError(f"{url}: has changed since {INDEX_NAME} was written; run data.index or data.build again")
        rows = shard_index_from_bytes(data, name=url)
        num_labelled = len(self.tasks) - self.num_unlabelled
        if rows.labels.shape != (shard.count, num_labelled):
            found = " samples of ".join(map(str, rows.labels.shape))
            raise DataError(
                f"{url}: has {found} tasks, "
                f"but {INDEX_NAME} says {shard.count} of {num_labelled}; run data.index or data.build again"
            )
        num_classes = [len(self.renumbered.get(task, names)) for task, names in self.tasks.items()][:num_labelled]
        if error := rows.find_error(num_classes, shard.bytes):
            raise DataError(f"{url}: {error}; run data.index or data.build again")
        if self.renumbered:
            rows = replace(rows, labels=self._renumber(rows.labels))
        if self.num_unlabelled:
            missing = np.full((shard.count, self.num_unlabelled), MISSING, rows.labels.dtype)
            rows = replace(rows, labels=np.concatenate([rows.labels, missing], axis=1))
        return rows

    def _renumber(self, labels: np.ndarray) -> np.ndarray:
        """int32 [n, tasks of the files]: class numbers of the files -> those of `tasks`."""
        renumbered = labels.copy()
        for column, task in enumerate(self.tasks):
            if task in self.renumbered:
                # The number -1, a missing label, takes the last entry.
                renumbered[:, column] = np.array([*self.renumbered[task], MISSING], labels.dtype)[labels[:, column]]
        return renumbered


def load_index(root: str | os.PathLike[str]) -> Index:
    """Read `index.json` of a shard folder (path, file://, http(s):// or s3://). DataError says what is wrong."""
    folder = local_root(os.fspath(root))
    url = join_url(folder, INDEX_NAME)
    if not is_remote(folder):
        settle_if_allowed(Path(folder))
    try:
        data = read_bytes(url)
    except DataError as error:
        raise DataError(f"{error}. A shard folder needs it: make one with data.build or data.index") from error
    try:
        content = open_sealed(data, name=url)
    except BrokenSeal as error:
        raise DataError(str(error)) from error
    except ValueError as error:
        raise DataError(f"{url}: is not JSON ({error}); run data.index or data.build again") from error
    if not isinstance(content, dict) or "format" not in content:
        raise DataError(f"{url}: is not a shard index; run data.index or data.build again")
    if content["format"] != FORMAT:
        raise DataError(f"{url}: has format {content['format']!r}, this version reads {FORMAT!r}; update Slimheads")
    tasks, shards = _parse_tasks(content.get("tasks"), url), _parse_shards(content.get("shards"), url)
    rule = parse_label_rule(content["label_rule"], url) if "label_rule" in content else LabelRule()
    return Index(folder, tasks, shards, label_rule=rule)


def find_splits(text: str) -> list[Path]:
    """The folder itself if it has an index.json, else its sub-folders that have one. BadArgument where it is no local
    folder."""
    if is_remote(text):
        raise BadArgument(f"{text}: only local folders can be worked on; training checks what it reads from elsewhere")
    folder = Path(local_root(text))
    if not folder.is_dir():
        raise BadArgument(f"{folder}: no such folder")
    if (folder / INDEX_NAME).is_file():
        return [folder]
    splits = sorted(path.parent for path in folder.glob(f"*/{INDEX_NAME}"))
    return splits or [folder]  # load_index says what is missing


def write_index(
    root: str | os.PathLike[str],
    *,
    tasks: Mapping[str, Sequence[str]],
    shards: Sequence[Shard],
    label_rule: LabelRule | None = None,
) -> Path:
    """Write `index.json` atomically (temporary file, fsync, rename) into a local folder; returns its path.

    It is written last: it holds the hashes of the shards and of their .idx files."""
    path = Path(root) / INDEX_NAME
    ordered = sorted(shards, key=lambda shard: shard.name)
    content = {
        "format": FORMAT,
        "tasks": {task: list(names) for task, names in tasks.items()},
        **({"label_rule": label_rule_to_json(label_rule)} if label_rule else {}),
        "shards": {column: [getattr(shard, column) for shard in ordered] for column in _COLUMNS},
    }
    # Read it back as a user would: what would be refused later is refused now.
    _parse_tasks(content["tasks"], str(path))
    _parse_shards(content["shards"], str(path))
    write_atomically(path, seal(content))
    return path


def _parse_tasks(tasks: object, url: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(tasks, dict):
        raise DataError(f"{url}: has no list of tasks")
    for task, names in tasks.items():
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{url}: task {task!r} needs a list of class names")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{url}: task {task!r} lists the class {twice!r} more than once")
    try:
        check_names(tasks)
    except DataError as error:
        raise DataError(f"{url}: {error}") from error
    return {task: tuple(names) for task, names in tasks.items()}


def _parse_shards(columns: object, url: str) -> tuple[Shard, ...]:
    if not isinstance(columns, dict) or set(columns) != set(_COLUMNS):
        raise DataError(f"{url}: the shard list needs exactly the columns {', '.join(_COLUMNS)}")
    for column, kind in _COLUMNS.items():
        if not isinstance(columns[column], list) or set(map(type, columns[column])) - {kind}:
            raise DataError(f"{url}: column {column!r} of the shard list must hold only {kind.__name__} values")
    lengths = {len(values) for values in columns.values()}
    if lengths == {0}:
        raise DataError(f"{url}: is empty, it lists no shards")
    if len(lengths) != 1:
        raise DataError(f"{url}: the columns of the shard list differ in length")
    names = columns["name"]
    if len(set(names)) != len(names):
        twice = next(name for first, name in itertools.pairwise(sorted(names)) if first == name)
        raise DataError(f"{url}: lists the shard {twice!r} more than once")
    if min(columns["count"]) < 1:
        empty = names[columns["count"].index(min(columns["count"]))]
        raise DataError(f"{url}: shard {empty!r} holds no samples; delete it and run data.index again")
    shards = map(Shard, *(columns[column] for column in _COLUMNS))
    return tuple(sorted(shards, key=lambda shard: shard.name))
