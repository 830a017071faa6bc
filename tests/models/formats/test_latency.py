"""Times of models that are measured in turn."""

import time

from models.formats.latency import measure_milliseconds


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Way:
    """Slow where another one was called in between, as where its weights are in no cache."""

    last: "Way | None" = None

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds = milliseconds

    def __call__(self) -> None:
        busy((self.milliseconds + 50 * (Way.last is not self)) / 1000)
        Way.last = self


def test_times_are_those_of_calls_one_after_the_other() -> None:
    taken = measure_milliseconds({"slow": Way(4), "fast": Way(1)}, rounds=3)
    assert 4 <= taken["slow"] < 30
    assert 1 <= taken["fast"] < taken["slow"]


def test_a_busy_while_lengthens_no_time() -> None:
    calls = []

    def way() -> None:
        calls.append(0)
        busy(0.02 if len(calls) < 60 else 0.001)

    assert measure_milliseconds({"one": way}, rounds=6)["one"] < 15


def test_it_ends_after_its_seconds_and_tells_of_each_round() -> None:
    told: list[int] = []
    measure_milliseconds({"one": lambda: busy(0.001)}, rounds=4, progress=told.append)
    assert told == [1] * 4
    told.clear()
    measure_milliseconds({"one": lambda: busy(0.001)}, rounds=10_000, seconds=0.05, progress=told.append)
    assert 1 <= len(told) < 100
