"""A run whose updates are skipped one after another ends with words and code 70; nothing is left that looks trained."""

import json
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from data.loading.batch import Batch
from launch.exit_codes import HOPELESS, ExitCode
from models.artifact import load_artifact, save_artifact
from tests.conftest import REPOSITORY, RankRun, rank_environment
from tests.small_run import STEPS, Outcome, small_config, train_small
from tests.tiny_models import save_tiny_model
from train.distributed.comm import SingleProcess
from train.distributed.preemption import StopSignal
from train.errors import NumbersExploded
from train.evaluation.ensemble import Predictor
from train.loop.skipped_updates import SkipLimit
from train.loop.train_metrics import TrainMetrics
from train.losses.objective import Objective, label_term
from train.optim.grad_scaler import LossScale

CPU = torch.device("cpu")
GOOD, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)
EXPLODES = ["optimizer.lr=1e30", "schedule.epochs=8", "schedule.decay=constant", "data.val="]


@dataclass
class Kept:
    num_updates: int = 0
    skipped_in_epoch: int = 0
    skipped_row: int = 0
    skipped_since: int = 0
    skipped_terms: Sequence[str] = ()


class Steps:
    """Steps of an epoch, "." made and "x" skipped, with a log line where a space stands."""

    def __init__(
        self, *, steps_per_epoch: int = 1000, kept: Kept | None = None, scale: LossScale | None = None
    ) -> None:
        self.kept = kept or Kept()
        self.objective = Objective([label_term("age"), label_term("tone")])
        self.metrics = TrainMetrics(self.objective, ["age"], CPU)
        self.metrics.continue_row(self.kept.skipped_row, self.kept.skipped_since, self.kept.skipped_terms)
        self.limit = SkipLimit(self.kept, steps_per_epoch=steps_per_epoch)
        self.scale, self.step = scale, 0

    def run(self, steps: str, *, broken: int | None = 1, comm: SingleProcess | None = None) -> "Steps":
        for part in steps.split():
            for mark in part:
                self._one(SKIPPED if mark == "x" else GOOD, broken)
            num_steps = self.metrics.num_steps
            self.metrics.read(comm or SingleProcess())
            self.limit.judge(
                self.metrics.skips, num_steps=num_steps, epoch=0, epoch_ends=part.endswith(";"), learning_rate=0.5
            )
        return self

    def _one(self, skipped: torch.Tensor, broken: int | None) -> None:
        sums = torch.ones(2)
        if skipped and broken is not None:
            sums[broken] = math.nan
        batch = batch_of(0)
        self.metrics.add(sums, {"age": torch.zeros(0, 3)}, batch)
        self.metrics.count(batch, [1.0, 1.0], 1, step=self.step)
        searching = None if self.scale is None else self.scale.can_fall
        if self.scale is not None:
            self.scale.adapt(skipped)
        self.metrics.end_step(
            torch.tensor(math.nan) if skipped else torch.tensor(2.0), skipped, searching=searching, step=self.step
        )
        self.step += 1


def batch_of(count: int) -> Batch:
    rows = torch.arange(count)
    label = torch.zeros(count, dtype=torch.int64)
    image = torch.zeros(count, 2, 2, 3, dtype=torch.uint8)
    names = [str(row) for row in rows]
    return Batch(0, 0, image, {"age": label}, {"age": label >= 0}, names, torch.stack([rows, rows], 1), rows, [])


@pytest.mark.parametrize("steps", ["x" * 10, "xxx xxx xxx x", "..xxxxx xxxxx", "xxxxxxxxxx..", ".x" * 4 + "x" * 9])
def test_ten_in_a_row_end_the_run_however_the_log_lines_cut_them(steps: str) -> None:
    with pytest.raises(NumbersExploded) as error:
        Steps().run(steps)
    first = steps.replace(" ", "").index("x" * 10) + 1
    assert f"10 updates in a row were skipped; the first at step {first}, where the loss of tone was" in str(
        error.value
    )
    assert "The learning rate is 0.5 now. Try a lower optimizer.lr" in str(error.value)


def test_nine_in_a_row_are_borne_and_so_are_ten_of_a_long_epoch() -> None:
    assert Steps().run("x" * 9 + ".x").kept.num_updates == 1
    assert Steps().run("xxx. xxx. xxx. x. ....").kept.skipped_in_epoch == 10


