"""What a user is told about a pruning beside its numbers."""

from pathlib import Path

import numpy as np

from data.loading.image_sets import FileImages, ImageSubset
from models.formats.latency import Latency
from prune.goal import Goal
from prune.report import change_table, latency_warnings, recalibration_warnings


def measured(milliseconds: float) -> Latency:
    return Latency(milliseconds, "a calculation", threads=1, image_size=32)


def test_a_network_that_got_slower_is_said_with_what_helps() -> None:
    ratio = Goal(ratio=0.3)
    assert latency_warnings(measured(0.24), measured(0.24), goal=ratio, multiple=1) == []
    [odd] = latency_warnings(measured(0.239), measured(0.597), goal=ratio, multiple=12)
    assert odd == "slower than before: 0.597 ms against 0.239 ms; odd widths are slow: round them with --multiple 8"
    [even] = latency_warnings(measured(0.239), measured(0.597), goal=ratio, multiple=16)
    assert "odd" not in even


def test_a_latency_above_its_budget_is_shown_as_above_it() -> None:
    budget = Goal(budgets={"latency": 0.15})
    [warning] = latency_warnings(measured(0.3), measured(0.1501), goal=budget, multiple=8)
    assert "took 0.151 ms, more than the budget of 0.15:" in warning
    assert latency_warnings(measured(0.3), measured(0.15), goal=budget, multiple=8) == []


def test_the_table_tells_latencies_below_a_millisecond_apart() -> None:
    same = {"before": 10, "after": 10}
    latency = {"before": 0.151, "after": 0.149, "runtime": "a calculation", "threads": 1}
    table = change_table({"layers": [], "parameters": same, "macs": {**same, "image_size": 32}, "latency_ms": latency})
    assert list(table.columns[2].cells)[-1] == "0.151"
    assert list(table.columns[3].cells)[-1] == "0.149"


def test_each_batch_of_a_sample_has_photos_from_all_over_the_set() -> None:
    """Ten classes, one after the other, as folders of classes leave them."""
    photos = FileImages(Path(), [f"{number // 100}/{number % 100}.jpg" for number in range(1000)])
    sample = ImageSubset(photos, count=200, shuffled=True)
    names = [sample.name(0, number)[1] for number in range(int(sample.counts[0]))]
    assert len(set(names)) == 200
    assert [np.sum([name.startswith(f"{digit}/") for name in names]) for digit in range(10)] == [20] * 10
    assert {name[0] for name in names[:50]} == set("0123456789")
    again = ImageSubset(photos, count=200, shuffled=True)
    assert [again.name(0, number)[1] for number in range(200)] == names


def test_fewer_photos_for_the_statistics_than_were_asked_for_are_said() -> None:
    assert recalibration_warnings(128, 128, data="shards") == []
    [some] = recalibration_warnings(100, 128, data="shards")
    assert some == "--recalibrate asked for 128 photos, shards has 100 that could be used"
    [none] = recalibration_warnings(0, 128, data="shards")
    assert "fewer than two photos of shards" in none
