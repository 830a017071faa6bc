"""Ends a process that makes no progress: writes every thread's stack, then exits with the code for "stuck".

with Watchdog(600, rank=0, flight_recorder=comm.flight_recorder) as watchdog:
    watchdog.feed("step 17")
"""

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType

from launch.exit_codes import MEANING, ExitCode
from train.distributed.flight_recorder import FlightRecorder

# A thread of ours cannot run while C code holds the interpreter's lock; faulthandler's can, but only exits with 1.
_GRACE_SECONDS = 30.0
# Much less than the grace, however long the limit: so late our thread may be, and faulthandler's clock behind ours.
_LONGEST_INTERVAL_SECONDS = 0.5
# Ranks that wait for a stuck one were fed at the same time: that one is to speak, and to be named, before they do.
_WAITING_SECONDS = 1.5


class Watchdog:
    """Feed it at least every `seconds`; what it was fed last is named in its report, and so is the last collective.

    What happens once, as building the model or reading a checkpoint from afar, is fed with a limit of its own.
    """

    def __init__(self, seconds: float, *, rank: int, flight_recorder: FlightRecorder) -> None:
        self.seconds, self.rank, self._flight_recorder = seconds, rank, flight_recorder
        self.interval = min(seconds / 20, _LONGEST_INTERVAL_SECONDS)
        self._activity, self._fed = "start", time.monotonic()
        self._limit, self._armed = seconds, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def feed(self, activity: str, *, at_least: float = 0.0) -> None:
        """Progress: `activity` begins and has `seconds` or, where that is more, `at_least` seconds to end."""
        limit = max(self.seconds, at_least)
        self._activity, self._fed = activity, time.monotonic()
        if limit != self._limit or self._fed - self._armed > self.interval:
            self._armed, self._limit = self._fed, limit
            faulthandler.dump_traceback_later(limit + _GRACE_SECONDS, exit=True)

    def __enter__(self) -> "Watchdog":
        self.feed("start")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._done.wait(self.interval):
            quiet = time.monotonic() - self._fed
            if quiet > self._limit + (_WAITING_SECONDS if self._flight_recorder.waiting else 0.0):
                self._end(quiet)

    def _end(self, quiet: float) -> None:
        waits = ", and waits for the other ranks in it" if self._flight_recorder.waiting else ""
        print(f"rank {self.rank}: no progress for {quiet:.0f} s in: {self._activity}", file=sys.stderr)
        print(
            f"rank {self.rank}: the last collective that it started: {self._flight_recorder.last()}{waits}",
            file=sys.stderr,
        )
        faulthandler.dump_traceback(all_threads=True)
        print(f"rank {self.rank}: exit {ExitCode.STUCK.value}: {MEANING[ExitCode.STUCK]}", file=sys.stderr, flush=True)
        os._exit(ExitCode.STUCK)
