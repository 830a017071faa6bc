"""A process that stands still ends itself: the code for "stuck", every thread's stack on stderr, in time."""

import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.exit_codes import ExitCode
from tests.conftest import REPOSITORY, rank_environment
from train.distributed import watchdog as module
from train.distributed.flight_recorder import FlightRecorder
from train.distributed.watchdog import Watchdog

STALLS = {
    "in the main thread": "time.sleep(60)",
    "in a lock": "threading.Lock().acquire() and threading.Event().wait()",
    "beside a collective that came to its end": "with RECORDER.wait(): pass\n    time.sleep(60)",
    "with signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); time.sleep(60)",
}


def run(code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    header = (
        "import ctypes, signal, threading, time, torch\n"
        "from train.distributed import watchdog as module\n"
        "from train.distributed.flight_recorder import FlightRecorder\n"
        "from train.distributed.watchdog import Watchdog\n"
        "RECORDER = FlightRecorder()\n"
    )
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
        "RECORDER.record('bucket1', torch.zeros(12))\n"
        "with Watchdog(0.5, rank=3, flight_recorder=RECORDER) as watchdog:\n"
        "    watchdog.feed('epoch 2 step 17')\n"
        "    the_function_that_hangs()\n"
    )
    result, seconds = run(code)
    assert result.returncode == ExitCode.STUCK == 76
    assert seconds < 8
    assert "rank 3: no progress for" in result.stderr
    assert "epoch 2 step 17" in result.stderr
    assert "the_function_that_hangs" in result.stderr
    assert "rank 3: the last collective that it started: bucket1 (12,) float32\n" in result.stderr
    assert result.stderr.rstrip().splitlines()[-1].startswith("rank 3: exit 76: a step did not finish in time")


def test_a_process_that_is_fed_goes_on_and_ends_as_it_likes() -> None:
    result, _ = run(
        "with Watchdog(0.5, rank=0, flight_recorder=RECORDER) as watchdog:\n"
        "    for step in range(15):\n"
        "        watchdog.feed(f'step {step}'); time.sleep(0.1)\n"
        "time.sleep(1)\n"
        "print('done')\n"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_an_error_inside_passes_through() -> None:
    result, seconds = run("with Watchdog(60, rank=0, flight_recorder=RECORDER): raise ValueError('mine')\n")
    assert result.returncode == 1
    assert "ValueError: mine" in result.stderr
    assert seconds < 8


def test_what_happens_once_has_a_limit_of_its_own_and_the_next_step_has_not() -> None:
    result, seconds = run(
        "with Watchdog(0.4, rank=0, flight_recorder=RECORDER) as watchdog:\n"
        "    watchdog.feed('building', at_least=3); time.sleep(1.5)\n"
        "    watchdog.feed('step 0'); time.sleep(10)\n"
    )
    assert result.returncode == ExitCode.STUCK
    assert "in: step 0" in result.stderr
    assert 1.5 < seconds < 6


def test_a_rank_that_waits_for_others_leaves_them_time_to_speak_first() -> None:
    result, seconds = run(
        "module._WAITING_SECONDS = 3\n"
        "RECORDER.record('control', torch.zeros(2))\n"
        "with Watchdog(0.4, rank=0, flight_recorder=RECORDER) as watchdog:\n"
        "    watchdog.feed('step 0')\n"
        "    with RECORDER.wait(): time.sleep(20)\n"
    )
    assert result.returncode == ExitCode.STUCK
    assert (
        "the last collective that it started: control (2,) float32, and waits for the other ranks in it"
        in result.stderr
    )
    assert 3.4 < seconds < 12


def test_c_code_that_keeps_the_interpreter_to_itself_is_ended_with_its_stack() -> None:
    result, seconds = run(
        "module._GRACE_SECONDS = 1\n"
        "def the_function_that_hangs(): ctypes.PyDLL(None).sleep(60)\n"
        "with Watchdog(0.5, rank=0, flight_recorder=RECORDER) as watchdog: the_function_that_hangs()\n"
    )
    assert result.returncode == 1
    assert "the_function_that_hangs" in result.stderr
    assert 1.5 < seconds < 15


@pytest.mark.parametrize("seconds", [0.5, 60, 600, 6000])
def test_the_last_resort_fires_neither_early_nor_before_the_watchdog(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock of its own: the watchdog looks every `interval` seconds, faulthandler acts when it was told to."""
    clock = SimpleNamespace(now=0.0)
    deadlines: list[float] = []
    arm = SimpleNamespace(dump_traceback_later=lambda after, exit: deadlines.append(clock.now + after))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(module, "faulthandler", arm)
    watchdog = Watchdog(seconds, rank=0, flight_recorder=FlightRecorder())
    generator = random.Random(0)
    for _ in range(500):
        clock.now += generator.choice([0.001, 0.1, 1, seconds]) * generator.random()
        limit = max(seconds, at_least := generator.choice([0, 0, 0, 2 * seconds]))
        watchdog.feed("step", at_least=at_least)
        latest_end = clock.now + limit + module._WAITING_SECONDS + 2 * watchdog.interval
        assert deadlines[-1] > latest_end
    assert watchdog.interval <= 0.5  # seconds that the end of a stuck step may come late


ONE_IS_STUCK = """
import sys, time, torch
from train.cli.command import run_command
from train.distributed.watchdog import Watchdog

def the_function_that_hangs():
    time.sleep(60)

def work(comm):
    with Watchdog(4, rank=comm.rank, flight_recorder=comm.flight_recorder) as watchdog:
        comm.allreduce(torch.ones(3), name="first")
        time.sleep(comm.rank / 2)  # it began later, as after a slow read
        watchdog.feed("step 1")
        if comm.rank == 1:
            the_function_that_hangs()
        comm.allreduce(torch.ones(5), name="second")

sys.exit(run_command(work))
"""


def test_of_two_ranks_the_stuck_one_is_named_with_its_last_collective(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "launch.worker", "--ranks", "2", "--folder", str(tmp_path), "--"),
            *(sys.executable, "-c", ONE_IS_STUCK),
        ],
        env=rank_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == ExitCode.STUCK
    assert "worker: exit 76: rank 1 on " in result.stderr
    assert "[rank 1] rank 1: no progress for 4 s in: step 1\n" in result.stderr
    assert "[rank 1] rank 1: the last collective that it started: first (3,) float32\n" in result.stderr
    assert "the_function_that_hangs" in result.stderr
    assert "rank 0: no progress" not in result.stderr
