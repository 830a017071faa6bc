"""Loader processes that die: at rest, at work, and while they hand over a batch; and what they hold of their parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset
from torch.utils.data._utils import signal_handling

from data.errors import DataError, LoaderLost
from data.loader_processes import from_processes
from tests.conftest import REPOSITORY


class Numbers(Dataset[Any]):
    def __init__(self, at_three: Any = None) -> None:
        self.at_three = at_three

    def __getitem__(self, number: int) -> Any:
        if number == 3 and self.at_three is not None:
            return self.at_three()
        return number, torch.full((1000,), number)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


class ArrivesAs:
    """Raises the error when the receiving process unpacks it, as a broken hand-over of shared memory does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return _throw, (self.error,)


def _throw(error: Exception) -> None:
    raise error


def _raise_missing() -> None:
    raise FileNotFoundError(2, "no such shard")


def _raise_data_error() -> None:
    raise DataError("two lists of classes")


def _broken_pipe() -> ArrivesAs:
    return ArrivesAs(ConnectionResetError(104, "Connection reset by peer"))


def _cut_off() -> ArrivesAs:
    return ArrivesAs(EOFError())


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def collect(dataset: Dataset[Any]) -> list[int]:
    return [number for number, _ in from_processes(dataset, workers=2, sampler=range(8))]


def test_items_come_in_order_and_as_they_are() -> None:
    assert collect(Numbers()) == list(range(8))
    assert list(from_processes(Stream(), workers=1)) == list(range(5))


def test_a_killed_process_is_named() -> None:
    with pytest.raises(LoaderLost, match=r"^a loader process died: .*pid.* exited unexpectedly$"):
        collect(Numbers(_kill_itself))


@pytest.mark.parametrize(
    ("hand_over", "seen"), [(_broken_pipe, "ConnectionResetError: .*reset by peer"), (_cut_off, "EOFError")]
)
def test_a_process_that_dies_while_it_hands_over_is_lost_too(hand_over: Any, seen: str) -> None:
    """It is no error of a file: the connection to the process broke."""
    with pytest.raises(LoaderLost, match=f"^a loader process died while it handed over a batch .{seen}"):
        collect(Numbers(hand_over))


@pytest.mark.parametrize(
    ("own", "kind", "words"), [(_raise_missing, OSError, "no such shard"), (_raise_data_error, DataError, "two lists")]
)
def test_the_data_sets_own_errors_pass(own: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        collect(Numbers(own))
    assert not isinstance(caught.value, LoaderLost)


def test_no_handler_stays_that_raises_wherever_the_program_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)  # torch sets it once in a process
    before = signal.getsignal(signal.SIGCHLD)
    items = from_processes(Numbers(), workers=1, sampler=range(8))
    next(items)
    assert signal.getsignal(signal.SIGCHLD) is before
    items.close()  # type: ignore[attr-defined]


FREED = """
import psutil
import torch
from data.loader_processes import from_processes
from train.allocator import keep_freed_memory

def megabytes():
    return psutil.Process().memory_info().rss / 2**20

keep_freed_memory()
before = megabytes()
blocks = [torch.ones(5 * 2**18) for _ in range(100)]  # 5 MB each
del blocks
kept = megabytes() - before
next(from_processes(list(range(3)), workers=1))
print(kept, megabytes() - before)
"""


def test_loader_processes_do_not_hold_what_their_parent_has_freed() -> None:
    command = [sys.executable, "-c", FREED]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    kept, left = map(float, done.stdout.split())
    assert kept > 400
    assert left < 100
