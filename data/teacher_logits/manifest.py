"""`manifest.json` of a teacher cache: which teacher, pixels, augmentation and shards its logits belong to.

    manifest = load_manifest("shards/train/teacher"); check_manifest(manifest, expected, root="shards/train/teacher")

What a cache was made with never changes; only the number of views grows.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.files import write_atomically
from data.images.augment import OPERATION_NAMES, Operations
from data.images.transform import FIRST_PIXEL_VERSION, PIXEL_VERSION
from data.index import Index
from data.sealed_json import BrokenSeal, open_sealed, seal
from data.storage import join_url, local_root, read_bytes

FORMAT = "slimheads-logits/1"
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class TeacherSource:
    """Where the logits of one task come from: the SHA-256 of the weights, and the mean and std (of RGB pixels in 0..1)
    of their input. `path` tells people; it is not compared."""

    path: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class CachedShard:
    """A shard that the logits belong to, as the index knew it."""

    name: str
    count: int
    sha256: str


@dataclass(frozen=True)
class LogitManifest:
    """What a cache holds.

    tasks: class names, in the order of the columns. teachers: task -> its source. precision: of the teacher's forward
    pass. image_size: pixels that the teacher saw. operations, augment_seed: the views. max_pixels: larger images were
    not decoded. pixel_version: of data.images.transform. views: complete ones over all shards.
    non_finite: rows without finite logits, per view (bad samples and overflows); non_finite_samples: up to 50 of them
    as (shard, key, reason). identity: goes into every checksum of the sidecars, so that they fit no other cache; empty
    in caches of before there was one.
    """

    tasks: dict[str, tuple[str, ...]]
    teachers: dict[str, TeacherSource]
    precision: str
    image_size: int
    operations: Operations
    augment_seed: int
    max_pixels: int
    shards: tuple[CachedShard, ...]
    pixel_version: int = PIXEL_VERSION
    views: int = 0
    non_finite: tuple[int, ...] = ()
    non_finite_samples: tuple[tuple[str, str, str], ...] = ()
    identity: str = ""

    def with_identity(self) -> "LogitManifest":
        """For a new cache: made of all that it is made with."""
        content = asdict(self)
        for teacher in content["teachers"].values():
            del teacher["path"]
        return replace(self, identity=hashlib.sha256(json.dumps(content).encode()).hexdigest())

    @property
    def num_classes(self) -> int:
        """Of all tasks together: the columns."""
        return sum(map(len, self.tasks.values()))


def cached_shards(index: Index) -> tuple[CachedShard, ...]:
    """All shards of an index."""
    return tuple(CachedShard(shard.name, shard.count, shard.sha256) for shard in index.shards)


def load_manifest(root: str) -> LogitManifest:
    """Read the manifest of a cache folder (path, file://, http(s):// or s3://). DataError says what is wrong."""
    url = join_url(local_root(root), MANIFEST_NAME)
    try:
        data = read_bytes(url)
    except DataError as error:
        raise DataError(f"{error}. A teacher cache needs it: make one with python -m train.cache_teacher") from error
    return parse_manifest(data, url)


def parse_manifest(data: bytes, url: str) -> LogitManifest:
    """A manifest from its bytes; `url` is used in the DataError when they are none."""
    try:
        content = open_sealed(data, name=url)
        found = content.pop("format")
        if found != FORMAT:
            raise DataError(f"{url}: has format {found!r}, this version reads {FORMAT!r}; update Slimheads")
        return _from_json(content)
    except BrokenSeal as error:
        raise DataError(str(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{url}: is not the manifest of a teacher cache ({error!r}); cache again") from error


def write_manifest(root: str | Path, manifest: LogitManifest) -> Path:
    """Atomically, into a local folder; returns the path."""
    path = Path(root) / MANIFEST_NAME
    content = {"format": FORMAT, **asdict(manifest)}
    write_atomically(path, seal(content, indent=1))
    return path


def check_manifest(found: LogitManifest, expected: LogitManifest, *, root: str) -> None:
    """DataError naming the first thing in which a cache (`found`, of the folder `root`) is not the one that a run needs
    (`expected`), both values and the fix. The numbers of views are not compared."""
    difference = next(_differences(found, expected), None)
    if difference is not None:
        raise DataError(
            f"{root}: {difference}; set it back, or cache anew (python -m train.cache_teacher) into another folder"
        )


def _from_json(content: dict[str, Any]) -> LogitManifest:
    drawn: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.pop("operations").items()
    }
    return LogitManifest(
        tasks={task: tuple(names) for task, names in content.pop("tasks").items()},
        teachers={
            task: TeacherSource(teacher["path"], teacher["sha256"], tuple(teacher["mean"]), tuple(teacher["std"]))
            for task, teacher in content.pop("teachers").items()
        },
        operations=Operations(**drawn),
        shards=tuple(CachedShard(**shard) for shard in content.pop("shards")),
        pixel_version=content.pop("pixel_version", FIRST_PIXEL_VERSION),
        non_finite=tuple(content.pop("non_finite")),
        non_finite_samples=tuple((shard, key, reason) for shard, key, reason in content.pop("non_finite_samples")),
        **content,
    )


def _differences(found: LogitManifest, expected: LogitManifest) -> Iterator[str]:
    if list(found.tasks) != list(expected.tasks):
        yield f"the logits are of the tasks {', '.join(found.tasks)}, the teacher's are {', '.join(expected.tasks)}"
    for task, names in expected.tasks.items():
        if found.tasks[task] != names:
            yield (
                f"task {task!r} was cached with the classes {', '.join(found.tasks[task])}, "
                f"the teacher has {', '.join(names)}"
            )
        before, now = found.teachers[task], expected.teachers[task]
        if before.sha256 != now.sha256:
            yield (
                f"task {task!r} was cached from another teacher: weights {before.sha256[:12]} ({before.path}), "
                f"now {now.sha256[:12]} ({now.path})"
            )
        if (before.mean, before.std) != (now.mean, now.std):
            yield (
                f"the teacher of task {task!r} had another preprocessing: mean {before.mean} and std {before.std}, "
                f"now mean {now.mean} and std {now.std}"
            )
    yield from _differing_settings(found, expected)
    yield from _differing_shards(found, expected)


def _differing_settings(found: LogitManifest, expected: LogitManifest) -> Iterator[str]:
    settings = [
        ("the teacher's image size", found.image_size, expected.image_size),
        ("precision", found.precision, expected.precision),
        ("augment.seed", found.augment_seed, expected.augment_seed),
        ("data.max_pixels", found.max_pixels, expected.max_pixels),
        *(
            (f"augment.{name}", getattr(found.operations, name), getattr(expected.operations, name))
            for name in OPERATION_NAMES
        ),
    ]
    for name, before, now in settings:
        if before != now:
            yield f"it was cached with another value of {name}: {before}, now {now}"
    if found.pixel_version != expected.pixel_version:
        yield (
            f"the teacher saw photos of pixel version {found.pixel_version}, this Slimheads crops and resizes them by "
            f"version {expected.pixel_version}"
        )


def _differing_shards(found: LogitManifest, expected: LogitManifest) -> Iterator[str]:
    for before, now in zip_longest(found.shards, expected.shards):
        if before is None:
            yield f"shard {now.name} is not in the cache, which has {len(found.shards)} of {len(expected.shards)}"
        elif now is None:
            yield f"the cache has shard {before.name}, the data has not"
        elif before.name != now.name:
            yield f"the cache has shard {before.name} where the data has {now.name}"
        elif before.count != now.count:
            yield f"shard {now.name} had {before.count} samples when it was cached, now {now.count}"
        elif before.sha256 != now.sha256:
            yield f"shard {now.name} is another than the cached one: sha256 {before.sha256[:12]}, now {now.sha256[:12]}"
