"""Planning an epoch of 100,000 shards with 10^9 samples: from the index on disk to the first batch's byte ranges.

It is what a loader does before it reads a photo: load `index.json`, lay out the order, announce what its lanes read
soon, look up the batch's samples. Every plan runs in a fresh process as rank 3 of 8; memory is the peak of that whole
process, interpreter and NumPy included. One .idx file stands for all of them (a link each), so that the disk holds an
index of the full size. The figures with 10 samples a shard, a thousandth of the samples, show what their number does.
"""

import time
from pathlib import Path

import google_crc32c
import numpy as np

from data.index import Shard, ShardIndex, idx_name, load_index, pack_keys, shard_index_to_bytes, write_index
from data.sampling.prefetch import Prefetcher
from data.sampling.sampler import TrainSampler, WorkerInfo
from data.shards.shard_reader import ShardReader
from tests.benchmarks.figure import Figure
from tests.benchmarks.fresh_process import in_fresh_process, peak_megabytes

_BATCH = 2048
_RANK, _NUM_RANKS = 3, 8
_PHOTO_BYTES = 22_000
_TASKS = {"age": ("young", "middle", "old"), "beauty": ("1", "2", "3", "4", "5"), "gender": ("f", "m")}
_MANY, _FEW = 10_000, 10  # samples a shard


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    num_shards, tries = (1_000, 1) if quick else (100_000, 3)
    many = _write_index(folder / "many", num_shards=num_shards, samples_per_shard=_MANY)
    few = _write_index(folder / "few", num_shards=num_shards, samples_per_shard=_FEW)
    first = (0, 0)
    # Somewhere in the middle of the fourth epoch.
    resumed = (3, int(0.61803 * num_shards * _MANY / _BATCH))
    resumed_few = (3, int(0.61803 * num_shards * _FEW / _BATCH))
    seconds, megabytes = _best_plan(many, first, tries)
    resume_seconds, resume_megabytes = _best_plan(many, resumed, tries)
    few_seconds, few_megabytes = _best_plan(few, first, tries)
    few_resume_seconds, _ = _best_plan(few, resumed_few, tries)
    size = f"{num_shards:,} shards, {num_shards * _MANY:,} samples"
    few_size = f"{num_shards:,} shards, {num_shards * _FEW:,} samples"
    return [
        Figure("plan_seconds", seconds, target=2, note=size),
        Figure("plan_mb", max(megabytes, resume_megabytes), target=300, note=size),
        Figure("resume_seconds", resume_seconds, target=2, note=f"epoch {resumed[0]}, step {resumed[1]:,}"),
        Figure("plan_seconds_short_shards", few_seconds, target=2, note=few_size),
        Figure("plan_mb_short_shards", few_megabytes, target=300, note=few_size),
        Figure("resume_seconds_short_shards", few_resume_seconds, target=2, note=few_size),
    ]


def plan(folder: Path, start: tuple[int, int]) -> tuple[float, float, list[tuple[int, int, int]]]:
    """(seconds, peak MB, byte ranges (shard, first, last) of this rank's part of the step)."""
    begin = time.perf_counter()
    index = load_index(folder)
    order = TrainSampler(index.counts, seed=0, batch_size=_BATCH)
    owner = WorkerInfo(_RANK, _NUM_RANKS)
    reader = ShardReader(index)
    lookahead = Prefetcher(order, owner, start, lambda epoch, runs: reader.prefetch(runs))
    rows = order.rows(*start, owner)
    lookahead.consume(len(rows.row))
    ranges = []
    for shard, sample in zip(rows.shard.tolist(), rows.sample.tolist(), strict=True):
        info = reader.info(shard)
        offset = int(info.offset[sample])
        ranges.append((shard, offset, offset + int(info.size[sample])))
    return time.perf_counter() - begin, peak_megabytes(), ranges


def _best_plan(folder: Path, start: tuple[int, int], tries: int) -> tuple[float, float]:
    """The least seconds and the most memory of some fresh processes: what else runs can only slow a plan down."""
    plans = [in_fresh_process(plan, folder, start) for _ in range(tries)]
    if not all(ranges for _, _, ranges in plans):
        raise RuntimeError(f"{folder}: the plan of step {start} is empty")
    return min(seconds for seconds, _, _ in plans), max(megabytes for _, megabytes, _ in plans)


def _write_index(folder: Path, *, num_shards: int, samples_per_shard: int) -> Path:
    folder.mkdir()
    number = np.arange(samples_per_shard)
    key_bytes, key_ends = pack_keys([f"people/photo_{at:08d}" for at in number])
    rows = ShardIndex(
        offset=512 + number.astype(np.int64) * (_PHOTO_BYTES + 2048),
        size=np.full(samples_per_shard, _PHOTO_BYTES, np.int32),
        crc32c=number.astype(np.uint32),
        labels=np.stack([number % len(classes) for classes in _TASKS.values()], axis=1).astype(np.int32),
        key_bytes=key_bytes,
        key_ends=key_ends,
    )
    data = shard_index_to_bytes(rows)
    original = folder / "rows"
    original.write_bytes(data)
    crc32c, num_bytes = google_crc32c.value(data), int(rows.offset[-1]) + _PHOTO_BYTES + 2048
    shards = [Shard(f"{at:06d}.tar", samples_per_shard, num_bytes, f"{at:064x}", crc32c) for at in range(num_shards)]
    for shard in shards:
        (folder / idx_name(shard.name)).symlink_to(original)
    write_index(folder, tasks=_TASKS, shards=shards)
    return folder