@pytest.mark.parametrize(("steps_per_epoch", "most"), [(30, 10), (200, 20)])
def test_too_many_of_an_epoch_end_the_run(steps_per_epoch: int, most: int) -> None:
    Steps(steps_per_epoch=steps_per_epoch).run("x." * most)
    with pytest.raises(
        NumbersExploded, match=f"{most + 1} updates of epoch 1 were skipped, more than {most}; the late"
    ):
        Steps(steps_per_epoch=steps_per_epoch).run("x. " * (most + 1))


def test_where_all_losses_were_finite_it_was_the_norm() -> None:
    with pytest.raises(
        NumbersExploded, match="step 3, where all losses were finite, the norm of the gradients was not"
    ):
        Steps().run(".." + "x" * 10, broken=None)


class OtherRank(SingleProcess):
    """A second rank, on which the first term broke."""

    size = 2

    def allreduce(self, tensor: torch.Tensor, *, name: str) -> None:
        tensor[4 + 0] += 1  # two terms, one task's hits and silent answers, then the marks of broken terms


def test_the_terms_of_all_ranks_are_named() -> None:
    with pytest.raises(NumbersExploded, match="losses were not finite: age, tone"):
        Steps().run("x" * 10, comm=OtherRank())


def test_fp16_may_search_its_scale_for_as_long_as_it_can_fall() -> None:
    """From 65,536 it can be halved sixteen times; what is skipped then is no search."""
    steps = Steps(scale=LossScale(CPU)).run("xxxx " * 4 + "x" * 9)
    assert (steps.kept.skipped_row, steps.kept.num_updates) == (9, 0)
    with pytest.raises(NumbersExploded, match="10 updates in a row were skipped; the first at step 17"):
        steps.run("x")


def test_a_row_goes_on_after_a_restart() -> None:
    kept = Steps().run("....xxxx xx").kept
    assert kept == Kept(4, 6, 6, 4, ["tone"])
    Steps(kept=Kept(4, 6, 6, 4, ["tone"])).run("xxx.")
    with pytest.raises(
        NumbersExploded, match="10 updates in a row were skipped; the first at step 5, where the loss of t"
    ):
        Steps(kept=kept).run("xxxx")


def assert_nothing_saved(outcome: Outcome) -> None:
    assert outcome.exit_code == ExitCode.EXPLODED == 70
    assert "exit 70: the numbers exploded" in outcome.stderr
    assert not any((outcome.run / name).exists() for name in ("best", "last", "result.json"))


