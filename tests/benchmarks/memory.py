"""Memory of the loader, and disk of the shard cache, over a set ten times larger: bounded by window and block.

Each epoch runs in a fresh process with the same block and window. `loader_memory_growth` compares the peaks of whole
processes; `loader_memory_growth_above_start` compares what is above the memory that was there before the loader, torch
included. The cache of a remote set has room for much less than the small set, so that both fill it.
"""

import contextlib
from pathlib import Path

from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import load_index
from data.loading.loader import Loader
from data.sampling.sampler import TrainSampler
from tests.benchmarks.figure import Figure
from tests.benchmarks.fresh_process import in_fresh_process, peak_megabytes, resident_megabytes
from tests.benchmarks.photos import photo_shards, with_copies
from tests.range_server import serve

_BLOCK, _LANES, _WINDOW, _BATCH = 200, 16, 8, 32
_SIZE = 64  # pixels: small, since decoding is not what is measured
_CACHE_BYTES = 12_000_000  # two blocks of photos need about 9 MB


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    photos = load_index(photo_shards(folder / "photos", samples_per_shard=40))
    num_shards, times = (5, 2) if quick else (20, 10)
    small = with_copies(photos, folder / "small", num_shards=num_shards, times=1)
    large = with_copies(photos, folder / "large", num_shards=num_shards, times=times)
    small_peak, small_above = in_fresh_process(epoch_megabytes, small)
    large_peak, large_above = in_fresh_process(epoch_megabytes, large)
    small_cache = in_fresh_process(cache_megabytes, small, folder / "small-cache")
    large_cache = in_fresh_process(cache_megabytes, large, folder / "large-cache")
    note = f"{large_peak:.0f} against {small_peak:.0f} MB, {times} times the samples"
    above_note = f"{large_above:.1f} against {small_above:.1f} MB"
    cache_note = f"{large_cache:.1f} against {small_cache:.1f} MB; limit {_CACHE_BYTES / 1e6:.0f} MB"
    return [
        Figure("loader_memory_growth", large_peak / small_peak, target=1.1, note=note),
        Figure("loader_memory_growth_above_start", large_above / small_above, note=above_note),
        Figure("cache_growth", large_cache / small_cache, target=1.1, note=cache_note),
        Figure("cache_vs_limit", large_cache * 1e6 / _CACHE_BYTES, target=1.0, note=cache_note),
    ]


def epoch_megabytes(folder: Path) -> tuple[float, float]:
    """(peak MB of this process, MB of it above what it held before the loader) of one epoch from local shards."""
    before = resident_megabytes()
    for batch in _loader(str(folder), cache=None).batches():
        assert not batch.bad
    peak = peak_megabytes()
    return peak, peak - before


def cache_megabytes(folder: Path, cache: Path) -> float:
    """The most disk that the cache of a remote set took at the end of any step of one epoch."""
    peak = 0
    with serve(folder) as server:
        for batch in _loader(server.url, cache=(str(cache), _CACHE_BYTES)).batches():
            assert not batch.bad
            peak = max(peak, _bytes_on_disk(cache))
    return peak / 1e6


def _loader(root: str, *, cache: tuple[str, int] | None) -> Loader:
    index = load_index(root)
    order = TrainSampler(index.counts, seed=0, batch_size=_BATCH, block=_BLOCK, lanes=_LANES, window=_WINDOW)
    return Loader(index, order, ImageTransform(size=_SIZE, operations=POLICIES["mild"]), cache=cache)


def _bytes_on_disk(cache: Path) -> int:
    """Of the files that are there; one may be evicted between the listing and the look."""
    total = 0
    for path in cache.glob("*.bin"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total
