"""One start of all ranks, followed to the end of the last one.

current = Attempt([(peer, [0, 1])], codes); current.end(peer, rank=1, code=77); current.over
"""

import time
from collections.abc import Sequence

from launch.coordinator.listener import Peer
from launch.coordinator.outcome import Codes, RankEnd

# A rank that failed takes the others with it within a second; who then still runs does not come by itself.
_AFTER_FAILURE_SECONDS = 2.0
# The others may still be writing.
_AFTER_SUCCESS_SECONDS = 120.0
_KILLED_SECONDS = 10.0  # from the order to end the ranks to the report
_CHECK_SECONDS = 0.5


class Attempt:
    """changing: the ranks were asked to save because the set of workers changes."""

    def __init__(self, ranks: Sequence[tuple[Peer, list[int]]], codes: Codes) -> None:
        self.ends: list[RankEnd] = []
        self.changing = False
        self.workers_lost = False
        self._codes = codes
        self._running = {peer: set(numbers) for peer, numbers in ranks}
        self._deadline = float("inf")
        self._told_to_end = False

    @property
    def over(self) -> bool:
        self._enforce()
        return not self._running

    def has(self, peer: Peer) -> bool:
        """Whether ranks of this worker run."""
        return peer in self._running

    def patience(self) -> float:
        """Seconds until something has to be done."""
        return max(0.01, min(_CHECK_SECONDS, self._deadline - time.monotonic()))

    def end(self, peer: Peer, rank: int, code: int) -> None:
        if rank not in self._running.get(peer, ()):
            return  # of an earlier round
        self.ends.append(RankEnd(rank, peer.node, code))
        self._running[peer].discard(rank)
        if not self._running[peer]:
            del self._running[peer]
        well = code in (0, self._codes.stopped)
        self._set_deadline(_AFTER_SUCCESS_SECONDS if well else _AFTER_FAILURE_SECONDS)

    def lose(self, peer: Peer, why: str) -> None:
        """Its worker is gone, and its ranks with it."""
        if peer not in self._running:
            return
        self.workers_lost = True
        ranks = sorted(self._running.pop(peer))
        self.ends += [RankEnd(rank, peer.node, self._codes.lost, f"was lost with its worker ({why})") for rank in ranks]
        self._set_deadline(_AFTER_FAILURE_SECONDS)

    def save_and_end(self) -> None:
        """Ask one rank: they agree among themselves at which step all save."""
        self.changing = True
        next(iter(self._running)).tell(kind="save")

    def _set_deadline(self, seconds: float) -> None:
        if not self._told_to_end:
            self._deadline = min(self._deadline, time.monotonic() + seconds)

    def _enforce(self) -> None:
        if time.monotonic() < self._deadline or not self._running:
            return
        if not self._told_to_end:
            self._told_to_end = True
            self._deadline = time.monotonic() + _KILLED_SECONDS
            for peer in self._running:
                peer.tell(kind="end")
        else:
            for peer in list(self._running):
                self.lose(peer, "it does not answer")