@pytest.mark.usefixtures("one_thread")
def test_a_learning_rate_that_breaks_the_weights_ends_with_70_also_after_a_stop(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = train_small(tiny_shards, tmp_path / "a", *EXPLODES)
    assert_nothing_saved(outcome)
    lines = [line for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]
    first = next(line["step"] for line in lines if line["skipped_updates"])
    said = (
        f"10 updates in a row were skipped; the first at step {first + 1}, where losses were not finite: colour, tone"
    )
    assert said in outcome.stderr
    assert len(lines) == first + 10
    calls = iter(range(1000))
    monkeypatch.setattr(StopSignal, "requested", lambda self: next(calls) >= 7)
    assert train_small(tiny_shards, tmp_path / "b", *EXPLODES).exit_code == 75
    monkeypatch.undo()
    again = train_small(tiny_shards, tmp_path / "b", *EXPLODES)
    assert_nothing_saved(again)
    assert said in again.stderr
    assert again.lines("metrics.jsonl")[-1]["step"] == lines[-1]["step"]


@pytest.mark.usefixtures("one_thread")
def test_a_short_run_without_a_single_update_saves_nothing(tiny_shards: Path, tmp_path: Path) -> None:
    """Too short for ten in a row; its validation is finite, and its weights are, since nothing ever moved."""
    outcome = train_small(tiny_shards, tmp_path, "tasks={colour: {weight: 1e38}, tone: {weight: 1e38}}")
    assert_nothing_saved(outcome)
    assert "every update of the run was skipped" in outcome.stderr
    assert [line["skipped_updates"] for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"] == [1] * 6


@pytest.mark.usefixtures("one_thread")
def test_weights_that_break_in_the_last_update_are_not_saved(tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(
        tiny_shards,
        tmp_path,
        "batch_size=33",
        "schedule.epochs=1",
        "optimizer.lr=1e39",
        "data.val=",
        "optimizer.momentum=0",
    )
    assert_nothing_saved(outcome)
    assert "the weights are not finite at the end: backbone." in outcome.stderr


@pytest.mark.usefixtures("one_thread")
def test_a_validation_that_is_not_finite_is_never_the_best(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first epoch one photo has no answer: its accuracy may be the highest, and it is not kept."""
    log_probabilities = Predictor.log_probabilities
    broken = 1

    def spoilt(self: Predictor, image: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal broken
        found = log_probabilities(self, image)
        if broken:
            broken -= 1
            found["tone"][-1] = math.nan
        return found

    monkeypatch.setattr(Predictor, "log_probabilities", spoilt)
    outcome = train_small(tiny_shards, tmp_path / "once", "checkpoint.monitor=colour.top1")
    assert outcome.exit_code == 0, outcome.stderr
    evaluations = [line for line in outcome.lines("metrics.jsonl") if line["kind"] == "evaluation"]
    assert [(line["tone.no_answer"], line["tone.loss"] is None) for line in evaluations] == [(1, True), (0, False)]
    assert "1 answers not a number" in outcome.stdout
    assert "warning: validation has answers that are not numbers: 1 of " in outcome.stderr
    assert json.loads((outcome.run / "best/model.json").read_text())["provenance"]["step"] == 2 * STEPS
    broken = 100
    outcome = train_small(tiny_shards, tmp_path / "always")
    assert not (outcome.run / "best").exists()
    assert json.loads((outcome.run / "result.json").read_text())["model"].endswith("last")
    assert "no validation was finite, so none is the best" in outcome.stderr


@pytest.mark.usefixtures("one_thread")
def test_a_model_that_is_broken_already_is_not_trained_further(tiny_shards: Path, tmp_path: Path) -> None:
    model, meta = load_artifact(save_tiny_model(tmp_path / "good", seed=1))
    model.state_dict()["heads.classifiers.task_tone.bias"][0] = math.nan
    save_artifact(
        model,
        tmp_path / "bad",
        tasks=meta.tasks,
        preprocessing=meta.preprocessing,
        metrics={},
        provenance={},
        ema=False,
    )
    for start in (["model.backbone=", f"model.artifact={tmp_path}/bad"], [f"teacher.model={tmp_path}/bad"]):
        outcome = train_small(tiny_shards, tmp_path, *start)
        assert outcome.exit_code == ExitCode.BAD_CONFIG
        assert "bad: weights or statistics are not finite (NaN or inf): heads.classifiers.task_tone.bias (1 of 2" in (
            outcome.stderr
        )


def test_two_ranks_end_alike(tiny_shards: Path, tmp_path: Path, run_ranks: Callable[..., RankRun]) -> None:
    config = small_config(tiny_shards, tmp_path)
    result = run_ranks(2, ["train/main.py", "--config", str(config), *EXPLODES])
    assert result.exit_code == 1
    ends = [
        [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("rank ")] for text in result.stderr
    ]
    assert ends[0] == ends[1], result.output
    assert "10 updates in a row were skipped" in ends[0][0]
    assert ends[0][1].startswith("exit 70: ")


def test_the_launcher_does_not_try_again() -> None:
    assert ExitCode.EXPLODED in HOPELESS


@pytest.mark.parametrize(("code", "again"), [(70, False), (2, False), (75, True), (77, True)])
def test_the_slurm_script_sends_back_what_may_end_otherwise(code: int, again: bool, tmp_path: Path) -> None:
    """With stand-ins for srun and scontrol; the cluster's tests run the real ones."""
    for name, body in {"srun": f"exit {code}", "scontrol": f'echo "$@" >> {tmp_path}/requeued'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = rank_environment({"SLURM_JOB_ID": "7"})
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(["bash", "launch/slurm/train.sbatch"], cwd=REPOSITORY, env=environment, check=False)
    assert done.returncode == code
    assert (tmp_path / "requeued").exists() is again
