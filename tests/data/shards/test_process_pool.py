"""Jobs over worker processes: results in order, and an end in words when a process dies or hangs."""

import os
import signal
import time

import pytest

from data.errors import DataError, LoaderLost
from data.shards import process_pool as pool
from data.shards.process_pool import map_in_processes


def work(shared: int, item: int) -> int:
    if item == 3:
        if shared == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if shared == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        if shared == 3:
            raise DataError("the fourth is bad")
    return shared + item


def results(shared: int) -> list[int]:
    return list(map_in_processes(work, range(8), shared=shared, workers=2, what="Testing"))


def test_results_come_in_order() -> None:
    assert results(10) == list(range(10, 18))


def test_a_killed_process_is_told() -> None:
    with pytest.raises(LoaderLost, match=r"killed, often for lack of memory .--workers 1 needs least.$"):
        results(1)


def test_a_process_that_hangs_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "STUCK_SECONDS", 5.0)
    begin = time.monotonic()
    with pytest.raises(LoaderLost, match="a worker process gave nothing for 5 s"):
        results(2)
    assert time.monotonic() - begin < 60


def test_the_functions_own_error_passes() -> None:
    with pytest.raises(DataError, match="the fourth is bad"):
        results(3)
