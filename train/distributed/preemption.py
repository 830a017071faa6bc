"""SIGTERM and SIGUSR1 ask a run to finish its step, save and exit.

with StopSignal() as stop: ...; stop.requested()
"""

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignal:
    """Remembers, while the block runs, that a signal came; afterwards the handlers of before are back, so that a run
    inside a notebook or a test leaves the process as it was. Only the main thread can take signals: ValueError in
    another. more: signals that ask for the same."""

    def __init__(self, *more: signal.Signals) -> None:
        self._signals = (signal.SIGTERM, signal.SIGUSR1, *more)
        self._before: dict[signal.Signals, Any] = {}
        self._requested = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._remember) for number in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python and cannot be put back by it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def requested(self) -> bool:
        return self._requested
