"""What the ends of the ranks mean for the job: its exit code, the reason in words, and whether a new start may help.

outcome = judge(ends, codes, stop_asked=False); again, why = limits.another(progress)
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# So many failures in a row without a new checkpoint are a crash loop, whatever --restarts allows.
LOOP = 3


@dataclass(frozen=True)
class Codes:
    """The exit codes that ranks and launcher agree on."""

    stopped: int  # by a signal, saved
    lost: int  # another rank is gone
    refused: int  # the command or the launch is wrong
    hopeless: frozenset[int]  # the same again would end the same
    meaning: Mapping[int, str]


@dataclass(frozen=True)
class RankEnd:
    """How a rank ended: its exit code, or minus the number of the signal that killed it. how: where no code tells."""

    rank: int
    node: str
    code: int
    how: str = ""

    def told(self, codes: Codes) -> str:
        who = f"rank {self.rank} on {self.node}"
        if self.how:
            return f"{who} {self.how}"
        if self.code < 0:
            return f"{who} was killed by {signal.Signals(-self.code).name}"
        meaning = codes.meaning.get(self.code, "an error that its log tells")
        return f"{who} ended with {self.code}: {meaning}"


@dataclass(frozen=True)
class Outcome:
    code: int
    reason: str


def judge(ends: Sequence[RankEnd], codes: Codes, *, stop_asked: bool) -> Outcome:
    """One code for all ranks, in the order in which they ended.

    A rank's own failure counts before what it did to the others; a rank that a stop signal caught before it could save
    leaves the last checkpoint, which is what being stopped means.
    """
    failures = [end for end in ends if end.code not in (0, codes.stopped)]
    causes = [end for end in failures if end.code > 0 and end.code != codes.lost]
    if causes:
        return Outcome(causes[0].code, causes[0].told(codes))
    if failures and stop_asked and all(end.code in _STOP_CODES or end.code == codes.lost for end in failures):
        return Outcome(codes.stopped, "stopped by a signal before it could save; the last checkpoint stands")
    if failures:
        cause = next((end for end in failures if end.code < 0 or end.how), failures[0])
        return Outcome(codes.lost, cause.told(codes))
    if any(end.code == codes.stopped for end in ends):
        return Outcome(codes.stopped, "stopped by a signal, saved")
    return Outcome(0, "done")


_STOP_CODES = (-signal.SIGTERM, -signal.SIGUSR1)


class RestartLimit:
    """Counts failures, and those in a row after which the run's newest checkpoint was still the same."""

    def __init__(self, restarts: int) -> None:
        self._restarts = restarts
        self._used = self._fruitless = 0
        self._progress: str | None = None

    def begin(self, progress: str) -> None:
        """The name of the newest checkpoint as the ranks start."""
        self._progress = progress

    def another(self, progress: str) -> tuple[bool, str]:
        """Whether to start again after a failure, and why not (or the count, for the log)."""
        loop = self.loop(progress)
        if self._used >= self._restarts:
            return False, f"{self._used} of {self._restarts} restarts are used" if self._restarts else ""
        if loop:
            return False, loop
        self._used += 1
        return True, f"restart {self._used} of {self._restarts}"

    def loop(self, progress: str) -> str:
        """Counts a failure; why it is one too many of those in a row that brought no new checkpoint, else ""."""
        self._fruitless = self._fruitless + 1 if progress == self._progress else 0
        if self._fruitless < LOOP:
            return ""
        newest = f"the newest is still {progress}" if progress else "there is none"
        return f"{LOOP} starts in a row brought no new checkpoint ({newest}): a crash loop, not an accident"
