"""One start of all ranks, followed to the end of the last one.

current = Attempt([(peer, [0, 1])]); current.end(peer, rank=1, code=77); current.over
"""

import time
from collections.abc import Sequence

from launch.coordinator.listener import Peer
from launch.coordinator.outcome import RankEnd
from launch.exit_codes import ExitCode

# A rank that failed takes the others with it within a second; one that still runs then does not end by itself.
_AFTER_FAILURE_SECONDS = 2.0
# The others may still be writing.
_AFTER_SUCCESS_SECONDS = 120.0
_ABORTED_SECONDS = 10.0  # from the order to abort the ranks to the report
_CHECK_SECONDS = 0.5


class Attempt:
    """ranks: those of each worker.

    Attributes: ends, in the order in which they came; changing: the ranks were asked to save because the set of workers
    changes; workers_lost.
    """

    def __init__(self, ranks: Sequence[tuple[Peer, list[int]]]) -> None:
        self.ends: list[RankEnd] = []
        self.changing = False
        self.workers_lost = False
        self._running = {peer: set(numbers) for peer, numbers in ranks}
        self._deadline = float("inf")
        self._aborted = False

    @property
    def over(self) -> bool:
        self._enforce_deadline()
        return not self._running

    def has(self, peer: Peer) -> bool:
        """Whether ranks of this worker run."""
        return peer in self._running

    def patience(self) -> float:
        """Seconds until `over` is to be looked at again."""
        return max(0.01, min(_CHECK_SECONDS, self._deadline - time.monotonic()))

    def end(self, peer: Peer, rank: int, code: int) -> None:
        if rank not in self._running.get(peer, ()):
            return  # of an earlier attempt
        self.ends.append(RankEnd(rank, peer.node, code))
        self._running[peer].discard(rank)
        if not self._running[peer]:
            del self._running[peer]
        succeeded = code in (ExitCode.DONE, ExitCode.PREEMPTED)
        self._set_deadline(_AFTER_SUCCESS_SECONDS if succeeded else _AFTER_FAILURE_SECONDS)

    def lose(self, peer: Peer, why: str) -> None:
        """Its worker is gone, and its ranks with it."""
        if peer not in self._running:
            return
        self.workers_lost = True
        how = f"was lost with its worker ({why})"
        self.ends += [RankEnd(rank, peer.node, ExitCode.RANK_LOST, how) for rank in sorted(self._running.pop(peer))]
        self._set_deadline(_AFTER_FAILURE_SECONDS)

    def save_and_end(self) -> None:
        """Ask one rank: they agree among themselves at which step all save."""
        self.changing = True
        next(iter(self._running)).send(kind="save")

    def _set_deadline(self, seconds: float) -> None:
        if not self._aborted:
            self._deadline = min(self._deadline, time.monotonic() + seconds)

    def _enforce_deadline(self) -> None:
        if time.monotonic() < self._deadline or not self._running:
            return
        if not self._aborted:
            self._aborted = True
            self._deadline = time.monotonic() + _ABORTED_SECONDS
            for peer in self._running:
                peer.send(kind="abort")
        else:
            for peer in list(self._running):
                self.lose(peer, "it does not answer")
