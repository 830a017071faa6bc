"""A file lock belongs to one process, ends with it however it ends, and is not inherited by what it forks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from launch.file_lock import FileLock, is_locked
from tests.conftest import rank_environment

HOLDER = """
import os, sys, time
from pathlib import Path
from launch.file_lock import FileLock
assert FileLock(Path(sys.argv[1])).acquire()  # the object is dropped at once
child = os.fork() if "fork" in sys.argv else None
if child == 0:
    time.sleep(100)
print(child, flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(another process that holds the lock until it reads a line or is killed, what it printed)."""
    command = [sys.executable, "-c", HOLDER, str(path), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=rank_environment(), text=True, stdin=pipe, stdout=pipe) as process:
        try:
            yield process, of(process.stdout).readline()
        finally:
            process.kill()


def of(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def test_a_lock_that_another_process_holds_is_refused_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as (process, _), FileLock(path) as lock:
        assert not lock.acquire()
        of(process.stdin).write("\n")
        of(process.stdin).flush()
        assert process.wait(10) == 0
        assert lock.acquire()


@pytest.mark.timeout(30)
def test_waiting_ends_when_the_other_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as (process, _), FileLock(path) as lock:
        subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({process.pid}, 9)"])
        assert lock.acquire(wait=True)
        assert process.wait(10) == -signal.SIGKILL


def test_a_forked_process_that_outlives_the_holder_does_not_hold_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "fork") as (process, child):
        process.kill()
        process.wait(10)
        try:
            with FileLock(path) as lock:
                assert lock.acquire()
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_who_asks_sees_the_lock_and_neither_takes_nor_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    with holder(path):
        assert is_locked(path)
    assert not is_locked(path)
    with FileLock(path) as lock:
        assert lock.acquire()


def test_closing_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path) as lock:
        assert lock.acquire()
    with holder(path) as (_, output):
        assert output == "None\n"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "nowhere/lock")
