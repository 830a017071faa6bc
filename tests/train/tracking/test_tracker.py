"""The JSONL is the truth; W&B gets the same under one id across restarts, and its failures end nothing."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb

from tests.conftest import rank_environment
from tests.small_run import STEPS, train_small
from tests.wandb_server import WandbServer
from train.distributed.preemption import StopSignal
from train.tracking.tracker import describe_record, readable_rate, readable_seconds
from train.tracking.wandb_logger import WandbLogger, new_run_id

OFFLINE = "tracking.wandb.mode=offline"


def test_every_step_and_evaluation_is_in_the_jsonl(tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(tiny_shards, tmp_path)
    assert outcome.exit_code == 0, outcome.stderr
    lines = outcome.lines("metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(2 * STEPS))
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [STEPS - 1, 2 * STEPS - 1]
    for line in lines:
        expected = {"train": {"lr", "loss", "loss.tone", "colour.top1", "images_per_second", "gradient_norm"}}
        assert expected.get(line["kind"], {"mean_top1", "tone.macro_f1", "colour.majority"}) <= line.keys()
    assert "epoch 2/2 step 6  loss " in outcome.stdout
    assert "validation: colour" in outcome.stdout


def test_wandb_that_cannot_start_does_not_end_the_run(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise ConnectionError("no network today")

    monkeypatch.setattr(wandb, "init", refuse)
    outcome = train_small(tiny_shards, tmp_path, "tracking.wandb.mode=online")
    assert outcome.exit_code == 0
    assert "W&B failed and is switched off for this run: ConnectionError: no network today" in outcome.stderr
    assert outcome.stderr.count("W&B failed") == 1
    assert (outcome.run / "result.json").exists()


class BreakingRun:
    """A W&B run whose `broken` call fails."""

    id = "abc"

    def __init__(self, broken: str) -> None:
        self._broken, self.calls = broken, []

    calls: list[str]

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self._broken:
            raise RuntimeError(f"{name} is broken")

    def define_metric(self, *names: str, **options: str) -> None:
        self._call("define_metric")

    def log(self, values: dict[str, Any]) -> None:
        self._call("log")

    def log_artifact(self, artifact: object) -> None:
        self._call("log_artifact")

    def finish(self) -> None:
        self._call("finish")


@pytest.mark.parametrize("broken", ["define_metric", "log", "finish"])
def test_whatever_breaks_in_wandb_is_said_once(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = BreakingRun(broken)
    monkeypatch.setattr(wandb, "init", lambda **options: run)
    sink = WandbLogger(
        mode="offline", project="p", name=None, directory=tmp_path, run_id="abc", config={}, classes={"a": ("x", "y")}
    )
    for step in range(3):
        sink.log({"kind": "train", "step": step, "loss": 0.5})
    sink.finish(None)
    assert capfd.readouterr().err.count(f"RuntimeError: {broken} is broken") == 1
    assert run.calls.count(broken) == 1


def wandb_ids(run: Path) -> list[str]:
    """Offline runs lie in folders called offline-run-TIME-ID, and -1 behind it for another in the same second."""
    names = [path.name for path in (run / "wandb").iterdir()]
    return [found[1] for name in names if (found := re.match(r"offline-run-\d+_\d+-([0-9a-f]{8})(-\d+)?$", name))]


def test_pieces_of_an_offline_run_become_one_wherever_its_folder_is_sent_from(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    calls = iter(range(1000))
    monkeypatch.setattr(StopSignal, "requested", lambda self: next(calls) >= 2)
    first = train_small(tiny_shards, tmp_path, OFFLINE)
    assert first.exit_code == 75, first.stderr
    monkeypatch.setattr(StopSignal, "requested", lambda self: False)
    second = train_small(tiny_shards, tmp_path, OFFLINE)
    assert second.exit_code == 0, second.stderr
    assert "continues after step" in second.stdout
    assert f"(cd {second.run} && wandb sync wandb)" in second.stdout
    assert "W&B failed" not in first.stderr + second.stderr
    ids = wandb_ids(second.run)
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert not {"WANDB_DATA_DIR", "WANDB_CACHE_DIR"} & os.environ.keys()  # the next run's are other ones
    assert [path for path in home.rglob("*") if path.is_file()] == []

    moved = second.run.rename(tmp_path / "elsewhere")
    with WandbServer() as server:
        environment = {**rank_environment(), **server.environment, "HOME": str(tmp_path / "other-home")}
        environment.pop("WANDB_SERVICE", None)  # this process' own helper, which works in another folder
        done = subprocess.run(
            ["wandb", "sync", "wandb"], cwd=moved, env=environment, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.runs == {ids[0]}
    logged = [server.history[place] for place in sorted(server.history)]
    assert list(server.history) == list(range(len(logged)))
    assert [line["step"] for line in logged if "train/loss" in line] == list(range(2 * STEPS))
    assert [line["step"] for line in logged if "evaluation/mean_top1" in line] == [STEPS - 1, 2 * STEPS - 1]
    for name in ("model.json", "model.safetensors"):
        assert server.uploads[f"model-{ids[0]}/{name}"] == (moved / "best" / name).read_bytes()
    tables = [json.loads(data) for name, data in server.uploads.items() if name.startswith(f"run-{ids[0]}-")]
    assert sorted(len(table["data"]) for table in tables) == [4, 9]  # of tone and of colour
    assert f"model-{ids[0]}" in server.committed


def test_runs_have_ids_of_their_own() -> None:
    assert new_run_id() != new_run_id()


def test_where_the_user_wants_the_staged_copies_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", "/scratch/mine")
    seen: dict[str, str] = {}
    monkeypatch.setattr(wandb, "init", lambda **options: seen.update(os.environ) or BreakingRun(""))
    WandbLogger(mode="offline", project="p", name=None, directory=tmp_path, run_id="a", config={}, classes={})
    assert seen["WANDB_CACHE_DIR"] == os.environ["WANDB_CACHE_DIR"] == "/scratch/mine"
    assert seen["WANDB_DATA_DIR"] == str(tmp_path / "wandb")


def test_work_on_1500_classes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = 1500
    logged: list[dict[str, Any]] = []
    run = BreakingRun("")
    monkeypatch.setattr(run, "log", logged.append)
    monkeypatch.setattr(wandb, "init", lambda **options: run)
    names = {"item": [f"class {number}" for number in range(classes)]}
    sink = WandbLogger(mode="offline", project="p", name=None, directory=tmp_path, run_id="a", config={}, classes=names)
    matrix = np.diag(np.full(classes, 50.0))
    matrix[7, 3], matrix[2, 9] = 40.0, 30.0
    matrix[20:, 0] = 1.0
    began = time.process_time()
    sink.log({"kind": "evaluation", "step": 3, "confusion": {"item": matrix}})
    assert time.process_time() - began < 1.0  # 55 s for a table of every cell
    table = logged[0]["evaluation/100_worst_confusions.item"]
    assert table.data[:3] == [["class 7", "class 3", 40], ["class 2", "class 9", 30], ["class 20", "class 0", 1]]
    assert len(table.data) == 100


def test_wandb_gets_the_numbers_the_confusion_and_the_model(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, Any]] = []
    artifacts: list[Any] = []
    run = BreakingRun("")
    monkeypatch.setattr(run, "log", logged.append)
    monkeypatch.setattr(run, "log_artifact", artifacts.append)
    options: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **given: options.update(given) or run)
    outcome = train_small(tiny_shards, tmp_path, OFFLINE)
    assert "W&B failed" not in outcome.stderr
    assert options["mode"] == "offline"
    assert options["config"]["optimizer"]["lr"] == 0.02
    train_steps = [values["step"] for values in logged if "train/loss" in values]
    assert train_steps == list(range(2 * STEPS))
    assert all({"train/lr", "train/images_per_second"} <= values.keys() for values in logged if "train/loss" in values)
    (table, _) = (values["evaluation/confusion.tone"] for values in logged if "evaluation/mean_top1" in values)
    assert [row[:2] for row in table.data] == [[t, p] for t in ("dark", "bright") for p in ("dark", "bright")]
    assert sum(row[2] for row in table.data) == 10  # labelled samples of the validation set
    assert sorted(artifacts[0].manifest.entries) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_times_are_readable(seconds: float, text: str) -> None:
    assert readable_seconds(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.04, "0.04"), (0.46, "0.46"), (3.26, "3.3"), (9.99, "10"), (127.6, "128"), (12345.0, "12,345")]
)
def test_a_slow_run_is_not_at_0_images_a_second(rate: float, text: str) -> None:
    assert readable_rate(rate) == text
    record = {"kind": "train", "epoch": 0, "step": 0, "loss": 1.0, "lr": 0.1, "skipped_updates": 0, "seconds_left": 9}
    assert f"  {text} images/s  " in describe_record({**record, "images_per_second": rate}, [], 3)


def test_a_line_leaves_out_tasks_without_a_label() -> None:
    record = {"kind": "evaluation", "epoch": 0, "step": 4, "a.top1": 0.5, "a.count": 2.0, "b.top1": 0.0, "b.count": 0.0}
    assert describe_record(record, ["a", "b"], 3) == "epoch 1/3 step 5  validation: a 50.0 %"
