"""Memory for the arrays of a few steps, which loader processes fill and their parent reads.

    memory = StepMemory({"image": ((256, 224, 224, 3), np.uint8)}, slots=5)
    slot = memory.take(); memory.arrays(slot)["image"][7] = image  # in a loader process
    arrays = memory.hand_out(slot)  # in the parent; the slot is free again once nothing refers to these arrays

It is one anonymous shared mapping, made before the processes are forked. Unlike what torch's queues use, that does not
lie in /dev/shm, which containers limit (to 64 MB in Docker's default), and a page costs nothing before it is touched.
"""

import mmap
import weakref
from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from data.errors import BadArgument

# Shape of an array with room for a step's largest number of rows, and the type of its elements.
Layout = Mapping[str, tuple[tuple[int, ...], DTypeLike]]
Arrays = dict[str, np.ndarray]

AHEAD = 2  # steps that are asked for before they are needed
# A training loop holds the batch that it trains on, the next one, and for a moment the one after that.
HELD = 3
SLOTS = AHEAD + HELD
_FEWEST_SLOTS = 2
_LARGEST_SHARE = 0.5  # of the free memory
_ALIGNMENT = 4096


def new_arrays(layout: Layout) -> Arrays:
    """The arrays of one step in this process's own memory."""
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in layout.items()}


def step_bytes(layout: Layout) -> int:
    """Bytes of one slot."""
    return sum(_room(shape, dtype) for shape, dtype in layout.values())


def num_slots(size: int, free: float) -> int:
    """Slots of `size` bytes where `free` bytes are left: as many as run best, or fewer. Raises BadArgument where not
    even two fit."""
    fit = int(free * _LARGEST_SHARE) // max(1, size)
    if fit < _FEWEST_SLOTS:
        raise BadArgument(
            f"the batches of the loader processes need {_FEWEST_SLOTS * size / 1e6:,.0f} MB, but only "
            f"{free / 1e6:,.0f} MB of memory are free; take a smaller batch size, fewer ranks on a host, or no loader "
            "processes (data.workers=0)"
        )
    return min(SLOTS, fit)


class StepMemory:
    """`slots` times the arrays of a layout. Raises OSError where the kernel has not that much to give."""

    def __init__(self, layout: Layout, *, slots: int) -> None:
        self._layout, self._size = layout, max(_ALIGNMENT, step_bytes(layout))
        self._map = mmap.mmap(-1, self._size * slots)
        self._free = deque(range(slots))

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    def take(self) -> int:
        """A slot for a step to come; only where `has_free`."""
        return self._free.popleft()

    def arrays(self, slot: int) -> Arrays:
        """What a loader process writes into."""
        return self._views(self._slot(slot))

    def hand_out(self, slot: int) -> Arrays:
        """The arrays of a finished step. All of them refer to one piece of memory: when the last reference to it is
        gone, also those of tensors made of them, the slot is free."""
        whole = self._slot(slot)
        weakref.finalize(whole, self._free.append, slot).atexit = False
        return self._views(whole)

    def copy_out(self, slot: int) -> Arrays:
        """Like hand_out, but the slot is free at once."""
        copies = {name: array.copy() for name, array in self.arrays(slot).items()}
        self._free.append(slot)
        return copies

    def _slot(self, slot: int) -> np.ndarray:
        return np.frombuffer(self._map, np.uint8, count=self._size, offset=slot * self._size)

    def _views(self, whole: np.ndarray) -> Arrays:
        views, start = {}, 0
        for name, (shape, dtype) in self._layout.items():
            kind = np.dtype(dtype)
            views[name] = whole[start : start + int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape)
            start += _room(shape, dtype)
        return views


def _room(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT
