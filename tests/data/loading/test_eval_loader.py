"""Evaluation after a run and validation inside it see the same pixels, and read them in the same way."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import BadSample
from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import load_index
from data.loading.batch import Batch
from data.loading.eval_loader import EvalBatch, eval_batches
from data.loading.image_sets import ImageSubset, ShardImages
from data.loading.loader import Loader
from data.sampling.sampler import EvalSampler, Run

SIZE = 24


def evaluated(folder: Path, *, workers: int = 0, rank: int = 0, num_ranks: int = 1) -> list[EvalBatch]:
    images = ShardImages(load_index(folder))
    options = {"workers": workers, "rank": rank, "num_ranks": num_ranks}
    return list(eval_batches(images, sizes=[SIZE], num_views=1, batch_size=5, **options))


def validated(folder: Path, *, workers: int = 0, rank: int = 0, num_ranks: int = 1) -> list[Batch]:
    index = load_index(folder)
    sampler = EvalSampler(index.counts, batch_size=5, num_ranks=num_ranks)
    transform = ImageTransform(size=SIZE, operations=POLICIES["none"])
    return list(Loader(index, sampler, transform, workers=workers, rank=rank, num_ranks=num_ranks).batches())


@pytest.fixture
def damaged(tiny_shards: Path, tmp_path: Path) -> Path:
    """Shards with one bad sample."""
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    index = load_index(tmp_path / "train")
    with Path(index.shard_url(1)).open("r+b") as file:
        file.seek(int(index.load_shard(1).offset[5]))
        file.write(b"xxxx")
    return tmp_path / "train"


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_batches_are_those_of_one_process_one_after_another(workers: int, damaged: Path) -> None:
    """33 samples in batches of 5: the last step has none for the last ranks, and every rank has as many steps."""
    images = ShardImages(load_index(damaged))
    shared = {"sizes": [SIZE], "num_views": 1, "batch_size": 5, "whole_batches": True}
    alone = list(eval_batches(images, workers=0, **shared))
    assert [len(batch) + len(batch.bad) for batch in alone] == [5] * 6 + [3]
    ranks = [list(eval_batches(images, workers=workers, rank=rank, num_ranks=3, **shared)) for rank in range(3)]
    assert [len(batches) for batches in ranks] == [3, 3, 3]
    dealt = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert [len(batch) + len(batch.bad) for batch in dealt[7:]] == [0, 0]
    for one, other in zip(alone, dealt[:7], strict=True):
        assert one.key == other.key
        assert [record.key for record in one.bad] == [record.key for record in other.bad]
        assert torch.equal(one.image[SIZE], other.image[SIZE])


@pytest.mark.parametrize(("rank", "num_ranks"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("workers", [0, 2])
def test_one_size_and_view_are_what_the_training_loader_gives(
    workers: int, rank: int, num_ranks: int, damaged: Path
) -> None:
    ours = evaluated(damaged, workers=workers, rank=rank, num_ranks=num_ranks)
    theirs = validated(damaged, rank=rank, num_ranks=num_ranks)
    assert sum(len(batch.bad) for batch in theirs) == 1
    for one, other in zip(ours, theirs, strict=True):
        assert (one.key, one.row, one.bad) == (other.key, other.row.tolist(), other.bad)
        assert torch.equal(one.image[SIZE][0], other.image)
        assert one.label.keys() == other.label.keys()
        assert all(torch.equal(one.label[task], other.label[task]) for task in one.label)


def test_larger_images_than_allowed_are_bad(tiny_shards: Path) -> None:
    images = ShardImages(load_index(tiny_shards / "val"))
    (batch,) = eval_batches(images, sizes=[SIZE], num_views=1, batch_size=99, workers=0, max_pixels=99)
    assert len(batch) == 0
    assert {record.reason for record in batch.bad} == {"image of 40x40 is larger than the limit of 99 pixels"}


class Recorder:
    """Images that cannot be read; notes what it is asked to do. Two shards of 4 and 3."""

    tasks = ("colour",)
    counts = np.array([4, 3])

    def __init__(self) -> None:
        self.prefetched: list[tuple[int, int]] = []
        self.read_samples: list[tuple[int, int]] = []
        self.is_closed = False

    def name(self, group: int, number: int) -> tuple[str, str]:
        return f"{group}.tar", str(number)

    def labels(self, group: int, number: int) -> np.ndarray:
        raise AssertionError("only of samples that were read")

    def read(self, group: int, number: int) -> bytes:
        assert (group, number) in self.prefetched
        self.read_samples.append((group, number))
        raise BadSample("is a test")

    def prefetch(self, runs: Sequence[Run]) -> None:
        self.prefetched += [(run.shard, sample) for run in runs for sample in range(run.first, run.last)]

    def close(self) -> None:
        self.is_closed = True


def test_every_sample_is_announced_read_once_and_nothing_stays_open() -> None:
    images = Recorder()
    batches = list(eval_batches(images, sizes=[SIZE], num_views=1, batch_size=3, workers=0))
    everything = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    assert images.prefetched == images.read_samples == everything
    assert [record.index for batch in batches for record in batch.bad] == everything
    assert images.is_closed


def test_a_subset_announces_the_images_that_it_has() -> None:
    images = Recorder()
    subset = ImageSubset(images, count=3)
    list(eval_batches(subset, sizes=[SIZE], num_views=1, batch_size=2, workers=0))
    assert images.prefetched == images.read_samples == [(0, 0), (0, 2), (1, 0)]
