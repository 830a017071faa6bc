"""Batches do not depend on the number of worker processes, and a bad sample leaves all others where they were."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import BadSample, DataError, LoaderLost
from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import Index, load_index
from data.loading.batch import BadRecord, Batch, WorkerBatch
from data.loading.loader import Loader
from data.loading.step_memory import Arrays
from data.loading.step_plan import WorkerBatchMaker
from data.sampling.sampler import EvalSampler, TrainSampler, WorkerInfo
from data.sampling.view_schedule import ViewSchedule
from tests.photos import jpeg

EPOCHS = 2


def sampler_of(index: Index, *, batch_size: int = 10) -> TrainSampler:
    return TrainSampler(index.counts, seed=1, batch_size=batch_size, lanes=8, window=3)


def loader_of(folder: Path, *, workers: int = 0, rank: int = 0, num_ranks: int = 1, views: int = 0) -> Loader:
    index = load_index(folder)
    transform = ImageTransform(size=24, operations=POLICIES["strong"], seed=4, max_pixels=10_000)
    sampler = sampler_of(index)
    return Loader(
        index, sampler, transform, rank=rank, num_ranks=num_ranks, workers=workers, view_schedule=ViewSchedule(views)
    )


def batches_of(folder: Path, **options: int) -> list[Batch]:
    return list(loader_of(folder, **options).batches(stop_epoch=EPOCHS))


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.epoch, one.step, one.key, one.bad) == (other.epoch, other.step, other.key, other.bad)
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.row, other.row)
        assert torch.equal(one.index, other.index)
        for task in other.label:
            assert torch.equal(one.label[task], other.label[task])
            assert torch.equal(one.valid[task], other.valid[task])


@pytest.fixture(scope="module")
def reference(tiny_shards: Path) -> list[Batch]:
    return batches_of(tiny_shards / "train")


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    return tmp_path / "train"


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers: int, reference: list[Batch], tiny_shards: Path) -> None:
    assert_same(batches_of(tiny_shards / "train", workers=workers), reference)


def test_batches_are_uint8_rgb_with_labels_and_their_place(reference: list[Batch], tiny_shards: Path) -> None:
    index = load_index(tiny_shards / "train")
    assert [(batch.epoch, batch.step) for batch in reference] == [(e, s) for e in range(EPOCHS) for s in range(4)]
    assert [len(batch) for batch in reference] == [10, 10, 10, 3] * EPOCHS
    for batch in reference:
        assert batch.image.dtype == torch.uint8
        assert batch.image.shape == (len(batch), 24, 24, 3)
        assert batch.row.tolist() == list(range(len(batch)))
        for number, (shard, sample) in enumerate(batch.index.tolist()):
            rows = index.load_shard(shard)
            assert batch.key[number] == rows.key(sample)
            assert [int(batch.label[task][number]) for task in index.tasks] == rows.labels[sample].tolist()
        for task in index.tasks:
            assert torch.equal(batch.valid[task], batch.label[task] >= 0)
    # The dominant channel of an image is its colour: RGB was kept apart from BGR.
    plain = [batch.image.float().mean(dim=(1, 2)).argmax(dim=1) == batch.label["colour"] for batch in reference]
    assert torch.cat(plain).float().mean() > 0.9


def test_ranks_share_a_step_and_workers_share_a_rank(reference: list[Batch], tiny_shards: Path) -> None:
    ranks = [batches_of(tiny_shards / "train", rank=rank, num_ranks=2, workers=rank) for rank in range(2)]
    for whole, *parts in zip(reference, *ranks, strict=True):
        rows = torch.cat([part.row for part in parts])
        order = rows.argsort()
        assert torch.equal(rows[order], whole.row)
        assert torch.equal(torch.cat([part.image for part in parts])[order], whole.image)


@pytest.mark.parametrize("start", [(0, 2), (1, 0), (1, 3)])
@pytest.mark.parametrize("workers", [0, 2])
def test_it_starts_anywhere(start: tuple[int, int], workers: int, reference: list[Batch], tiny_shards: Path) -> None:
    loader = loader_of(tiny_shards / "train", workers=workers)
    batches = list(loader.batches(start=start, stop_epoch=EPOCHS))
    assert_same(batches, reference[start[0] * 4 + start[1] :])


def test_an_epoch_sees_new_views_unless_some_are_kept(reference: list[Batch], tiny_shards: Path) -> None:
    def images_of(batches: list[Batch]) -> dict[str, torch.Tensor]:
        return {key: image for batch in batches for key, image in zip(batch.key, batch.image, strict=True)}

    def changed(batches: list[Batch]) -> int:
        first, second = images_of(batches[:4]), images_of(batches[4:])
        return sum(not torch.equal(first[key], second[key]) for key in first)

    assert changed(reference) == 33
    assert changed(batches_of(tiny_shards / "train", views=1)) == 0
    assert changed(batches_of(tiny_shards / "train", views=2)) == 33


def overwrite_image(folder: Path, shard: int, sample: int, change: Callable[[bytes], bytes]) -> str:
    """Change the bytes of one image where they lie; returns its key."""
    index = load_index(folder)
    rows = index.load_shard(shard)
    offset, size = int(rows.offset[sample]), int(rows.size[sample])
    with Path(index.shard_url(shard)).open("r+b") as file:
        file.seek(offset)
        content = change(file.read(size))
        assert len(content) == size
        file.seek(offset)
        file.write(content)
    return rows.key(sample)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_keeps_its_place_and_all_others_are_unchanged(
    workers: int, reference: list[Batch], shards: Path
) -> None:
    key = overwrite_image(shards, 1, 5, lambda data: bytes([data[0] ^ 1]) + data[1:])
    batches = batches_of(shards, workers=workers)
    found = []
    for batch, whole in zip(batches, reference, strict=True):
        keep = [number for number, name in enumerate(whole.key) if name != key]
        assert batch.key == [whole.key[number] for number in keep]
        assert torch.equal(batch.image, whole.image[keep])
        assert torch.equal(batch.row, whole.row[keep])
        found += [(record.shard, record.key, record.index, record.row) for record in batch.bad]
        for record in batch.bad:
            assert "crc32c" in record.reason
            assert whole.key[record.row] == key
    assert [name for _, name, _, _ in found] == [key] * EPOCHS
    assert {(shard, index) for shard, _, index, _ in found} == {("train-001.tar", (1, 5))}


def lose_a_row(part: WorkerBatch) -> WorkerBatch:
    return replace(part, row=part.row[1:], key=part.key[1:], labels=part.labels[1:], index=part.index[1:])


def give_a_row_twice(part: WorkerBatch) -> WorkerBatch:
    return replace(part, row=np.concatenate([part.row[:1], part.row[:-1]]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lose_a_row, r"gave (\d) samples, \1 of them planned, for the 10 of epoch 0 step 1"),
        (give_a_row_twice, r"gave 10 samples, \d of them planned, for the 10 of epoch 0 step 1"),
        (lambda part: replace(part, at=(0, 2)), "gave epoch 0 step 2 for epoch 0 step 1"),
        (lambda part: replace(part, bad=[BadRecord("a", "b", "c", (0, 0), 99)]), "10 of them planned, for the 10 of"),
    ],
)
def test_a_batch_that_is_not_whole_stops_the_run(
    workers: int,
    change: Callable[[WorkerBatch], WorkerBatch],
    words: str,
    tiny_shards: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = WorkerBatchMaker.make

    def changed(self: WorkerBatchMaker, at: tuple[int, int], arrays: Arrays) -> WorkerBatch:
        part = make(self, at, arrays)
        return change(part) if at == (0, 1) else part

    monkeypatch.setattr(WorkerBatchMaker, "make", changed)
    batches = loader_of(tiny_shards / "train", workers=workers).batches()
    assert len(next(batches)) == 10
    with pytest.raises(LoaderLost, match=words):
        next(batches)


def test_a_truncated_shard_loses_only_its_end(shards: Path) -> None:
    index = load_index(shards)
    rows = index.load_shard(0)
    with Path(index.shard_url(0)).open("r+b") as file:
        file.truncate(int(rows.offset[8]) + 10)
    bad = {record.key: record.reason for batch in batches_of(shards) for record in batch.bad}
    assert bad.keys() == {rows.key(sample) for sample in range(8, 12)}
    assert all("truncated" in reason for reason in bad.values())


def test_a_missing_shard_is_named_with_every_sample(shards: Path) -> None:
    (shards / "train-002.tar").unlink()
    batches = batches_of(shards)
    bad = [record for batch in batches[:4] for record in batch.bad]
    assert len(bad) == 9
    assert {record.shard for record in bad} == {"train-002.tar"}
    assert all("train-002.tar cannot be opened" in record.reason for record in bad)
    assert sum(len(batch) for batch in batches[:4]) == 24


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_shard_without_its_index_rows_stops_with_one_line(workers: int, shards: Path) -> None:
    (shards / "train-002.idx").unlink()
    with pytest.raises(DataError) as caught:
        batches_of(shards, workers=workers)
    assert "train-002.idx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_above_the_limit_is_refused_before_it_is_decoded() -> None:
    transform = ImageTransform(size=8, operations=POLICIES["none"], max_pixels=99)
    out = np.empty((8, 8, 3), np.uint8)
    transform.make(jpeg(0, 9, 11), shard="a", key="b", view=0, out=out)
    with pytest.raises(BadSample, match="10x10 is larger than the limit of 99 pixels"):
        transform.make(jpeg(0, 10, 10), shard="a", key="b", view=0, out=out)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_evaluation_takes_every_sample_once_over_ranks_and_workers(num_ranks: int, workers: int) -> None:
    counts = np.array([5, 1, 7, 4])
    sampler = EvalSampler(counts, batch_size=3, num_ranks=num_ranks)
    seen = []
    for step in range(sampler.steps_per_epoch):
        for rank in range(num_ranks):
            for worker in range(workers):
                rows = sampler.rows(0, step, WorkerInfo(rank, num_ranks, worker, workers))
                seen += list(zip(rows.shard.tolist(), rows.sample.tolist(), strict=True))
                assert np.array_equal(sampler.places(0, step, WorkerInfo(rank, num_ranks, worker, workers)), rows.row)
            assert len(sampler.places(0, step, WorkerInfo(rank, num_ranks))) <= sampler.most_rows(num_ranks) == 3
    assert sorted(seen) == [(shard, sample) for shard, count in enumerate(counts) for sample in range(count)]
