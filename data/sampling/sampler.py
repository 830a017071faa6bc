"""Which sample is at which place of an epoch: a pure function, the same for any number of ranks and workers.

    sampler = TrainSampler(index.counts, seed=0, batch_size=256)
    rows = sampler.rows(epoch=3, step=17, worker_info=WorkerInfo(rank=2, num_ranks=8))

An epoch permutes the shards and walks them in *blocks* of whole shards. A block of N samples is cut into L pieces
("lanes") which are dealt in random order; each lane starts at its own place of its piece, wraps, and is shuffled in
windows of bounded size. Position p of a block is lane p mod L at offset p div L. Every lane reads one contiguous
stretch of its shards, so a rank that owns some of the lanes reads its share of the bytes in long runs.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from data.randomness import mix, permutation
from data.sampling.blocks import WINDOW, Block, EpochShards, deal_lanes, deal_shards, num_blocks

_CACHED_WINDOWS = 8192


@dataclass(frozen=True)
class WorkerInfo:
    """Who reads: worker `worker` of `num_workers` on rank `rank` of `num_ranks`. The default owns every lane."""

    rank: int = 0
    num_ranks: int = 1
    worker: int = 0
    num_workers: int = 1

    @property
    def share(self) -> float:
        """About the share of all samples that this worker reads."""
        return 1 / (self.num_ranks * self.num_workers)

    def owns(self, lanes: np.ndarray) -> np.ndarray:
        """bool, the shape of `lanes`: lane l belongs to rank l mod W and there to worker (l div W) mod V."""
        return (lanes % self.num_ranks == self.rank) & ((lanes // self.num_ranks) % self.num_workers == self.worker)

    def cut(self, size: int) -> np.ndarray:
        """The worker's stretch of `size` neighbours that the ranks, and within a rank the workers, cut among them."""
        low, high = (size * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        first, last = (low + (high - low) * worker // self.num_workers for worker in (self.worker, self.worker + 1))
        return np.arange(first, last)


@dataclass(frozen=True)
class Rows:
    """The samples of one step in position order (or one worker's part of them); all arrays are int64 [n]."""

    row: np.ndarray  # place in the global batch, ascending
    shard: np.ndarray  # number of the shard, in name order
    sample: np.ndarray  # number of the sample in its shard


@dataclass(frozen=True)
class Run:
    """Samples first..last-1 of one shard: neighbours in the tar that one lane reads within one window."""

    shard: int
    first: int
    last: int


class TrainSampler:
    """The samples of all steps of training over shards with the given sample counts.

    Args:
        counts: int [num_shards], samples per shard, shards sorted by name.
        batch_size: samples of one optimizer update over all ranks; the last batch of an epoch may be short.
        block, lanes, window: samples per block (about), lanes per block, samples per shuffle window.
    """

    def __init__(
        self,
        counts: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        block: int = 262_144,
        lanes: int = 1024,
        window: int = 256,
    ) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.num_samples = int(self.counts.sum())
        if self.num_samples == 0:
            raise ValueError("the shards hold no sample at all")
        for name, value in (("batch_size", batch_size), ("block", block), ("lanes", lanes), ("window", window)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.seed, self.batch_size = seed, batch_size
        self.block_size, self.lanes, self.window = block, lanes, window
        self.steps_per_epoch = -(-self.num_samples // batch_size)
        self._windows: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._shards_of = lru_cache(maxsize=2)(self._deal_shards)
        self._block_of = lru_cache(maxsize=3)(self._deal_lanes)

    def rows(self, epoch: int, step: int, worker_info: WorkerInfo | None = None) -> Rows:
        """The samples of `step` of `epoch`, in position order; with a worker, only those of its lanes."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step {step} is outside the epoch's {self.steps_per_epoch} steps")
        worker_info = worker_info or WorkerInfo()
        parts = [self._rows_of_block(*stretch, worker_info) for stretch in self._stretches(epoch, step)]
        return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def places(self, epoch: int, step: int, worker_info: WorkerInfo) -> np.ndarray:
        """`rows(...).row` alone, which costs little."""
        stretches = self._stretches(epoch, step)
        return np.concatenate([row[worker_info.owns(inside % self.lanes)] for _, inside, row in stretches])

    def most_rows(self, num_ranks: int) -> int:
        """A rank never has more rows in a step. Of n neighbours in a block it owns at most n / L times its lanes, and
        one more at either end."""
        lanes = -(-self.lanes // num_ranks)
        blocks = num_blocks(self.num_samples, self.block_size)
        bound = -(-self.batch_size * lanes // self.lanes) + 2 * min(blocks, self.batch_size)
        return min(self.batch_size, bound)

    def _stretches(self, epoch: int, step: int) -> Iterator[tuple[Block, np.ndarray, np.ndarray]]:
        """A step's part of every block that it meets: (block, places in the block, places in the step)."""
        first = step * self.batch_size
        last = min(first + self.batch_size, self.num_samples)
        position = first
        while position < last:
            block = self.block_at(epoch, position)
            stop = min(last, block.start + block.num_samples)
            positions = np.arange(position, stop)
            yield block, positions - block.start, positions - first
            position = stop

    def block_at(self, epoch: int, position: int) -> Block:
        """The block that holds a position of the epoch."""
        starts = self._shards_of(epoch).starts
        return self._block_of(epoch, int(np.searchsorted(starts, position, side="right")) - 1)

    def window_runs(self, block: Block, lane: int, window: int) -> list[Run]:
        """What one window of a lane reads: runs of neighbouring samples, at most a few (wrap, shard borders)."""
        base, size = self.window_span(block, lane, window)
        length, start = int(block.lane_length[lane]), int(block.lane_start[lane])
        begin = (int(block.spin[lane]) + base) % length
        pieces = [(begin, min(size, length - begin))]
        if pieces[0][1] < size:
            pieces.append((0, size - pieces[0][1]))
        runs = []
        for offset, count in pieces:
            place, stop = start + offset, start + offset + count
            while place < stop:
                at = int(np.searchsorted(block.offsets, place, side="right")) - 1
                end = min(stop, int(block.offsets[at + 1]))
                low = int(block.offsets[at])
                runs.append(Run(int(block.shards[at]), place - low, end - low))
                place = end
        return runs

    def window_of(self, block: Block, lane: int, offset: int) -> int:
        """Number of the window that holds a lane's offset."""
        first = int(block.first_window[lane])
        return 0 if offset < first else 1 + (offset - first) // self.window

    def window_span(self, block: Block, lane: int, window: int) -> tuple[int, int]:
        """(first offset, size) of a window inside its lane; the size is below 1 past the lane's end."""
        first, length = int(block.first_window[lane]), int(block.lane_length[lane])
        base = 0 if window == 0 else first + (window - 1) * self.window
        size = first if window == 0 else self.window
        return base, min(size, length - base)

    def _rows_of_block(
        self, block: Block, inside: np.ndarray, row: np.ndarray, worker_info: WorkerInfo
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lanes = inside % self.lanes
        mine = worker_info.owns(lanes)
        lanes, offsets = lanes[mine], inside[mine] // self.lanes
        shuffled = np.fromiter(
            (
                self._shuffled(block, lane, offset)
                for lane, offset in zip(lanes.tolist(), offsets.tolist(), strict=True)
            ),
            dtype=np.int64,
            count=len(lanes),
        )
        place = block.lane_start[lanes] + (block.spin[lanes] + shuffled) % block.lane_length[lanes]
        return row[mine], *block.locate(place)

    def _shuffled(self, block: Block, lane: int, offset: int) -> int:
        """Where in the lane the sample at `offset` comes from: its window's permutation applied."""
        window = self.window_of(block, lane, offset)
        base, size = self.window_span(block, lane, window)
        name = (block.key, lane, window)
        shuffle = self._windows.get(name)
        if shuffle is None:
            shuffle = permutation(mix(block.key, WINDOW, lane, window), size).astype(np.int32)
            self._windows[name] = shuffle
            if len(self._windows) > max(_CACHED_WINDOWS, 2 * self.lanes):
                self._windows.popitem(last=False)
        return base + int(shuffle[offset - base])

    def _deal_shards(self, epoch: int) -> EpochShards:
        return deal_shards(self.counts, seed=self.seed, epoch=epoch, block_size=self.block_size)

    def _deal_lanes(self, epoch: int, number: int) -> Block:
        shards = self._shards_of(epoch)
        return deal_lanes(self.counts, shards, seed=self.seed, number=number, lanes=self.lanes, window=self.window)


class ShardSampler:
    """The samples of some shards, batch by batch; it knows no ranks, since the shards are already one rank's."""

    def __init__(self, counts: np.ndarray, *, shards: Sequence[int], batch_size: int) -> None:
        self._spans = [
            (shard, first, min(first + batch_size, count))
            for shard, count in zip(shards, counts[list(shards)].tolist(), strict=True)
            for first in range(0, count, batch_size)
        ]
        self.steps_per_epoch, self._batch_size = len(self._spans), batch_size

    def span(self, step: int) -> tuple[int, int, int]:
        """(shard, first sample, sample after the last) of a step."""
        return self._spans[step]

    def rows(self, epoch: int, step: int, worker_info: WorkerInfo | None = None) -> Rows:
        """The samples of a step, the same in every epoch."""
        shard, first, _ = self._spans[step]
        row = self.places(epoch, step, worker_info or WorkerInfo())
        return Rows(row=row, shard=np.full(len(row), shard), sample=first + row)

    def places(self, epoch: int, step: int, worker_info: WorkerInfo) -> np.ndarray:
        _, first, last = self._spans[step]
        return worker_info.cut(last - first)

    def most_rows(self, num_ranks: int) -> int:
        return self._batch_size


class Sampler(Protocol):
    """What decides which samples a step has: TrainSampler for training, EvalSampler for evaluation."""

    steps_per_epoch: int

    def rows(self, epoch: int, step: int, worker_info: WorkerInfo | None = None) -> Rows: ...

    def places(self, epoch: int, step: int, worker_info: WorkerInfo) -> np.ndarray:
        """`rows(...).row` alone, at little cost."""
        ...

    def most_rows(self, num_ranks: int) -> int:
        """No step has more rows for a rank."""
        ...


class EvalSampler:
    """Every sample once, in index order; step k of W ranks takes W x batch_size neighbours and cuts them W ways.

    whole_batches: a rank's rows of a step are a whole batch of one process, of the last step too, where some ranks may
    then have none; else they are shared evenly.
    """

    def __init__(self, counts: np.ndarray, *, batch_size: int, num_ranks: int, whole_batches: bool = False) -> None:
        self.ends = np.cumsum(np.asarray(counts, dtype=np.int64))
        self.num_samples = int(self.ends[-1]) if len(self.ends) else 0
        self.batch_size, self.global_batch = batch_size, batch_size * num_ranks
        self.whole_batches = whole_batches
        self.steps_per_epoch = -(-self.num_samples // self.global_batch)

    def rows(self, epoch: int, step: int, worker_info: WorkerInfo | None = None) -> Rows:
        """The samples of a step; each rank, and there each worker, gets neighbours."""
        row = self.places(epoch, step, worker_info or WorkerInfo())
        place = step * self.global_batch + row
        shard = np.searchsorted(self.ends, place, side="right")
        start = np.concatenate([[0], self.ends])[shard]
        return Rows(row=row, shard=shard, sample=place - start)

    def places(self, epoch: int, step: int, worker_info: WorkerInfo) -> np.ndarray:
        size = min(self.global_batch, self.num_samples - step * self.global_batch)
        if not self.whole_batches or worker_info.num_ranks == 1:
            return worker_info.cut(size)
        first = min(size, worker_info.rank * self.batch_size)
        mine = min(size, first + self.batch_size) - first
        return first + replace(worker_info, rank=0, num_ranks=1).cut(mine)

    def most_rows(self, num_ranks: int) -> int:
        return self.batch_size
