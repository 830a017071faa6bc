"""The benchmarks run as `make bench` runs them, on small sets: what they write, and what it means."""

import json
import math
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from data.index import load_index
from tests.benchmarks.figure import Figure
from tests.benchmarks.groups import GROUPS, measure_group
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.benchmarks.photos import with_copies
from tests.benchmarks.remote import fetched_share
from tests.range_server import serve

REPOSITORY = Path(__file__).resolve().parents[1]


def run_benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False)


def test_bench_json_holds_one_number_per_name_and_the_table_shows_each(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = run_benchmarks("planning", "--quick", "--out", str(out))
    assert done.returncode == 0, done.stderr
    numbers = json.loads(out.read_text())
    assert {"plan_seconds", "plan_mb", "resume_seconds"} <= set(numbers)
    assert all(isinstance(value, float) and math.isfinite(value) and value > 0 for value in numbers.values())
    assert [name for name in numbers if name not in done.stdout] == []
    assert str(out) in done.stdout


def test_an_unknown_group_is_refused_with_the_names_of_those_that_exist(tmp_path: Path) -> None:
    done = run_benchmarks("loadr", "--out", str(tmp_path / "bench.json"))
    assert done.returncode == 2
    assert "'loadr'" in done.stderr
    assert all(group in done.stderr for group in GROUPS)
    assert not (tmp_path / "bench.json").exists()


def test_one_process_steps_are_compared_with_a_bare_loop() -> None:
    figures = {figure.name: figure for figure in measure_group("step", quick=True)}
    assert figures["step_vs_bare"].target == 1.03
    # The very same training: far from one, the two loops would not do the same work.
    assert 0.5 < figures["step_vs_bare"].value < 2
    for figure in figures.values():
        assert figure.interval is not None
        assert figure.interval[0] <= figure.value <= figure.interval[1]


@pytest.mark.parametrize(
    ("value", "at_least", "met"), [(2.5, True, True), (2.4, True, False), (2.5, False, True), (2.6, False, False)]
)
def test_a_target_is_a_bound_from_above_or_below(value: float, at_least: bool, met: bool) -> None:
    assert Figure("name", value, target=2.5, at_least=at_least).met is met


def test_no_promise_is_neither_kept_nor_broken_and_nan_keeps_none() -> None:
    assert Figure("name", 1.0).met is None
    assert Figure("name", math.nan, target=1.0).met is False


def test_a_burst_in_a_few_pairs_does_not_move_the_median_ratio() -> None:
    one, other = np.full(40, 3.0), np.full(40, 2.0)
    one[:5] *= 10
    ratio, (low, high) = median_ratio(one, other)
    assert (ratio, low, high) == (1.5, 1.5, 1.5)


def test_ways_take_turns_and_each_gets_its_own_time() -> None:
    calls: list[str] = []

    def work(name: str, seconds: float) -> None:
        calls.append(name)
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    seconds = timed_in_turn([lambda: work("slow", 0.02), lambda: work("fast", 0.002)], rounds=4)
    assert calls == ["slow", "fast", "fast", "slow"] * 2
    assert (seconds[:, 0] > 3 * seconds[:, 1]).all()


def test_the_server_sends_the_range_that_was_asked_for_and_counts_it(tmp_path: Path) -> None:
    data = os.urandom(5000)
    (tmp_path / "file").write_bytes(data)
    with serve(tmp_path) as server:
        for asked, expected in (("bytes=100-199", data[100:200]), ("bytes=4990-", data[4990:])):
            request = urllib.request.Request(f"{server.url}/file", headers={"Range": asked})
            with urllib.request.urlopen(request) as answer:
                assert (answer.status, answer.read()) == (206, expected)
        assert (server.sent_bytes, server.num_requests) == (110, 2)
        with urllib.request.urlopen(f"{server.url}/file") as answer:
            assert answer.read() == data
        assert server.sent_bytes == 5110


def test_a_rank_of_a_remote_set_fetches_little_more_than_its_share(tiny_shards: Path, tmp_path: Path) -> None:
    copies = with_copies(load_index(tiny_shards / "train"), tmp_path / "shards", num_shards=3, times=4)
    ratio, _ = fetched_share(copies, tmp_path / "cache", block=1000, lanes=2, window=8)
    # Photos of 2 kB in pages of 4 kB and a row of the index for each: much overhead, far from the other rank's part.
    assert 1.0 <= ratio < 1.6
