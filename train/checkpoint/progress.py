"""Where a run is; saved in every checkpoint: `progress = Progress()`."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a run is; saved in every checkpoint."""

    step: int = 0  # finished updates
    best: float | None = None  # best monitored value
    num_bad_epochs: int = 0  # evaluations since the best
    results: dict[str, float] = field(default_factory=dict)  # of the best evaluation
    latest: dict[str, float] = field(default_factory=dict)  # of the last one
    num_updates: int = 0  # that were made; the others were skipped
    skipped_in_epoch: int = 0  # these four: see train.loop.skipped_updates
    skipped_row: int = 0
    skipped_since: int = 0
    skipped_terms: Sequence[str] = ()
    evaluation_due: bool = False  # the last update ended an epoch that is still to be evaluated
