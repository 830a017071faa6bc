"""The loop on a one-layer network and a generator of batches: what it does when, and how it ends. Nothing is read or
written."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.errors import LoaderLost
from data.loading.batch import BadRecord, Batch
from launch.exit_codes import ExitCode
from models.preprocessing import Normalise
from train.checkpoint.progress import Progress
from train.distributed.comm import SingleProcess
from train.distributed.gradient_buckets import GradientBuckets
from train.distributed.watchdog import Watchdog
from train.evaluation.evaluation import Evaluation
from train.loop.options import LoopOptions
from train.loop.step_sync import StepSync
from train.loop.train_metrics import TrainMetrics
from train.loop.train_step import TrainStep
from train.loop.trainer import Callbacks, Trainer, is_better
from train.losses.objective import Objective, label_term
from train.tracking.bad_samples import BadSampleLog
from train.tracking.tracker import Tracker

CPU = torch.device("cpu")
STEPS = 4  # per epoch


class OneLayer(nn.Module):
    """Tells dark images from bright ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        nn.init.zeros_(self.layer.weight)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"tone": self.layer(image.mean(dim=(2, 3)))}  # [N, 3, S, S] -> [N, 2]


def batch_at(epoch: int, step: int) -> Batch:
    """Two dark and two bright images."""
    label = torch.tensor([0, 0, 1, 1])
    image = (label * 200).byte()[:, None, None, None].expand(4, 2, 2, 3)
    rows = torch.arange(4)
    keys = [f"image-{row}" for row in range(4)]
    return Batch(
        epoch, step, image, {"tone": label}, {"tone": label >= 0}, keys, torch.stack([rows, rows], 1), rows, []
    )


def batches(*, first: int = 0, stop_epoch: int = 3) -> Iterator[Batch]:
    for number in range(first, stop_epoch * STEPS):
        yield batch_at(*divmod(number, STEPS))


class InMemory:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def log(self, record: Any) -> None:
        self.records.append(record)

    def finish(self, artifact: Any) -> None:
        return None


def evaluation(top1: float) -> Evaluation:
    report = {"top1": top1, "loss": 1 - top1, "macro_f1": top1, "count": 4.0, "no_answer": 0.0}
    return Evaluation(
        tasks={"tone": report},
        confusion={"tone": torch.eye(2)},
        support={"tone": torch.ones(2)},
        num_bad=0,
        bad=[],
        no_answer=[],
    )


class Run:
    """A trainer with everything it needs, and a list of what it did."""

    def __init__(self, *, options: LoopOptions, stream: Iterator[Batch], top1: Callable[[int], float] = lambda n: n):
        comm, objective = SingleProcess(), Objective([label_term("tone")])
        self.model, self.log, self.progress, self.done = OneLayer(), InMemory(), Progress(), list[str]()
        self.stop_at: int | None = None
        self._evaluations = 0
        self._top1 = top1
        train_step = TrainStep(
            model=self.model,
            normalise=Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            objective=objective,
            optimizer=torch.optim.SGD(self.model.parameters(), lr=0.1, fused=True),
            buckets=GradientBuckets(self.model, comm),
            metrics=TrainMetrics(objective, ["tone"], CPU),
            comm=comm,
            device=CPU,
            learning_rate=lambda step: 0.1,
        )
        self.watchdog = Watchdog(60, rank=0, flight_recorder=comm.flight_recorder)
        self.trainer = Trainer(
            train_step,
            stream,
            step_sync=StepSync(objective, comm),
            options=options,
            progress=self.progress,
            tracker=Tracker([self.log]),
            bad_samples=BadSampleLog(None, comm, num_samples=4 * STEPS, max_share=0.5),
            watchdog=self.watchdog,
            callbacks=Callbacks(
                evaluate=self._evaluate,
                save_checkpoint=lambda: self.done.append(f"checkpoint after {self.progress.step}"),
                save_best=lambda evaluation: self.done.append(f"best {evaluation.mean_top1:g}"),
                stop_requested=lambda: self.stop_at is not None and self.progress.step >= self.stop_at,
                after_step=lambda batch, step: self.done.append(f"step {step}"),
            ),
        )

    def _evaluate(self) -> Evaluation:
        self._evaluations += 1
        self.done.append(f"evaluation {self._evaluations}")
        return evaluation(self._top1(self._evaluations))

    def train(self) -> ExitCode:
        with self.watchdog:
            return self.trainer.train()

    def events(self, *kinds: str) -> list[str]:
        return [event for event in self.done if event.startswith(kinds)]


def run(
    *, stream: Iterator[Batch] | None = None, top1: Callable[[int], float] = lambda n: n / 10, **options: Any
) -> Run:
    chosen = {"epochs": 3, "steps_per_epoch": STEPS, "log_every": 2, "monitor": "tone.top1", **options}
    return Run(options=LoopOptions(**chosen), stream=batches() if stream is None else stream, top1=top1)


