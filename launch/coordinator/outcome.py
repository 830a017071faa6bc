"""What the ends of the ranks mean for the job: its exit code, the reason in words, and whether a new start may help.

outcome = outcome_of(ends, stop_requested=False); again, why = limit.may_restart(newest_checkpoint)
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from launch.exit_codes import MEANING, ExitCode

# So many failures in a row without a new checkpoint are a crash loop, whatever --restarts allows.
CRASH_LOOP = 3
_STOPPED_BEFORE_SAVING = (-signal.SIGTERM, -signal.SIGUSR1, ExitCode.RANK_LOST)


@dataclass(frozen=True)
class RankEnd:
    """How a rank ended. code: its exit code, or minus the number of the signal that killed it. how: where no code says
    it."""

    rank: int
    node: str
    code: int
    how: str = ""

    def __str__(self) -> str:
        who = f"rank {self.rank} on {self.node}"
        if self.how:
            return f"{who} {self.how}"
        if self.code < 0:
            return f"{who} was killed by {signal.Signals(-self.code).name}"
        return f"{who} ended with {self.code}: {MEANING.get(self.code, 'an error that its log tells')}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its exit code, and the reason in words for the user."""

    code: int
    reason: str


def outcome_of(ends: Sequence[RankEnd], *, stop_requested: bool) -> Outcome:
    """One code for all ranks. ends: in the order in which they ended.

    A rank's own failure counts before what it did to the others; a rank that a stop signal caught before it could save
    leaves the last checkpoint, which is what being stopped means.
    """
    failures = [end for end in ends if end.code not in (ExitCode.DONE, ExitCode.PREEMPTED)]
    causes = [end for end in failures if end.code > 0 and end.code != ExitCode.RANK_LOST]
    if causes:
        return Outcome(causes[0].code, str(causes[0]))
    if failures and stop_requested and all(end.code in _STOPPED_BEFORE_SAVING for end in failures):
        return Outcome(ExitCode.PREEMPTED, "stopped by a signal before it could save; the last checkpoint stands")
    if failures:
        cause = next((end for end in failures if end.code < 0 or end.how), failures[0])
        return Outcome(ExitCode.RANK_LOST, str(cause))
    if any(end.code == ExitCode.PREEMPTED for end in ends):
        return Outcome(ExitCode.PREEMPTED, "stopped by a signal, saved")
    return Outcome(ExitCode.DONE, "done")


class RestartLimit:
    """Counts failures, and those in a row after which the run's newest checkpoint was still the same."""

    def __init__(self, restarts: int) -> None:
        self._restarts = restarts
        self._used = self._failures_in_a_row = 0
        self._checkpoint: str | None = None

    def begin(self, newest_checkpoint: str) -> None:
        """As the ranks start; the name of the file, "" where there is none."""
        self._checkpoint = newest_checkpoint

    def may_restart(self, newest_checkpoint: str) -> tuple[bool, str]:
        """Counts a failure. Whether to start again, and why not (or the count, for the log)."""
        crash_loop = self.crash_loop(newest_checkpoint)
        if self._used >= self._restarts:
            return False, f"{self._used} of {self._restarts} restarts are used" if self._restarts else ""
        if crash_loop:
            return False, crash_loop
        self._used += 1
        return True, f"restart {self._used} of {self._restarts}"

    def crash_loop(self, newest_checkpoint: str) -> str:
        """Counts a failure; why it is one too many of those in a row that brought no new checkpoint, else ""."""
        self._failures_in_a_row = self._failures_in_a_row + 1 if newest_checkpoint == self._checkpoint else 0
        if self._failures_in_a_row < CRASH_LOOP:
            return ""
        newest = f"the newest is still {newest_checkpoint}" if newest_checkpoint else "there is none"
        return f"{CRASH_LOOP} starts in a row brought no new checkpoint ({newest}): a crash loop, not an accident"
