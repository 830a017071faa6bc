"""Everything that can be wrong with one shard, as lines of text.

Use: `report = verify_shard(VerifySettings(load_index("shards/train"), "class", 64_000_000), 0); report.errors`

What training asks of a shard is asked by training's own functions: `Index.load_shard` for the rows, `ShardReader.read`
and `ImageTransform.make` for each image. What training never looks at (the tar around the images, label members) comes
on top.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data.errors import BadSample, DataError
from data.files import sha256_of
from data.images.augment import POLICIES
from data.images.photo_hash import thumbnail_of_bytes
from data.images.transform import ImageTransform
from data.index import INDEX_NAME, Index, ShardIndex
from data.index.labels import class_positions, to_numbers
from data.shards.photo_records import ShardPhotos, digest_of, shard_photos
from data.shards.shard_reader import ShardReader
from data.shards.tar_samples import TarSamples, read_tar_samples

_SIZE = 224  # pixels to decode to, as training does by default


@dataclass(frozen=True)
class VerifySettings:
    """The index, the task that `.cls` members label, and the size above which images are bad."""

    index: Index
    cls_task: str
    max_pixels: int
    near_duplicates: bool = False  # hash the photos, too


@dataclass
class ShardReport:
    """errors: in words. known_bad: samples that the index itself calls bad, which training leaves out. corrected:
    labels that the index has from data.correct, where the tar has the earlier one. photos: of the good samples, and
    labels: theirs, int32 [n, tasks]; None unless they were asked for."""

    errors: list[str] = field(default_factory=list)
    known_bad: int = 0
    corrected: int = 0
    photos: ShardPhotos | None = None
    labels: np.ndarray | None = None


def verify_shard(settings: VerifySettings, number: int) -> ShardReport:
    """Compare shard `number` on disk with the index: presence, bytes, SHA-256, rows, images, keys, labels."""
    index = settings.index
    shard, path = index.shards[number], Path(index.shard_url(number))
    if not path.is_file():
        return ShardReport([f"{path}: is missing"])
    errors = []
    size = path.stat().st_size
    if size != shard.bytes:
        errors.append(f"{path}: has {size} bytes, {INDEX_NAME} says {shard.bytes}")
    if sha256_of(path) != shard.sha256:
        errors.append(f"{path}: content differs from {INDEX_NAME} (sha256): it was damaged or rewritten")
    try:
        rows = index.load_shard(number)
    except DataError as error:
        return ShardReport([*errors, str(error)])
    try:
        rule = replace(index.label_rule, cls_task=settings.cls_task)
        samples = read_tar_samples(path, rule=rule, decode=False)
    except DataError as error:
        errors.append(str(error))
    else:
        errors += _check_samples(path, rows.uncorrected(), samples, index.tasks)
    report = ShardReport(errors, len(rows.bad), len(rows.corrected))
    _check_images(path, rows, settings, number, report)
    return report


def _check_images(path: Path, rows: ShardIndex, settings: VerifySettings, shard: int, report: ShardReport) -> None:
    """Read and decode every image as training does, and hash it if that is asked for."""
    good: list[int] = []
    sources, thumbnails = [], []
    reader = ShardReader(settings.index)
    transform = ImageTransform(size=_SIZE, operations=POLICIES["none"], max_pixels=settings.max_pixels)
    out = np.empty((_SIZE, _SIZE, 3), np.uint8)
    for number in range(len(rows)):
        if number in rows.bad:
            continue
        key = rows.key(number)
        try:
            data = reader.read(shard, number)
            transform.make(data, shard=path.name, key=key, view=0, out=out)
            if settings.near_duplicates:
                thumbnails.append(thumbnail_of_bytes(data, max_pixels=settings.max_pixels))
                sources.append((len(data), digest_of(data)))
                good.append(number)
        except BadSample as error:
            report.errors.append(f"{path}: {key!r}: {error.reason}")
    reader.close()
    if settings.near_duplicates:
        report.photos = shard_photos([rows.key(number) for number in good], sources, thumbnails)
        report.labels = rows.labels[good]


def _check_samples(path: Path, rows: ShardIndex, samples: TarSamples, tasks: dict[str, tuple[str, ...]]) -> list[str]:
    """Keys, places and label members against the rows."""
    if len(samples.keys) != len(rows):
        return [f"{path}: holds {len(samples.keys)} samples, its index says {len(rows)}"]
    positions = class_positions(tasks)
    errors = []
    for number, key in enumerate(samples.keys):
        if key != rows.key(number):
            errors.append(f"{path}: sample {number} is {key!r}, its index says {rows.key(number)!r}")
            continue
        if number in rows.bad:
            continue
        if (samples.offsets[number], samples.sizes[number]) != (rows.offset[number], rows.size[number]):
            errors.append(f"{path}: image of {key!r} lies elsewhere than its index says")
        try:
            if number in samples.bad:
                raise BadSample(samples.bad[number])
            labels = to_numbers(samples.labels[number], positions)
        except BadSample as error:
            errors.append(f"{path}: {key!r}: {error.reason}")
            continue
        for (task, names), label, indexed in zip(tasks.items(), labels, rows.labels[number], strict=True):
            if label != indexed:
                said = "missing" if indexed < 0 else names[indexed]
                found = "missing" if label < 0 else names[label]
                errors.append(f"{path}: {key!r}: label of {task!r} is {found}, its index says {said}")
    return errors
