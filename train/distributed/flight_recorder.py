"""What a rank asked of the others: a fingerprint that all ranks share as long as they do the same, and the last names.

flight_recorder = FlightRecorder(); flight_recorder.record("bucket0", tensor); flight_recorder.fingerprint
"""

import contextlib
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence

from torch import Tensor

_KEPT = 64
_SHOWN = 5
# Small enough that sums of squares over ten thousand ranks are exact in float64.
_MODULUS = 2**20


class FlightRecorder:
    """The order within a step does not count: gradients may be ready in another order on another rank.

    waiting: whether this rank now waits for the others.
    """

    def __init__(self) -> None:
        self.fingerprint = 0
        self.waiting = False
        self._recent: deque[str] = deque(maxlen=_KEPT)

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """While the block runs, this rank waits for the others."""
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False

    def record(self, name: str, tensor: Tensor) -> None:
        entry = f"{name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        self._recent.append(entry)
        self.fingerprint = (self.fingerprint + zlib.crc32(entry.encode())) % _MODULUS

    def last(self) -> str:
        """The collective that was started last."""
        return self._recent[-1] if self._recent else "none"

    def recent(self) -> list[str]:
        return list(self._recent)


def describe_divergence(fingerprints: Sequence[int], recent: Sequence[Sequence[str]]) -> str:
    """Which ranks did other things than most, and what. One entry per rank."""
    common, _ = Counter(fingerprints).most_common(1)[0]
    usual = fingerprints.index(common)
    told = []
    for rank, fingerprint in enumerate(fingerprints):
        if fingerprint == common:
            continue
        more = list((Counter(recent[rank]) - Counter(recent[usual])).elements())[-_SHOWN:]
        less = list((Counter(recent[usual]) - Counter(recent[rank])).elements())[-_SHOWN:]
        told.append(f"rank {rank} started {more or 'nothing'} where rank {usual} started {less or 'nothing'}")
    return "; ".join(told)
