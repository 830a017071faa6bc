"""The loader on one core, from real tars to batches of 224 x 224 crops, against the stock pipeline and a bare loop.

Stock: webdataset with Pillow and torchvision's RandomResizedCrop, flip, ToTensor, Normalize, batched. It decodes
whole photos and normalises on the host. Ours leaves normalising to the device; `loader_vs_stock` still charges it, on
the same core, and `loader_vs_stock_without_normalise` does not. Bare: simplejpeg and OpenCV over the bytes of the same
samples in memory, same DCT scale, same boxes, written into one batch; no tar, no checksum, no labels.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
import webdataset
from torchvision import transforms

from data.images.augment import POLICIES, AugmentParams, draw_params, view_key
from data.images.transform import ImageTransform
from data.index import Index, load_index
from data.loading.batch import Batch
from data.loading.loader import Loader
from data.sampling.sampler import TrainSampler
from data.shards.shard_reader import ShardReader
from models.preprocessing import Normalise
from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio, seconds_of, timed_in_turn
from tests.benchmarks.photos import photo_shards
from tests.benchmarks.pixel_levels import jpeg_grid_levels

SIZE, _BATCH = 224, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OPERATIONS = POLICIES["standard"]


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Changes this process's affinity and threads: for a process of its own."""
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    index = load_index(photo_shards(folder / "photos"))
    rounds = 4 if quick else 60
    ours, bare = _our_batches(index), BareLoop(index)
    stock = _stock_batches(index)
    normalise = Normalise(MEAN, STD)
    batch = next(ours)
    for _ in range(3):  # warm-up
        next(ours), next(stock), normalise(batch.image)
    in_turn = timed_in_turn(
        [lambda: next(ours), lambda: next(stock), lambda: normalise(batch.image)],
        rounds=rounds,
    )
    own, stocks, normalising = in_turn.T
    ratio, interval = median_ratio(stocks, own + normalising)
    plain, plain_interval = median_ratio(stocks, own)
    against_bare, bare_interval = median_ratio(*_same_samples(ours, bare, rounds=rounds))
    speed, stock_speed = _BATCH / np.median(own + normalising), _BATCH / np.median(stocks)
    return [
        Figure(
            "loader_vs_stock",
            ratio,
            target=2.5,
            at_least=True,
            interval=interval,
            note=f"{speed:,.0f} against {stock_speed:,.0f} photos/s, normalising included on both sides",
        ),
        Figure("loader_vs_stock_without_normalise", plain, interval=plain_interval, note="the device normalises"),
        Figure("loader_vs_bare", against_bare, target=0.8, at_least=True, interval=bare_interval),
        jpeg_grid_levels(index, num_photos=10 if quick else 200),
    ]


def _our_batches(index: Index) -> Iterator[Batch]:
    order = TrainSampler(index.counts, seed=0, batch_size=_BATCH)
    return Loader(index, order, ImageTransform(size=SIZE, operations=_OPERATIONS)).batches(stop_epoch=1000)


def _stock_batches(index: Index) -> Iterator[object]:
    return iter(stock_pipeline(index, _BATCH))


def stock_pipeline(index: Index, batch_size: int) -> webdataset.DataPipeline:
    """What people start with; endless."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    urls = [index.shard_url(number) for number in range(len(index.shards))]
    return (
        webdataset.WebDataset(urls, shardshuffle=False)
        .decode("pil")
        .to_tuple("jpg", "json")
        .map_tuple(transform, lambda labels: labels)
        .batched(batch_size)
        .repeat()
    )


def _same_samples(ours: Iterator[Batch], bare: "BareLoop", *, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """(seconds of the bare loop, seconds of ours), each over the very same samples of a round."""
    seconds = np.empty((rounds, 2))
    for number in range(rounds):
        batches: list[Batch] = []
        seconds[number, 1] = seconds_of(lambda batches=batches: batches.append(next(ours)))  # type: ignore[misc]
        seconds[number, 0] = seconds_of(bare.of(batches[0]))
    return seconds[:, 0], seconds[:, 1]


class BareLoop:
    """Decode and crop, nothing else."""

    def __init__(self, index: Index) -> None:
        self._index, self._reader = index, ShardReader(index)

    def of(self, batch: Batch) -> Callable[[], np.ndarray]:
        """Work over a batch's samples; bytes and views are ready before the clock starts."""
        samples = [
            self._sample(shard, sample, key, batch.epoch)
            for (shard, sample), key in zip(batch.index.tolist(), batch.key, strict=True)
        ]
        return lambda: _decode_and_crop(samples)

    def _sample(self, shard: int, sample: int, key: str, epoch: int) -> tuple[bytes, AugmentParams, int, int]:
        data = self._reader.read(shard, sample)
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        random_key = view_key(0, self._index.shards[shard].name, key, epoch)
        return data, draw_params(_OPERATIONS, height=height, width=width, key=random_key), height, width


def _decode_and_crop(samples: list[tuple[bytes, AugmentParams, int, int]]) -> np.ndarray:
    out = np.empty((len(samples), SIZE, SIZE, 3), dtype=np.uint8)
    for at, (data, view, height, width) in enumerate(samples):
        eighths = next((n for n in (1, 2, 3, 4) if min(view.height, view.width) * n >= 8 * SIZE), 8)
        image = simplejpeg.decode_jpeg(data, min_height=-(-height * eighths // 8), min_width=-(-width * eighths // 8))
        top, left = round(view.top * eighths / 8), round(view.left * eighths / 8)
        bottom, right = (round(end * eighths / 8) for end in (view.top + view.height, view.left + view.width))
        pixels = cv2.resize(image[top:bottom, left:right], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        out[at] = cv2.flip(pixels, 1) if view.flip else pixels
    return out
