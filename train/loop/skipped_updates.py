"""Updates that were skipped because their gradients were not finite: noted on the device, judged at log lines.

    log.count(skipped, None, sums, step=17)         # in every step; the values stay on the device
    skips, marks = log.read()                       # at a log line
    limit.judge(skips, num_steps=20, ...)           # raises NumbersExploded

A few are the normal course of things (a photo in a thousand, fp16 looking for its loss scale). When nearly all are, the
run would go on to its end with the weights that it has and look as if it had trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from train.errors import NumbersExploded

MOST_IN_A_ROW = 10
MOST_OF_AN_EPOCH = 0.1  # of its steps, and at least MOST_IN_A_ROW


@dataclass(frozen=True)
class Skips:
    """Between two log lines, the same on every rank.

    all: skipped updates. counted: without those of fp16's search for its loss scale. row, longest: counted ones in a
    row, at the end and at most. since: the step at which the latest row began, and broken: the loss terms that were not
    finite there, on any rank.
    """

    all: int
    counted: int
    row: int
    longest: int
    since: int
    broken: Sequence[str]


class SkipLog:
    """What one rank saw since the last log line. Only the loss terms differ between ranks."""

    def __init__(self) -> None:
        self.row = self.since = 0
        self.broken: list[bool] | None = None  # where the row began, as all ranks told each other
        self._skipped: list[Tensor] = []
        self._searching: list[Tensor | None] = []
        self._sums: list[Tensor] = []
        self._steps: list[int] = []

    def count(self, skipped: Tensor, searching: Tensor | None, sums: Tensor, *, step: int) -> None:
        """skipped: 1.0 where the update was left out. searching: 1.0 where it was so in search of a loss scale.
        sums: this rank's loss terms of the step [num_terms]. Nothing is computed here, nor read."""
        self._skipped.append(skipped)
        self._searching.append(searching)
        self._sums.append(sums)
        self._steps.append(step)

    def read(self) -> tuple[Skips, Tensor]:
        """Without the broken terms, and this rank's marks for them [num_terms], to be summed over the ranks. A row that
        is under way goes on after it. Waits for the device."""
        nobody = torch.zeros_like(self._skipped[0])
        flags = torch.stack([*self._skipped, *(nobody if one is None else one for one in self._searching)])
        skipped, searching = flags.view(2, -1).bool().tolist()
        longest, begins = 0, None
        for number, step in enumerate(self._steps):
            if not skipped[number]:
                self.row = 0
            elif not searching[number]:  # a search neither adds to a row nor ends it
                if self.row == 0:
                    begins, self.since = number, step
                self.row += 1
                longest = max(longest, self.row)
        marks = torch.zeros(len(self._sums[0]), dtype=torch.float64)
        if begins is not None:
            marks = (~self._sums[begins].isfinite()).double().cpu()
        elif self.row and self.broken is not None:
            marks = torch.tensor(self.broken, dtype=torch.float64)
        counted = sum(one and not other for one, other in zip(skipped, searching, strict=True))
        self.reset()
        return Skips(sum(skipped), counted, self.row, longest, self.since, ()), marks

    def reset(self) -> None:
        for one in (self._skipped, self._searching, self._sums, self._steps):
            one.clear()


class Kept(Protocol):
    """What is kept of skipped updates from log line to log line, and in checkpoints."""

    num_updates: int  # that were made
    skipped_in_epoch: int  # without those of a search for the loss scale
    skipped_row: int
    skipped_since: int  # the step at which the row began
    skipped_terms: Sequence[str]  # the losses that were not finite there


class SkipLimit:
    """Judges for all ranks alike, since all are told the same."""

    def __init__(self, kept: Kept, *, steps_per_epoch: int) -> None:
        self._kept = kept
        self._most = max(MOST_IN_A_ROW, steps_per_epoch * MOST_OF_AN_EPOCH)

    def judge(self, skips: Skips, *, num_steps: int, epoch: int, epoch_ends: bool, learning_rate: float) -> None:
        """num_steps: since the last time. Raises NumbersExploded for MOST_IN_A_ROW skipped updates in a row, and for
        too many in an epoch."""
        kept = self._kept
        kept.num_updates += num_steps - skips.all
        kept.skipped_in_epoch += skips.counted
        kept.skipped_row, kept.skipped_since, kept.skipped_terms = skips.row, skips.since, list(skips.broken)
        in_epoch = kept.skipped_in_epoch
        if epoch_ends:
            kept.skipped_in_epoch = 0
        if skips.longest >= MOST_IN_A_ROW:
            what = f"{skips.longest} updates in a row were skipped"
            raise NumbersExploded(_words(what, "the first", skips, learning_rate))
        if in_epoch > self._most:
            what = f"{in_epoch} updates of epoch {epoch + 1} were skipped, more than {self._most:g}"
            raise NumbersExploded(_words(what, "the latest began", skips, learning_rate))

    def require_updates(self, *, learning_rate: float) -> None:
        """At the end. Raises NumbersExploded where no update was made at all."""
        if not self._kept.num_updates:
            raise NumbersExploded(
                "every update of the run was skipped, because its gradients were not finite; nothing was learned and "
                f"no model is saved. {_advice(learning_rate)}"
            )


def _words(what: str, began: str, skips: Skips, learning_rate: float) -> str:
    if skips.broken:
        terms = ", ".join(skips.broken)
        first = f"the loss of {terms} was not finite" if len(skips.broken) == 1 else f"losses were not finite: {terms}"
    else:
        first = "all losses were finite, the norm of the gradients was not"
    return f"{what}; {began} at step {skips.since + 1}, where {first}. {_advice(learning_rate)}"


def _advice(learning_rate: float) -> str:
    return (
        f"The learning rate is {learning_rate:.3g} now. Try a lower optimizer.lr, optimizer.clip_norm: 1, a longer "
        "schedule.warmup_epochs, or precision: fp32 or bf16 instead of fp16; run.allow_changes=true continues from the "
        "last checkpoint with other settings"
    )
