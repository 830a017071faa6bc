"""Processes that make their parts of every step side by side, in order, and in words when one of them fails.

for step, arrays, parts in side_by_side(work, steps, workers=4): ...  # parts: one of each process

Every process is asked for a step at once, with a slot of shared memory to write its arrays into; what else there is to
say comes back through a pipe. Nothing can be dropped on the way: a process writes its reply itself, and one that
cannot is a process that ended. Every wait has an end: the reply, the process's death, or `limit` seconds.
"""

import ctypes
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from data.errors import LoaderLost
from data.loading.step_memory import AHEAD, SLOTS, Arrays, StepMemory, new_arrays, num_slots, step_bytes
from data.loading.worker_process import LEAVE_SECONDS, LoaderProcess, Work
from launch.free_memory import free_memory

Step = TypeVar("Step")
Part = TypeVar("Part")

STUCK_SECONDS = 600.0


def side_by_side(
    work: Work[Step, Part],
    steps: Iterable[Step],
    *,
    workers: int,
    sharers: int = 1,
    limit: float = STUCK_SECONDS,
) -> Iterator[tuple[Step, Arrays, list[Part]]]:
    """Each step with its arrays and the parts of all processes; workers=0 works in this one. sharers: how many do the
    same on this machine. Raises LoaderLost, BadArgument where memory does not suffice, and what the work raises."""
    if not workers:
        yield from _in_this_process(work, steps)
        return
    pool = _Pool(work, workers=workers, sharers=sharers, limit=limit)
    try:
        yield from pool.run(iter(steps))
    finally:
        pool.close()


def _in_this_process(work: Work[Step, Part], steps: Iterable[Step]) -> Iterator[tuple[Step, Arrays, list[Part]]]:
    maker = work.start(0, 1)
    try:
        for step in steps:
            arrays = new_arrays(work.layout)
            yield step, arrays, [maker.make(step, arrays)]
    finally:
        maker.close()


class _Pool(Generic[Step, Part]):
    """The parent's side."""

    def __init__(self, work: Work[Step, Part], *, workers: int, sharers: int, limit: float) -> None:
        self._limit = limit
        size = step_bytes(work.layout)
        slots = num_slots(size, free_memory() / sharers)
        if slots < SLOTS:
            print(f"note: memory is short: room for {slots} batches, not {SLOTS}", flush=True)
        try:
            self._memory = StepMemory(work.layout, slots=slots)
        except OSError as error:
            raise LoaderLost(f"no memory for {slots} batches of {size / 1e6:,.0f} MB: {error.strerror}") from error
        _give_back_free_memory()
        self._processes: list[LoaderProcess] = []
        try:
            for number in range(workers):
                self._processes.append(LoaderProcess(work, number, workers, self._memory, self._processes))
        except OSError as error:
            self.close()
            raise LoaderLost(f"loader process {number} of {workers} does not start: {error.strerror}") from error

    def run(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Arrays, list[Part]]]:
        under_way: deque[tuple[Step, int]] = deque()
        self._request(steps, under_way)
        while under_way:
            step, slot = under_way.popleft()
            parts = [process.reply(step, limit=self._limit) for process in self._processes]
            self._request(steps, under_way)
            # Who keeps all batches gets copies in the end: else no slot would be left to go on with.
            is_last_slot = not under_way and not self._memory.has_free
            yield step, self._memory.copy_out(slot) if is_last_slot else self._memory.hand_out(slot), parts
            self._request(steps, under_way)

    def _request(self, steps: Iterator[Step], under_way: deque[tuple[Step, int]]) -> None:
        while len(under_way) < AHEAD and self._memory.has_free:
            step = next(steps, None)
            if step is None:
                return
            slot = self._memory.take()
            for process in self._processes:
                process.request(step, slot)
            under_way.append((step, slot))

    def close(self) -> None:
        for process in self._processes:
            process.hang_up()
        end = time.monotonic() + LEAVE_SECONDS
        for process in self._processes:
            process.end(end)


def _give_back_free_memory() -> None:
    """A forked process shares what is free, too, and every page of it that is used again is copied first."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
