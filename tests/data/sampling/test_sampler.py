"""The order of the samples: each once per epoch, the same for any number of ranks and workers, and well mixed."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sampling.prefetch import Prefetcher
from data.sampling.sampler import TrainSampler, WorkerInfo


def epoch_of(sampler: TrainSampler, epoch: int, worker_info: WorkerInfo | None = None) -> np.ndarray:
    """int64 [n, 3]: (place in the epoch, shard, sample) of all rows of an epoch."""
    rows = [(step, sampler.rows(epoch, step, worker_info)) for step in range(sampler.steps_per_epoch)]
    return np.concatenate(
        [np.stack([step * sampler.batch_size + part.row, part.shard, part.sample], axis=1) for step, part in rows]
    )


samplers = st.builds(
    lambda counts, seed, batch_size, block, lanes, window: TrainSampler(
        np.array(counts), seed=seed, batch_size=batch_size, block=block, lanes=lanes, window=window
    ),
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any),
    seed=st.integers(0, 2**40),
    batch_size=st.integers(1, 50),
    block=st.integers(1, 200),
    lanes=st.integers(1, 70),
    window=st.integers(1, 40),
)


@settings(max_examples=150, deadline=None)
@given(samplers, st.integers(0, 5))
def test_every_sample_comes_exactly_once_per_epoch(sampler: TrainSampler, epoch: int) -> None:
    rows = epoch_of(sampler, epoch)
    expected = {(shard, sample) for shard, count in enumerate(sampler.counts) for sample in range(count)}
    assert len(rows) == sampler.num_samples
    assert {(shard, sample) for _, shard, sample in rows.tolist()} == expected
    assert rows[:, 0].tolist() == list(range(sampler.num_samples))


@settings(max_examples=100, deadline=None)
@given(samplers, st.integers(1, 5), st.integers(1, 3), st.integers(0, 3))
def test_ranks_and_workers_deal_the_same_rows(sampler: TrainSampler, num_ranks: int, workers: int, epoch: int) -> None:
    everyone = [WorkerInfo(rank, num_ranks, worker, workers) for rank in range(num_ranks) for worker in range(workers)]
    dealt = np.concatenate([epoch_of(sampler, epoch, worker_info) for worker_info in everyone])
    assert np.array_equal(dealt[np.argsort(dealt[:, 0])], epoch_of(sampler, epoch))


@settings(max_examples=100, deadline=None)
@given(samplers, st.integers(1, 5), st.integers(1, 3), st.integers(0, 2))
def test_the_places_of_a_step_are_known_without_its_samples(
    sampler: TrainSampler, num_ranks: int, workers: int, epoch: int
) -> None:
    everyone = [WorkerInfo(rank, num_ranks, worker, workers) for rank in range(num_ranks) for worker in range(workers)]
    for step in range(sampler.steps_per_epoch):
        for worker_info in everyone:
            assert np.array_equal(sampler.places(epoch, step, worker_info), sampler.rows(epoch, step, worker_info).row)
        for rank in range(num_ranks):
            assert len(sampler.places(epoch, step, WorkerInfo(rank, num_ranks))) <= sampler.most_rows(num_ranks)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 64])
def test_room_for_a_ranks_rows_is_little_more_than_its_share(num_ranks: int) -> None:
    sampler = TrainSampler(np.full(400, 2000), seed=0, batch_size=1024)
    assert 1024 / num_ranks <= sampler.most_rows(num_ranks) <= min(1024, 1.1 * 1024 / num_ranks + 6)


@settings(max_examples=50, deadline=None)
@given(samplers, st.integers(0, 3))
def test_a_step_does_not_depend_on_what_was_drawn_before(sampler: TrainSampler, epoch: int) -> None:
    fresh = TrainSampler(
        sampler.counts,
        seed=sampler.seed,
        batch_size=sampler.batch_size,
        block=sampler.block_size,
        lanes=sampler.lanes,
        window=sampler.window,
    )
    epoch_of(sampler, epoch)
    step = sampler.steps_per_epoch // 2
    for ours, theirs in zip(
        vars(sampler.rows(epoch, step)).values(), vars(fresh.rows(epoch, step)).values(), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_the_order_is_pinned_so_that_an_update_cannot_change_it_unseen() -> None:
    sampler = TrainSampler(np.array([5, 3, 9]), seed=11, batch_size=6, block=10, lanes=4, window=3)
    rows = epoch_of(sampler, 2)
    assert [f"{shard}:{sample}" for _, shard, sample in rows.tolist()] == PINNED.split()


PINNED = "2:1 2:6 0:1 2:3 0:3 2:7 0:0 2:2 2:0 2:8 0:2 2:4 0:4 2:5 1:1 1:2 1:0"


@pytest.mark.parametrize("num_shards", [1, 3, 100])
def test_class_sorted_shards_still_give_mixed_batches(num_shards: int) -> None:
    """The classes in a batch are within 10 % of what uniform sampling gives (11 classes, batches of 32)."""
    num_samples, num_classes, batch_size = 22_000, 11, 32
    label = np.sort(np.arange(num_samples) % num_classes)
    counts = np.full(num_shards, num_samples // num_shards)
    counts[-1] += num_samples - counts.sum()
    first = np.concatenate([[0], np.cumsum(counts)])
    sampler = TrainSampler(counts, seed=3, batch_size=batch_size)
    seen = []
    for step in range(sampler.steps_per_epoch - 1):
        rows = sampler.rows(0, step)
        seen.append(len(np.unique(label[first[rows.shard] + rows.sample])))
    uniform = num_classes * (1 - (1 - 1 / num_classes) ** batch_size)
    assert np.mean(seen) == pytest.approx(uniform, rel=0.1)


@pytest.mark.parametrize("num_shards", [1, 3, 100])
def test_epochs_are_not_correlated(num_shards: int) -> None:
    counts = np.full(num_shards, 18_000 // num_shards)
    first = np.concatenate([[0], np.cumsum(counts)])
    sampler = TrainSampler(counts, seed=3, batch_size=512)
    places = []
    for epoch in range(3):
        rows = epoch_of(sampler, epoch)
        place = np.empty(sampler.num_samples)
        place[first[rows[:, 1]] + rows[:, 2]] = rows[:, 0]
        places.append(place)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert abs(np.corrcoef(places[one], places[other])[0, 1]) < 0.1


def test_lanes_read_neighbours_and_ranks_their_share() -> None:
    """The runs that a rank announces cover exactly its samples, in few pieces."""
    sampler = TrainSampler(np.full(40, 1000), seed=5, batch_size=64, block=10_000, lanes=64, window=128)

    class Recorder:
        def __init__(self) -> None:
            self.samples: list[tuple[int, int]] = []
            self.num_runs = 0

        def announce(self, epoch: int, runs: list) -> None:
            self.num_runs += len(runs)
            self.samples += [(run.shard, sample) for run in runs for sample in range(run.first, run.last)]

    worker_info = WorkerInfo(1, 4)
    recorder = Recorder()
    prefetcher = Prefetcher(sampler, worker_info, (0, 0), recorder.announce)
    needed = epoch_of(sampler, 0, worker_info)
    for step in range(sampler.steps_per_epoch):
        rows = sampler.rows(0, step, worker_info)
        prefetcher.consume(len(rows.row))
        announced = set(recorder.samples)
        assert set(zip(rows.shard.tolist(), rows.sample.tolist(), strict=True)) <= announced
    first_epoch = recorder.samples[: len(needed)]
    assert sorted(first_epoch) == sorted(map(tuple, needed[:, 1:].tolist()))
    assert len(recorder.samples) / recorder.num_runs > 30
    assert len(recorder.samples) <= len(needed) + sampler.num_samples / 4  # at most about a block ahead


def test_a_billion_samples_are_planned_at_once() -> None:
    counts = np.full(100_000, 10_000)
    begin = time.process_time()
    sampler = TrainSampler(counts, seed=0, batch_size=4096)
    rows = sampler.rows(17, sampler.steps_per_epoch - 3, WorkerInfo(5, 64))
    assert len(rows.row) == 64
    assert time.process_time() - begin < 5  # planning sample by sample would take minutes


@pytest.mark.parametrize(("setting", "value"), [("batch_size", 0), ("lanes", 0), ("window", -1), ("block", 0)])
def test_settings_below_one_are_refused_by_name(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=setting):
        TrainSampler(np.array([3]), **{"seed": 0, "batch_size": 2, setting: value})


def test_no_samples_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample"):
        TrainSampler(np.array([0, 0]), seed=0, batch_size=2)
