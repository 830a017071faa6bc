"""Runs that an earlier version began go on: tests/fixtures/old_run was stopped by one after 4 of 6 steps.

It holds its shards, too, so that it is whole; `config.yaml` names everything by paths inside it.
"""

import shutil
from pathlib import Path

import pytest

from models.artifact import load_artifact
from train.checkpoint.progress import Progress
from train.checkpoint.store import CheckpointStore
from train.evaluate import main as evaluate
from train.main import main
from train.tracking.jsonl import read_lines

OLD_RUN = Path(__file__).parents[1] / "fixtures" / "old_run"


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(OLD_RUN, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_its_run_goes_on_to_the_end(old_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, state = CheckpointStore(old_run / "run/checkpoints").load(4)
    assert "waited" in state["progress"]  # what num_bad_epochs was called
    before = read_lines(old_run / "run/metrics.jsonl")
    assert main(["--config", "config.yaml"]) == 0
    assert "continues after step 4" in capfd.readouterr().out
    lines = read_lines(old_run / "run/metrics.jsonl")
    assert lines[: len(before)] == before
    assert [(line["kind"], line["step"]) for line in lines[len(before) :]] == [
        ("train", 4),
        ("train", 5),
        ("evaluation", 5),
    ]
    _, state = CheckpointStore(old_run / "run/checkpoints").load(6)
    assert state["progress"].keys() == vars(Progress()).keys()


def test_evaluations_without_a_better_one_are_remembered(old_run: Path) -> None:
    store = CheckpointStore(old_run / "run/checkpoints")
    tensors, state = store.load(4)
    store.save(tensors, {**state, "progress": {**state["progress"], "waited": 7, "best": 2.0}}, step=4)
    assert main(["--config", "config.yaml"]) == 0
    _, state = store.load(6)
    assert state["progress"]["num_bad_epochs"] == 7  # the last evaluation comes after this checkpoint


def test_its_model_and_its_shards_are_read(old_run: Path) -> None:
    student, meta = load_artifact("run/best")
    assert student.num_parameters == meta.num_parameters == 98_208
    assert evaluate(["--model", "run/best", "--data", "shards/val", "--workers", "0", "--device", "cpu"]) == 0
