"""Near-duplicates: pairs among 350,000 hashes on one core, and what the default search adds to a build.

`near_duplicate_pairs_seconds`: thumbnails whose waves are as strong as those of photos (the amplitude falls with the
frequency), of which 50,000 are equal, 60,000 are bursts of ten, and 20,000 are shots of one scene.
`near_duplicate_cost`: the shards of all photos written with hashes, and then searched across splits, against the shards
alone; processor time of pairs of runs that take turns. The index is written on neither side, which makes it harder.
"""

import functools
import shutil
import time
from pathlib import Path

import numpy as np

from data.images.near_pairs import find_pairs
from data.images.photo_hash import SIDE, PhotoHashes
from data.shards.near_duplicates import TABLE_NAME, across_splits, split_photos
from data.shards.photo_records import read_photos
from data.shards.writer import ShardJob, WriterSettings, write_shard
from data.sources import Record, Source, open_source
from tests.benchmarks.figure import Figure
from tests.benchmarks.fresh_process import in_fresh_process, peak_megabytes
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.benchmarks.photos import GROCERY

_PHOTOS, _FEW_PHOTOS = 350_000, 20_000
_SHARD = 1000


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    count = _FEW_PHOTOS if quick else _PHOTOS
    seconds, megabytes, pairs = in_fresh_process(_search, count)
    figures = [
        Figure("near_duplicate_pairs_seconds", seconds, target=60, note=f"{count:,} photos, {pairs:,} pairs"),
        Figure("near_duplicate_pairs_mb", megabytes, target=1500, note="peak of the whole process"),
    ]
    source = open_source(f"grocery:{GROCERY}" if GROCERY.is_dir() else "elpv:")
    records = source.records[:: 10 if quick else 1]
    for name, resize in (("near_duplicate_cost", None), ("near_duplicate_cost_resized", 256)):
        ways = [
            functools.partial(_build, source, records, folder / name, resize=resize, near_duplicates=near_duplicates)
            for near_duplicates in (True, False)
        ]
        taken = timed_in_turn(ways, rounds=2 if quick else 9)
        ratio, interval = median_ratio(taken[:, 0], taken[:, 1])
        note = f"{len(records):,} photos, {1e6 * np.median(taken[:, 1]) / len(records):.0f} us each without"
        figures.append(Figure(name, ratio, target=1.10, interval=interval, note=note))
    return figures


def _search(count: int) -> tuple[float, float, int]:
    """(seconds of the processor for hashes and pairs, peak MB, pairs)."""
    thumbnails = _thumbnails(count)
    begin = time.process_time()
    pairs, _ = find_pairs(PhotoHashes.of(thumbnails))
    return time.process_time() - begin, peak_megabytes(), len(pairs)


def _thumbnails(count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(SIDE), np.arange(SIDE) + 0.5)).astype(np.float32)
    down, across = np.mgrid[:SIDE, :SIDE]
    strength = (30 / np.maximum(1, np.hypot(down, across))).astype(np.float32)
    strength[0, 0] = 0
    thumbnails = np.empty((count, SIDE, SIDE), np.uint8)
    for first in range(0, count, 10_000):
        part = thumbnails[first : first + 10_000]
        drawn = generator.standard_normal(part.shape, np.float32) * strength
        part[:] = np.clip(128 + waves.T @ drawn @ waves, 0, 255)
    share = count // 35
    thumbnails[: 5 * share] = thumbnails[0]
    bursts = slice(5 * share, 11 * share)
    shown = np.arange(5 * share, 11 * share) // 10 * 10
    thumbnails[bursts] = _noisy(thumbnails[shown], generator)
    scene = slice(11 * share, 13 * share)
    thumbnails[scene] = _noisy(np.broadcast_to(thumbnails[-1], (2 * share, SIDE, SIDE)), generator)
    return thumbnails


def _noisy(thumbnails: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    noise = generator.standard_normal(thumbnails.shape, np.float32)
    return np.clip(thumbnails + 6 * noise, 0, 255).astype(np.uint8)


def _build(source: Source, records: list[Record], folder: Path, *, resize: int | None, near_duplicates: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    splits = []
    for name, part in (("train", [*records[::2], *records[1::4]]), ("val", records[3::4])):
        (folder / name / ".build").mkdir(parents=True)
        settings = WriterSettings(folder / name, source, resize, None, 90, 64_000_000, near_duplicates)
        for first in range(0, len(part), _SHARD):
            write_shard(settings, ShardJob(first // _SHARD, part[first : first + _SHARD]))
        if near_duplicates:
            photos = [read_photos(folder / name, number) for number in range(-(-len(part) // _SHARD))]
            labels = [np.array([record.labels for record in part])]
            splits.append(split_photos(name, [shard for shard in photos if shard], labels, source.tasks))
    if near_duplicates:
        across_splits(splits).write(folder / TABLE_NAME)
