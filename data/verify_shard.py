"""Everything that can be wrong with one shard, as lines of text.

Use: `problems = verify_shard(VerifySettings(load_index("shards/train"), "class"), 0)`
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from data.errors import BadSample, DataError
from data.index import INDEX_NAME, Index, ShardIndex
from data.labels import class_positions, to_numbers
from data.tarsamples import TarSamples, read_tar_samples


@dataclass(frozen=True)
class VerifySettings:
    """The index, and the task that `.cls` members label."""

    index: Index
    cls_task: str


def verify_shard(settings: VerifySettings, number: int) -> list[str]:
    """Compare shard `number` on disk with the index: presence, bytes, SHA-256, rows, images, keys, labels."""
    index = settings.index
    shard, path = index.shards[number], Path(index.shard_url(number))
    if not path.is_file():
        return [f"{path}: is missing"]
    problems = []
    size = path.stat().st_size
    if size != shard.bytes:
        problems.append(f"{path}: has {size} bytes, {INDEX_NAME} says {shard.bytes}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            problems.append(f"{path}: content differs from {INDEX_NAME} (sha256): it was damaged or rewritten")
    try:
        rows = index.load_shard(number)
    except DataError as error:
        return [*problems, str(error)]
    try:
        samples = read_tar_samples(path, cls_task=settings.cls_task, decode=False)
    except DataError as error:
        problems.append(str(error))
    else:
        problems += _check_samples(path, rows, samples, index.tasks)
    return problems + _check_images(path, rows)


def _check_images(path: Path, rows: ShardIndex) -> list[str]:
    """Read every image as training does: by its byte range."""
    problems = []
    with path.open("rb") as file:
        for number in range(len(rows)):
            if number in rows.bad:
                continue
            file.seek(int(rows.offset[number]))
            data = file.read(int(rows.size[number]))
            if google_crc32c.value(data) != int(rows.crc32c[number]):
                problems.append(f"{path}: image of {rows.key(number)!r} is damaged (crc32c)")
    return problems


def _check_samples(path: Path, rows: ShardIndex, samples: TarSamples, tasks: dict[str, tuple[str, ...]]) -> list[str]:
    """Keys, places and label members against the rows."""
    if len(samples.keys) != len(rows):
        return [f"{path}: holds {len(samples.keys)} samples, its index says {len(rows)}"]
    positions = class_positions(tasks)
    problems = []
    for number, key in enumerate(samples.keys):
        if key != rows.key(number):
            problems.append(f"{path}: sample {number} is {key!r}, its index says {rows.key(number)!r}")
            continue
        if number in rows.bad:
            continue
        if (samples.offsets[number], samples.sizes[number]) != (rows.offset[number], rows.size[number]):
            problems.append(f"{path}: image of {key!r} lies elsewhere than its index says")
        try:
            if number in samples.bad:
                raise BadSample(samples.bad[number])
            labels = to_numbers(samples.labels[number], positions)
        except BadSample as error:
            problems.append(f"{path}: {key!r}: {error.reason}")
            continue
        for (task, names), label, indexed in zip(tasks.items(), labels, rows.labels[number], strict=True):
            if label != indexed:
                said = "missing" if indexed < 0 else names[indexed]
                found = "missing" if label < 0 else names[label]
                problems.append(f"{path}: {key!r}: label of {task!r} is {found}, its index says {said}")
    return problems
