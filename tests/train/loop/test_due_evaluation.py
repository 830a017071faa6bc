"""An epoch's checkpoint comes before its evaluation: whatever ends an evaluation, the epoch is not trained again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.edited_json import read_json
from tests.end_to_end.test_resume import fingerprint
from tests.small_run import STEPS, Outcome, train_small
from train import run
from train.checkpoint.model_saver import ModelSaver
from train.checkpoint.store import CheckpointStore
from train.distributed.preemption import StopSignal
from train.tracking.tracker import Tracker

EPOCHS = 2


class Killed(Exception):
    """Stands for a death at that very place."""


@pytest.fixture(scope="module")
def shards(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photo of the validation set is damaged, so that evaluations have a line in bad_samples.jsonl, too."""
    folder = tmp_path_factory.mktemp("damaged") / "shards"
    shutil.copytree(tiny_shards, folder)
    tar = folder / "val/val-000.tar"
    content = bytearray(tar.read_bytes())
    content[600:700] = bytes(100)
    tar.write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    outcome = train_small(shards, tmp_path_factory.mktemp("undisturbed"))
    assert outcome.exit_code == 0, outcome.stderr
    assert [line["split"] for line in outcome.lines("bad_samples.jsonl")] == ["val"]
    return outcome


def dies(call: Callable[..., Any], *, at: int, afterwards: bool = False) -> Callable[..., Any]:
    """The same function, that dies at one of its calls (from 1), or right after it."""
    count = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and not afterwards:
            raise Killed
        result = call(*arguments, **named)
        if count == at:
            raise Killed
        return result

    return wrapped


def assert_as_if_undisturbed(ours: Outcome, theirs: Outcome) -> None:
    assert ours.exit_code == 0, ours.stderr
    assert fingerprint(ours.run) == fingerprint(theirs.run)
    assert ours.lines("bad_samples.jsonl") == theirs.lines("bad_samples.jsonl")
    described = [json.dumps(read_json(one.run / "best/model.json")) for one in (ours, theirs)]
    assert described[0].replace(str(ours.run), "RUN") == described[1].replace(str(theirs.run), "RUN")


@pytest.mark.parametrize(
    ("place", "epoch"), [("measuring", 1), ("its line is written", EPOCHS), ("the best model is saved", 1)]
)
def test_a_death_in_an_evaluation_costs_no_training(
    place: str, epoch: int, shards: Path, tmp_path: Path, undisturbed: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "measuring":
        monkeypatch.setattr(run, "evaluate", dies(run.evaluate, at=epoch))
    elif place == "its line is written":
        evaluations = dies(lambda: None, at=epoch)
        log = Tracker.log

        def logged(self: Tracker, record: Any) -> None:
            log(self, record)
            if record["kind"] == "evaluation":
                evaluations()

        monkeypatch.setattr(Tracker, "log", logged)
    else:
        monkeypatch.setattr(ModelSaver, "save", dies(ModelSaver.save, at=1, afterwards=True))
    with pytest.raises(Killed):
        train_small(shards, tmp_path)
    monkeypatch.undo()
    assert CheckpointStore(tmp_path / "run/checkpoints").steps()[0] == epoch * STEPS
    assert_as_if_undisturbed(train_small(shards, tmp_path), undisturbed)


def test_it_dies_again_without_training_again(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation set that cannot be measured is said at once, not after another epoch."""
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(run, "evaluate", dies(run.evaluate, at=1))
            with pytest.raises(Killed):
                train_small(shards, tmp_path)
        assert CheckpointStore(tmp_path / "run/checkpoints").steps() == [STEPS, STEPS - 1]
    assert len((tmp_path / "run/trace-rank0.jsonl").read_text().splitlines()) == STEPS


def test_a_stop_at_an_epochs_end_leaves_its_evaluation_to_the_next_start(
    shards: Path, tmp_path: Path, undisturbed: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10_000))
    monkeypatch.setattr(StopSignal, "requested", lambda self: next(calls) >= STEPS - 1)
    stopped = train_small(shards, tmp_path)
    assert stopped.exit_code == 75
    assert [line["kind"] for line in stopped.lines("metrics.jsonl")] == ["train"] * STEPS
    monkeypatch.undo()
    assert_as_if_undisturbed(train_small(shards, tmp_path), undisturbed)


def test_patience_counts_the_evaluation_that_was_due(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that do not move are never better than at first: patience is out after the second epoch."""
    still = ("model.freeze=[backbone]", "optimizer.lr=1e-20", "schedule.patience=1", "schedule.epochs=9")
    monkeypatch.setattr(run, "evaluate", dies(run.evaluate, at=2))
    with pytest.raises(Killed):
        train_small(shards, tmp_path, *still)
    monkeypatch.undo()
    outcome = train_small(shards, tmp_path, *still)
    assert outcome.exit_code == 0, outcome.stderr
    kinds = [line["epoch"] for line in outcome.lines("metrics.jsonl") if line["kind"] == "evaluation"]
    assert kinds == [0, 1]
    assert len(outcome.lines("trace-rank0.jsonl")) == 2 * STEPS
