"""The blocks of an epoch: which shards are read together, and how their samples are dealt to lanes.

    epoch = deal_shards(counts, seed=0, epoch=3, block_size=262_144)
    block = deal_lanes(counts, epoch, seed=0, number=0, lanes=1024, window=256)

Pure functions of their arguments; data.sampling.sampler says what they are for.
"""

from dataclasses import dataclass

import numpy as np

from data.randomness import mix, permutation

# Domains keep the uses of one seed apart.
_SHARDS, _DEAL, _SPIN, _STAGGER, WINDOW = range(5)


@dataclass(frozen=True)
class EpochShards:
    """The shards of one epoch and where its blocks begin."""

    epoch: int
    shards: np.ndarray  # int64 [S], in reading order
    borders: np.ndarray  # int64 [b + 1], of the blocks in that order
    starts: np.ndarray  # int64 [b], position of each block's first sample in the epoch


@dataclass(frozen=True)
class Block:
    """Some whole shards of an epoch and how their samples are dealt to lanes."""

    key: int  # random key of (seed, epoch, block)
    start: int  # position of its first sample in the epoch
    shards: np.ndarray  # int64 [s], in reading order
    offsets: np.ndarray  # int64 [s + 1], samples before each shard of the block
    lane_start: np.ndarray  # int64 [L], where the lane's piece begins in the concatenation of the shards
    lane_length: np.ndarray  # int64 [L]; lanes 0..(N mod L)-1 are one longer
    spin: np.ndarray  # int64 [L], where in its piece the lane starts
    first_window: np.ndarray  # int64 [L], length of the lane's first window

    @property
    def num_samples(self) -> int:
        return int(self.offsets[-1])

    def locate(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shard, sample in shard), each int64 [n], of places in the block's concatenation."""
        at = np.searchsorted(self.offsets, place, side="right") - 1
        return self.shards[at], place - self.offsets[at]


def deal_shards(counts: np.ndarray, *, seed: int, epoch: int, block_size: int) -> EpochShards:
    """Permute the shards that hold samples (counts: int64 [num_shards]) and cut them into blocks of about `block_size`
    samples."""
    num_samples = int(counts.sum())
    filled = np.flatnonzero(counts)
    shards = filled[permutation(mix(seed, _SHARDS, epoch), len(filled))]
    ends = np.cumsum(counts[shards])
    count = num_blocks(num_samples, block_size)
    targets = num_samples * np.arange(1, count, dtype=np.float64) / count
    inner = np.searchsorted(ends, targets, side="left") + 1
    borders = np.unique(np.concatenate([[0], inner[inner < len(shards)], [len(shards)]])).astype(np.int64)
    return EpochShards(epoch, shards, borders, np.concatenate([[0], ends])[borders[:-1]])


def num_blocks(num_samples: int, block_size: int) -> int:
    """Of an epoch, at most: a shard is never cut between two."""
    return max(1, round(num_samples / block_size))


def deal_lanes(counts: np.ndarray, epoch: EpochShards, *, seed: int, number: int, lanes: int, window: int) -> Block:
    """Cut a block's samples into `lanes` pieces and deal them in random order."""
    mine = epoch.shards[epoch.borders[number] : epoch.borders[number + 1]]
    offsets = np.concatenate([[0], np.cumsum(counts[mine])])
    key = int(mix(seed, epoch.epoch, number))
    quotient, longer = divmod(int(offsets[-1]), lanes)
    lane_length = np.full(lanes, quotient, dtype=np.int64)
    lane_length[:longer] += 1
    # Piece j of the concatenation goes to lane deal[j] and has that lane's length, so that the longer lanes come
    # first while the longer pieces are spread over the whole block.
    deal = permutation(mix(key, _DEAL), lanes)
    lane_start = np.empty(lanes, dtype=np.int64)
    lane_start[deal] = np.concatenate([[0], np.cumsum(lane_length[deal])[:-1]])
    lane_numbers = np.arange(lanes)
    spin = mix(key, _SPIN, lane_numbers) % np.maximum(lane_length, 1).astype(np.uint64)
    stagger = mix(key, _STAGGER, lane_numbers) % np.uint64(window)
    return Block(
        key=key,
        start=int(epoch.starts[number]),
        shards=mine,
        offsets=offsets,
        lane_start=lane_start,
        lane_length=lane_length,
        spin=spin.astype(np.int64),
        first_window=stagger.astype(np.int64) + 1,
    )
