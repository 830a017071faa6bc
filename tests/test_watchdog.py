"""A process that stands still ends itself: the code for "stuck", every thread's stack on stderr, in time."""

import subprocess
import sys
import time

import pytest

from tests.conftest import rank_environment
from train.exit_codes import ExitCode

STALLS = {
    "in the main thread": "time.sleep(60)",
    "in a lock": "threading.Lock().acquire() and threading.Event().wait()",
    "with signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); time.sleep(60)",
}


def run(code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    header = "import signal, threading, time\nfrom train.watchdog import Watchdog\n"
    begin = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", header + code], env=rank_environment(), capture_output=True, text=True, timeout=30
    )
    return result, time.monotonic() - begin


@pytest.mark.parametrize("stall", STALLS.values(), ids=STALLS)
def test_a_stall_ends_with_stacks_and_code_76(stall: str) -> None:
    code = (
        "def the_function_that_hangs():\n"
        f"    {stall}\n"
        "with Watchdog(0.5, rank=3, last_collective=lambda: 'bucket1 (12,) float32') as watchdog:\n"
        "    watchdog.feed('epoch 2 step 17')\n"
        "    the_function_that_hangs()\n"
    )
    result, seconds = run(code)
    assert result.returncode == ExitCode.STUCK == 76
    assert seconds < 8
    assert "rank 3: no progress for" in result.stderr
    assert "epoch 2 step 17" in result.stderr
    assert "the_function_that_hangs" in result.stderr
    assert "rank 3: the last collective that it started: bucket1 (12,) float32" in result.stderr
    assert result.stderr.rstrip().splitlines()[-1].startswith("rank 3: exit 76: a step did not finish in time")


def test_a_process_that_is_fed_goes_on_and_ends_as_it_likes() -> None:
    result, _ = run(
        "with Watchdog(0.5, rank=0) as watchdog:\n"
        "    for step in range(15):\n"
        "        watchdog.feed(f'step {step}'); time.sleep(0.1)\n"
        "time.sleep(1)\n"
        "print('done')\n"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_an_error_inside_passes_through() -> None:
    result, seconds = run("with Watchdog(60, rank=0): raise ValueError('mine')\n")
    assert result.returncode == 1
    assert "ValueError: mine" in result.stderr
    assert seconds < 8


def test_what_happens_once_has_a_limit_of_its_own_and_the_next_step_has_not() -> None:
    result, seconds = run(
        "with Watchdog(0.4, rank=0) as watchdog:\n"
        "    watchdog.feed('building', at_least=3); time.sleep(1.5)\n"
        "    watchdog.feed('step 0'); time.sleep(10)\n"
    )
    assert result.returncode == ExitCode.STUCK
    assert "in: step 0" in result.stderr
    assert 1.5 < seconds < 6
