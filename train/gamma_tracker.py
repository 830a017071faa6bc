"""A tracker that adds to every training record how sparse the penalised norms are.

tracker = GammaTracker(sinks, norms)
"""

from collections.abc import Sequence

from train.sparsity import PenalisedNorm, gamma_report
from train.tracking import Record, Sink, Tracker


class GammaTracker(Tracker):
    """Without norms, a plain tracker."""

    def __init__(self, sinks: Sequence[Sink], norms: Sequence[PenalisedNorm]) -> None:
        super().__init__(sinks)
        self._norms = norms

    def log(self, record: Record) -> None:
        sparse = gamma_report(self._norms) if self._norms and record["kind"] == "train" else {}
        super().log({**record, **sparse})
