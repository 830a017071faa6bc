"""SIGTERM and SIGUSR1 ask a run to finish its step, save and exit.

stop = StopSignal(); stop.wanted()
"""

import signal
from types import FrameType


class StopSignal:
    """Remembers that a signal came; the handlers stay for the life of the process."""

    def __init__(self) -> None:
        self._wanted = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._wanted = True

    def wanted(self) -> bool:
        return self._wanted
