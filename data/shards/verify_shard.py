"""Everything that can be wrong with one shard, as lines of text.

Use: `found = verify_shard(VerifySettings(load_index("shards/train"), "class", 64_000_000), 0); found.problems`

What training asks of a shard is asked by training's own functions: `Index.load_shard` for the rows, `ShardReader.read`
and `ImageTransform.make` for each image. What training never looks at (the tar around the images, label members) comes
on top.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import BadSample, DataError
from data.files import sha256_of
from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import INDEX_NAME, Index, ShardIndex
from data.index.labels import class_positions, to_numbers
from data.shards.shard_reader import ShardReader
from data.shards.tar_samples import TarSamples, read_tar_samples

_SIZE = 224  # pixels to decode to, as training does by default


@dataclass(frozen=True)
class VerifySettings:
    """The index, the task that `.cls` members label, and the size above which images are bad."""

    index: Index
    cls_task: str
    max_pixels: int


@dataclass
class ShardFindings:
    """problems: in words. known_bad: samples that the index itself calls bad, which training leaves out."""

    problems: list[str] = field(default_factory=list)
    known_bad: int = 0


def verify_shard(settings: VerifySettings, number: int) -> ShardFindings:
    """Compare shard `number` on disk with the index: presence, bytes, SHA-256, rows, images, keys, labels."""
    index = settings.index
    shard, path = index.shards[number], Path(index.shard_url(number))
    if not path.is_file():
        return ShardFindings([f"{path}: is missing"])
    problems = []
    size = path.stat().st_size
    if size != shard.bytes:
        problems.append(f"{path}: has {size} bytes, {INDEX_NAME} says {shard.bytes}")
    if sha256_of(path) != shard.sha256:
        problems.append(f"{path}: content differs from {INDEX_NAME} (sha256): it was damaged or rewritten")
    try:
        rows = index.load_shard(number)
    except DataError as error:
        return ShardFindings([*problems, str(error)])
    try:
        samples = read_tar_samples(path, cls_task=settings.cls_task, decode=False)
    except DataError as error:
        problems.append(str(error))
    else:
        problems += _check_samples(path, rows, samples, index.tasks)
    return ShardFindings(problems + _check_images(path, rows, settings, number), len(rows.bad))


def _check_images(path: Path, rows: ShardIndex, settings: VerifySettings, shard: int) -> list[str]:
    """Read and decode every image as training does."""
    problems = []
    reader = ShardReader(settings.index)
    pixels = ImageTransform(size=_SIZE, operations=POLICIES["none"], max_pixels=settings.max_pixels)
    out = np.empty((_SIZE, _SIZE, 3), np.uint8)
    for number in range(len(rows)):
        if number in rows.bad:
            continue
        key = rows.key(number)
        try:
            pixels.make(reader.read(shard, number), shard=path.name, key=key, view=0, out=out)
        except BadSample as error:
            problems.append(f"{path}: {key!r}: {error.reason}")
    reader.close()
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
