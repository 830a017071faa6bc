"""JSON lines that survive a kill and can be cut back to a step."""

import json
import os
from pathlib import Path

import pytest

from train.tracking.jsonl import JsonLines, cut_lines, read_lines, without_nan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "metrics.jsonl"


def write(path: Path, steps: list[int]) -> None:
    lines = JsonLines(path, sync=True)
    for step in steps:
        lines.write({"step": step, "loss": step / 2})
    lines.close()


def test_a_line_is_there_when_write_returns(path: Path) -> None:
    lines = JsonLines(path, sync=True)
    lines.write({"step": 0, "loss": 1.5})
    assert read_lines(path) == [{"step": 0, "loss": 1.5}]
    lines.write({"step": 1, "loss": 1.25})
    assert len(read_lines(path)) == 2


def test_writing_again_appends(path: Path) -> None:
    write(path, [0, 1])
    write(path, [2])
    assert [line["step"] for line in read_lines(path)] == [0, 1, 2]


def test_what_has_no_number_is_null(path: Path) -> None:
    lines = JsonLines(path, sync=False)
    lines.write({"step": 0, "top1": float("nan"), "loss": float("inf"), "note": "NaN"})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "step": 0,
        "top1": None,
        "loss": None,
        "note": "NaN",
    }
    assert without_nan({"a": float("nan"), "b": 0.0}) == {"a": None, "b": 0.0}


@pytest.mark.parametrize("bytes_left", range(1, 12))
def test_a_last_line_that_a_kill_cut_is_left_out(path: Path, bytes_left: int) -> None:
    write(path, [0, 1])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 2, "loss": 1.0}\n'[:bytes_left])
    assert [line["step"] for line in read_lines(path)] == [0, 1]


def test_cutting_leaves_the_lines_before_a_step(path: Path) -> None:
    write(path, [0, 5, 10, 15])
    with path.open("a") as file:
        file.write('{"step": 2')
    cut_lines(path, before_step=10)
    assert [line["step"] for line in read_lines(path)] == [0, 5]
    write(path, [10])
    assert [line["step"] for line in read_lines(path)] == [0, 5, 10]
    assert sorted(os.listdir(path.parent)) == ["metrics.jsonl"]


def test_cutting_what_is_not_there_makes_no_file(path: Path) -> None:
    cut_lines(path, before_step=3)
    assert read_lines(path) == []
    assert not path.exists()