def test_it_learns() -> None:
    one = run()
    assert one.train() is ExitCode.DONE
    losses = [record["loss"] for record in one.log.records if record["kind"] == "train"]
    assert losses[-1] < losses[0] / 2
    assert one.log.records[-2]["tone.top1"] == 1.0
    assert one.model(torch.full((1, 3, 2, 2), 2.0))["tone"].argmax() == 1


def test_each_epoch_ends_with_its_checkpoint_and_then_its_evaluation() -> None:
    one = run()
    one.train()
    end = ["step 3", "checkpoint after 4", "evaluation 1", "best 0.1", "step 4"]
    assert one.done[3:8] == end
    assert one.events("step") == [f"step {number}" for number in range(3 * STEPS)]
    assert one.events("evaluation") == ["evaluation 1", "evaluation 2", "evaluation 3"]


def test_log_lines_come_at_their_steps() -> None:
    one = run(log_every=3)
    one.train()
    train = [record["step"] for record in one.log.records if record["kind"] == "train"]
    assert train == [2, 3, 5, 7, 8, 11]  # every third, and at the ends of epochs, before their checkpoints
    assert [record["progress"] for record in one.log.records if record["kind"] == "train"][-1] == 1.0


def test_how_often_is_what_the_options_say() -> None:
    one = run(evaluate_every=2, checkpoint_epochs=3, checkpoint_steps=5)
    one.train()
    assert one.events("checkpoint") == ["checkpoint after 5", "checkpoint after 10", "checkpoint after 12"]
    assert one.events("evaluation") == ["evaluation 1", "evaluation 2"]  # after epoch 2 and after the last one


def test_the_best_is_saved_when_it_comes() -> None:
    one = run(top1=lambda number: [0.5, 0.4, 0.6][number - 1])
    one.train()
    assert one.events("best") == ["best 0.5", "best 0.6"]
    assert (one.progress.best, one.progress.num_bad_epochs) == (0.6, 0)


def test_patience_ends_the_run() -> None:
    one = run(top1=lambda number: 0.5, patience=1)
    assert one.train() is ExitCode.DONE
    assert one.events("evaluation") == ["evaluation 1", "evaluation 2"]
    assert one.progress.step == 2 * STEPS


def test_a_stop_finishes_the_step_and_saves() -> None:
    one = run()
    one.stop_at = 1
    assert one.train() is ExitCode.PREEMPTED
    assert one.done[-1] == f"checkpoint after {one.progress.step}"
    assert one.progress.step < STEPS  # and the wish travels with the message of the next step


def test_it_goes_on_where_it_was() -> None:
    one = run(stream=batches(first=5))
    one.progress.step = 5
    one.train()
    assert one.events("step")[0] == "step 5"
    assert one.events("evaluation") == ["evaluation 1", "evaluation 2"]


def test_an_evaluation_that_is_due_comes_before_the_next_step() -> None:
    one = run(stream=batches(first=STEPS))
    one.progress.step, one.progress.evaluation_due, one.progress.num_updates = STEPS, True, STEPS
    one.train()
    assert one.done[:3] == ["evaluation 1", "best 0.1", "step 4"]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ((batch_at(0, number) for number in (0, 2)), "epoch 0 step 2 came where step 1 of the run was due"),
        ((batch_at(0, number) for number in (0, 1)), "the batches ended after step 2 of 12"),
        (iter(()), "the batches ended after step 0 of 12"),
    ],
)
def test_a_stream_that_is_not_the_planned_one_stops_the_run(stream: Iterator[Batch], words: str) -> None:
    with pytest.raises(LoaderLost, match=words):
        run(stream=stream).train()


def test_bad_samples_are_counted_and_told_at_the_end_of_the_epoch(capfd: pytest.CaptureFixture[str]) -> None:
    record = BadRecord("shard-0", "broken", "cut short", (0, 7), 3)
    stream = (replace(batch, bad=[record] if batch.step == 1 else []) for batch in batches(stop_epoch=1))
    one = run(stream=stream, epochs=1)
    one.train()
    assert len(one.trainer.bad_samples) == 1
    assert "epoch 1/1 samples that cannot be used: 1 of train new, 1 in all" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("new", "old", "monitor", "expected"),
    [
        (0.5, None, "a.top1", True),
        (0.5, 0.4, "a.top1", True),
        (0.4, 0.4, "a.top1", False),
        (0.4, 0.5, "a.loss", True),
        (0.5, 0.4, "a.mean_absolute_error", False),
        (0.4, 0.5, "a.mean_absolute_error", True),
        (float("nan"), None, "a.loss", False),
        (9.0, float("nan"), "a.loss", True),
        (float("inf"), 0.1, "a.top1", False),
    ],
)
def test_what_is_better(new: float, old: float | None, monitor: str, expected: bool) -> None:
    assert is_better(new, old, monitor) is expected
