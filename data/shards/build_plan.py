"""What a build was asked for, kept beside its shards, so that a second call continues only the same build.

Use: `with lock_folder(folder): open_folder(folder, make_plan(source, settings), overwrite=False)`
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from data.errors import DataError
from data.files import sweep, write_atomically
from data.index import INDEX_NAME, shard_index_from_bytes
from data.sources import Source
from launch.file_lock import FileLock

PLAN_NAME = "plan.json"
BATCHES_NAME = "appended.json"  # beside the plan: what was added to the set, see data.shards.append
RECORDS_FOLDER = ".build"  # in a shard folder: the plan, the lock, and a record of each finished shard
OWNER = "slimheads"  # of every member of a tar that a build wrote
CONTENT = "content of the source"

Plan = dict[str, str | int | float | None]


def shard_name(number: int) -> str:
    """`000007.tar`."""
    return f"{number:06d}.tar"


def is_built(tar: Path) -> bool:
    """Whether data.build wrote this tar, and so made its keys; else another tool did."""
    with tar.open("rb") as file:
        file.seek(265)  # where a tar's first header has the name of the owner: 32 bytes, filled up with zeros
        return file.read(32).rstrip(b"\0") == OWNER.encode()


def make_plan(source: Source, settings: Mapping[str, str | int | float | None]) -> Plan:
    """The settings that decide the bytes, and the content of the source."""
    return {**settings, CONTENT: content_of(source)}


def content_of(source: Source) -> str:
    """A hash over tasks and records: keys, labels, splits, groups, and size and time of each file (arrays: their
    bytes)."""
    digest = hashlib.sha256(json.dumps(source.tasks).encode())
    if source.arrays is not None:
        digest.update(source.arrays.tobytes())
    for record in source.records:
        stamp: object = record.image
        if isinstance(record.image, str):
            try:
                status = os.stat(record.image)
                stamp = (status.st_size, status.st_mtime_ns)
            except OSError:
                stamp = "missing"
        sides = tuple(filter(None, (record.split, record.group)))
        digest.update(repr((record.key, record.labels, stamp, *sides)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold `folder` for one build at a time. DataError when another holds it."""
    path = folder / RECORDS_FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path) as lock:
        if not lock.acquire():
            raise DataError(f"{folder}: another build is writing it at this moment")
        yield


def read_plan(folder: Path) -> Plan | None:
    """What the build of a shard folder was asked for; None where no build wrote it."""
    path = folder / RECORDS_FOLDER / PLAN_NAME
    plan: Plan | None = json.loads(path.read_bytes()) if path.is_file() else None
    return plan


def open_folder(folder: Path, plan: Plan, *, overwrite: bool) -> None:
    """Make the locked `folder` ready for shards of `plan`, without left-over temporary files. DataError when it holds
    another build, or anything else's shards, and `overwrite` was not asked for."""
    earlier = read_plan(folder)
    grown = (folder / RECORDS_FOLDER / BATCHES_NAME).is_file()
    if grown and not overwrite:
        raise DataError(f"{folder}: has grown by --append; add to it with --append, or --overwrite it")
    if earlier != plan or grown:
        shards = sorted(folder.glob("*.tar"))
        if not overwrite and earlier is not None:
            different = [name for name in plan.keys() | earlier.keys() if plan.get(name) != earlier.get(name)]
            changes = ", ".join(_describe(name, earlier, plan) for name in sorted(different))
            more = "; --append adds what is new" if CONTENT in different else ""
            raise DataError(f"{folder}: holds another build ({changes}); choose another --out or add --overwrite{more}")
        if shards and earlier is None:
            raise DataError(f"{folder}: already holds {shards[0].name}, which no build wrote; choose another --out")
        if corrected := count_corrected(folder):
            print(f"note: {folder}: {corrected} corrected labels of the build that was here are gone with it")
        (folder / INDEX_NAME).unlink(missing_ok=True)  # first: without it, what is left is no data set
        remove_shards(folder)
        (folder / RECORDS_FOLDER / BATCHES_NAME).unlink(missing_ok=True)
        write_atomically(folder / RECORDS_FOLDER / PLAN_NAME, json.dumps(plan, indent=1).encode())
    for place in (folder, folder / RECORDS_FOLDER):
        sweep(place, alone=True)


def remove_shards(folder: Path, *, first: int = 0) -> None:
    """Shards of a build from number `first` on, and what is remembered of them; nothing else."""
    number = "[0-9]" * len(shard_name(0).removesuffix(".tar"))
    for pattern in (f"{number}.tar", f"{number}.idx", f"{RECORDS_FOLDER}/{number}.*"):
        for file in folder.glob(pattern):
            if int(file.stem) >= first:
                file.unlink()


def count_corrected(folder: Path) -> int:
    """Labels of the folder's shards that were corrected after they were built."""
    corrected = 0
    for path in folder.glob("*.idx"):
        with suppress(OSError, DataError):
            corrected += len(shard_index_from_bytes(path.read_bytes(), name=str(path)).corrected)
    return corrected


def _describe(name: str, earlier: Plan, plan: Plan) -> str:
    if name == CONTENT:
        return "the source's files or labels have changed"
    return f"{name} was {earlier.get(name)}, is {plan.get(name)}"
