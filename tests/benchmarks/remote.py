"""Bytes that one rank fetches over an epoch of a remote set, everything counted, against its share of the set.

The server counts what it sends: index.json, .idx files, and ranges of the tars. The share is the tars' bytes over the
ranks. Lanes are as long against the window as in a large set. With the default 1,024 lanes over few photos a lane is
shorter than a window, and runs are short: that figure is for the record.
"""

from pathlib import Path

from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import load_index
from data.loading.loader import Loader
from data.sampling.sampler import TrainSampler
from tests.benchmarks.figure import Figure
from tests.benchmarks.photos import photo_shards
from tests.range_server import serve

_NUM_RANKS = 2


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    photos = photo_shards(folder / "photos")
    ratio, note = fetched_share(photos, folder / "cache", block=800, lanes=16, window=16)
    default_ratio, default_note = fetched_share(photos, folder / "default", block=262_144, lanes=1024, window=256)
    return [
        Figure("remote_bytes_vs_share", ratio, target=1.1, note=note),
        Figure("remote_bytes_vs_share_default_lanes", default_ratio, target=1.1, note=default_note),
    ]


def fetched_share(photos: Path, cache: Path, *, block: int, lanes: int, window: int) -> tuple[float, str]:
    """(the larger of the ranks' bytes over the share, what was counted). Each rank has a cache of its own."""
    num_bytes = sum(shard.bytes for shard in load_index(photos).shards)
    fetched, requests = [], []
    for rank in range(_NUM_RANKS):
        with serve(photos) as server:
            index = load_index(server.url)
            order = TrainSampler(index.counts, seed=0, batch_size=64, block=block, lanes=lanes, window=window)
            loader = Loader(
                index,
                order,
                ImageTransform(size=32, operations=POLICIES["none"]),
                rank=rank,
                num_ranks=_NUM_RANKS,
                # Room for the share of two blocks, as the order promises to need.
                cache=(str(cache / str(rank)), int(2.5 * num_bytes * min(1.0, block / index.num_samples) / _NUM_RANKS)),
            )
            for batch in loader.batches():
                assert not batch.bad
            fetched.append(server.sent_bytes)
            requests.append(server.num_requests)
    share = num_bytes / _NUM_RANKS
    note = f"{max(fetched) / 1e6:.1f} of {share / 1e6:.1f} MB in {max(requests)} requests, rank of {_NUM_RANKS}"
    return max(fetched) / share, note
