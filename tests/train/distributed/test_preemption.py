"""A stop signal is remembered while a run listens, and belongs to the process again afterwards."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from train.distributed.preemption import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_remembered(number: signal.Signals) -> None:
    with StopSignal() as stop:
        assert not stop.requested()
        os.kill(os.getpid(), number)
        assert stop.requested()


def test_more_signals_can_ask_for_the_same() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignal(signal.SIGINT) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handlers_of_before_come_back_also_after_an_error() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        stop = StopSignal()
        with contextlib.suppress(ValueError), stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            raise ValueError("mine")
        assert stop.requested()
        assert heard == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_after_a_run_sigterm_ends_the_process_again() -> None:
    """In a process of its own, whose SIGTERM has the default action."""
    code = (
        "import os, signal\n"
        "from train.distributed.preemption import StopSignal\n"
        "with StopSignal() as stop: os.kill(os.getpid(), signal.SIGTERM); assert stop.requested()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('still here')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "")
