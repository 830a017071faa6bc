"""Loader processes: what they make, how their ends are told, and that none of it, and no wait, is without an end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest

from data.errors import BadArgument, DataError, LoaderLost
from data.loading import worker_processes as loader_processes
from data.loading.step_memory import Arrays, Layout, num_slots
from data.loading.worker_processes import side_by_side
from tests.conftest import REPOSITORY

ROWS = 6


@dataclass(frozen=True)
class Numbers:
    """Row i of step s is 10 s + i; each process fills every V-th row. at_three: what happens in step 3."""

    at_three: Callable[[], Any] | None = None

    @property
    def layout(self) -> Layout:
        return {"number": ((ROWS, 2), np.int64), "half": ((ROWS,), np.float16)}

    def start(self, worker: int, num_workers: int) -> "NumberMaker":
        return NumberMaker(self, worker, num_workers)


@dataclass(frozen=True)
class NumberMaker:
    numbers: Numbers
    worker: int
    num_workers: int

    def make(self, step: int, arrays: Arrays) -> tuple[int, int]:
        if step == 3 and self.numbers.at_three is not None and self.worker == self.num_workers - 1:
            self.numbers.at_three()
        rows = np.arange(self.worker, ROWS, self.num_workers)
        arrays["number"][rows] = (10 * step + rows)[:, None]
        arrays["half"][rows] = step / 2
        return step, self.worker

    def close(self) -> None:
        return None


def collect(at_three: Callable[[], Any] | None = None, *, workers: int = 2, limit: float = 60) -> list[int]:
    return [step for step, _, _ in side_by_side(Numbers(at_three), range(8), workers=workers, limit=limit)]


def expected(step: int) -> np.ndarray:
    return np.repeat(10 * step + np.arange(ROWS), 2).reshape(ROWS, 2)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_steps_come_in_order_with_all_rows_and_a_part_of_each_process(workers: int) -> None:
    for number, (step, arrays, parts) in enumerate(side_by_side(Numbers(), range(20), workers=workers)):
        assert step == number
        assert parts == [(step, worker) for worker in range(max(1, workers))]
        assert np.array_equal(arrays["number"], expected(step))
        assert np.array_equal(arrays["half"], np.full(ROWS, step / 2))
    assert number == 19


def test_kept_arrays_stay_as_they_are_and_dropped_ones_are_used_again() -> None:
    kept = [arrays["number"] for _, arrays, _ in side_by_side(Numbers(), range(20), workers=2)]
    assert all(np.array_equal(array, expected(step)) for step, array in enumerate(kept))
    places = {
        arrays["number"].__array_interface__["data"][0]
        for _, arrays, _ in side_by_side(Numbers(), range(40), workers=2)
    }
    assert len(places) <= 5


def test_a_view_of_an_array_keeps_its_memory() -> None:
    views = []
    for _, arrays, _ in side_by_side(Numbers(), range(20), workers=1):
        views.append(arrays["number"][2:3, 1:])
        del arrays
    assert [int(view.item()) for view in views] == [10 * step + 2 for step in range(20)]


@pytest.fixture
def children() -> Callable[[], list[psutil.Process]]:
    """Processes that were started since."""
    before = set(psutil.Process().children())
    return lambda: [child for child in psutil.Process().children() if child not in before]


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang_up() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, if the tests run under it, has it ignored
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (kill_itself, "was killed by SIGKILL, often for lack of memory"),
        (hang_up, "was killed by SIGHUP"),
        (lambda: os._exit(3), "ended with exit code 3"),
    ],
)
def test_a_process_that_ends_is_told_at_once(end: Callable[[], None], words: str) -> None:
    begin = time.monotonic()
    with pytest.raises(LoaderLost, match=f"^loader process 1 {words}, at step 3$"):
        collect(end)
    assert time.monotonic() - begin < 20  # not the limit


@pytest.mark.parametrize("end", [lambda: time.sleep(100), lambda: os.kill(os.getpid(), signal.SIGSTOP)])
def test_a_process_that_is_silent_ends_the_wait(
    end: Callable[[], None], children: Callable[[], list[psutil.Process]]
) -> None:
    with pytest.raises(LoaderLost, match=r"^loader process 1 was silent for 0.5 s, at step 3$"):
        collect(end, limit=0.5)
    assert not children()


def raising(error: Exception) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


class Stubborn(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FileNotFoundError(2, "no such shard"), OSError, "no such shard"),
        (DataError("two lists of classes"), DataError, "two lists"),
        (ConnectionResetError(104, "Connection reset by peer"), OSError, "reset by peer"),
        (Stubborn(1, 2), Exception, "1 and 2"),
    ],
)
def test_the_works_own_errors_pass(workers: int, error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        collect(raising(error), workers=workers)
    assert not isinstance(caught.value, LoaderLost)
    if workers:
        assert "in a loader process" in caught.value.__notes__[0]
        assert "make" in caught.value.__notes__[0]


def test_a_signal_to_the_whole_group_is_the_parents_alone(children: Callable[[], list[psutil.Process]]) -> None:
    steps = side_by_side(Numbers(), range(8), workers=2)
    next(steps)
    for child in children():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            child.send_signal(number)
    assert [step for step, _, _ in steps] == list(range(1, 8))
    assert not children()


def test_stopping_early_ends_the_processes(children: Callable[[], list[psutil.Process]]) -> None:
    steps = side_by_side(Numbers(), range(8), workers=2)
    next(steps)
    assert len(children()) == 2
    steps.close()  # type: ignore[attr-defined]
    assert not children()


ORPHANS = """
import os, sys, time
from data.loading.worker_processes import side_by_side
from tests.data.loading.test_worker_processes import Numbers
one = side_by_side(Numbers(), range(9), workers=2)
next(one)
two = side_by_side(Numbers(), range(9), workers=1)  # holds the pipes of the first ones, too
next(two)
import psutil
print(*[child.pid for child in psutil.Process().children()], flush=True)
time.sleep(100)
"""


def test_a_killed_parent_leaves_no_process_behind() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
    assert len(children) == 3
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


GIGA = 10**9


@pytest.mark.parametrize(("size", "free", "slots"), [(10, GIGA, 5), (GIGA // 8, GIGA, 4), (GIGA // 4, GIGA, 2)])
def test_fewer_steps_are_held_where_memory_is_short(size: int, free: int, slots: int) -> None:
    assert num_slots(size, free) == slots


def test_what_does_not_fit_is_refused_before_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_processes, "free_memory", lambda: 10_000)
    with pytest.raises(BadArgument, match=r"need 0 MB, but only 0 MB of memory are free; take a smaller batch size"):
        collect()


def test_short_memory_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loader_processes, "free_memory", lambda: 2 * 3 * 8192)
    assert collect() == list(range(8))
    assert capsys.readouterr().out == "note: memory is short: room for 3 batches, not 5\n"


FREED = """
import psutil
import torch
from data.loading.worker_processes import side_by_side
from tests.data.loading.test_worker_processes import Numbers
from train.distributed.device import keep_freed_memory

def megabytes():
    return psutil.Process().memory_info().rss / 2**20

keep_freed_memory()
before = megabytes()
blocks = [torch.ones(5 * 2**18) for _ in range(100)]  # 5 MB each
del blocks
kept = megabytes() - before
next(side_by_side(Numbers(), range(3), workers=1))
print(kept, megabytes() - before)
"""


def test_loader_processes_do_not_hold_what_their_parent_has_freed() -> None:
    command = [sys.executable, "-c", FREED]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    kept, left = map(float, done.stdout.split())
    assert kept > 400
    assert left < 100
