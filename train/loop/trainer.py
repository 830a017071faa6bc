"""The training loop: batches in, updates out, and now and then a log line, an evaluation, a checkpoint.

code = trainer.train()
"""

import math
import sys
import time
from collections.abc import Callable, Iterator

from data.errors import LoaderLost
from data.loading.batch import BadRecord, Batch
from launch.exit_codes import ExitCode
from train.checkpoint.progress import Progress
from train.distributed.comm import Comm
from train.distributed.watchdog import Watchdog
from train.evaluation.evaluation import Evaluation
from train.loop.skipped_updates import SkipLimit
from train.loop.step_sync import StepSync, StepTotals
from train.loop.train_step import TrainStep
from train.tracking.bad_samples import BadSampleLog
from train.tracking.jsonl import JsonLines
from train.tracking.tracker import Tracker

# The first step also pays for what libraries load and choose lazily.
_FIRST_STEP_SECONDS = 60.0
# And the first batch of a process for folders that can be far.
_FIRST_BATCH_SECONDS = 600.0


class Trainer:
    """Runs from `progress.step` to the end of the schedule; the loop knows when, its parts know how.

    batches: the rank's batches from progress.step on. evaluate: measures the model, or None without validation data.
    save_checkpoint, save_best: write on rank 0, do nothing elsewhere. find_bad: names this rank's samples that only
    computing could show to be bad, asked at every log line. is_better(new, old) judges the monitored value.
    """

    def __init__(
        self,
        *,
        train_step: TrainStep,
        step_sync: StepSync,
        comm: Comm,
        batches: Iterator[Batch],
        steps_per_epoch: int,
        epochs: int,
        progress: Progress,
        tracker: Tracker,
        bad_samples: BadSampleLog,
        watchdog: Watchdog,
        stop_wanted: Callable[[], bool],
        evaluate: Callable[[], Evaluation] | None,
        save_checkpoint: Callable[[], None],
        save_best: Callable[[Evaluation], None],
        monitor: str,
        log_every: int,
        evaluate_every: int,
        checkpoint_steps: int | None,
        checkpoint_epochs: int,
        patience: int | None = None,
        find_bad: Callable[[], list[BadRecord]] | None = None,
        trace: JsonLines | None = None,
    ) -> None:
        self.train_step, self.step_sync, self.comm, self.batches = train_step, step_sync, comm, batches
        self.steps_per_epoch, self.epochs, self.progress = steps_per_epoch, epochs, progress
        self.tracker, self.bad_samples, self.watchdog, self.stop_wanted = tracker, bad_samples, watchdog, stop_wanted
        self.evaluate, self.save_checkpoint, self.save_best = evaluate, save_checkpoint, save_best
        self.monitor, self.log_every, self.evaluate_every = monitor, log_every, evaluate_every
        self.checkpoint_steps, self.checkpoint_epochs = checkpoint_steps, checkpoint_epochs
        self.patience, self.find_bad, self.trace = patience, find_bad, trace
        self.skip_limit = SkipLimit(progress, steps_per_epoch=steps_per_epoch)
        train_step.metrics.continue_row(progress.skipped_row, progress.skipped_since, progress.skipped_terms)
        self._clock = time.monotonic()

    def train(self) -> ExitCode:
        """DONE at the end of the schedule or when patience ran out, PREEMPTED when a signal asked to stop. Raises
        LoaderLost when a batch is not the one that is due, or the batches end before the schedule, and NumbersExploded
        where too many updates are skipped."""
        # A run that was stopped between an epoch's checkpoint and the end of its evaluation.
        self._evaluate_if_due(at_least=_FIRST_BATCH_SECONDS)
        if self._out_of_patience():  # a run that was killed between its last evaluation and its result
            return ExitCode.DONE
        limit = _FIRST_STEP_SECONDS
        for batch, totals in self._with_totals():
            if (batch.epoch, batch.step) != divmod(self.progress.step, self.steps_per_epoch):
                raise LoaderLost(
                    f"epoch {batch.epoch} step {batch.step} came where step {self.progress.step} of the run was due"
                )
            self.watchdog.feed(f"epoch {batch.epoch} step {batch.step}", at_least=limit)
            limit = 0.0
            self.train_step.update(batch, totals, step=self.progress.step)
            self._write_down(batch, totals)
            self.progress.step += 1
            epoch_ends = batch.step + 1 == self.steps_per_epoch
            saves = totals.stop or self._checkpoint_due(batch.epoch, epoch_ends)
            # A checkpoint holds no half-filled meter, which only the rank that saves would get back.
            if saves or epoch_ends or self.progress.step % self.log_every == 0:
                self._log(batch, epoch_ends=epoch_ends)
            self.progress.evaluation_due = epoch_ends and self._due(batch.epoch, self.evaluate_every)
            if saves:
                self.watchdog.feed("saving a checkpoint")
                self.save_checkpoint()
            if totals.stop:
                self._say_bad(batch.epoch)
                return ExitCode.PREEMPTED
            # After the checkpoint: whatever ends an evaluation, the epoch is not trained again.
            self._evaluate_if_due()
            if epoch_ends:
                self._say_bad(batch.epoch)
            if self._out_of_patience():
                break
        else:
            planned = self.epochs * self.steps_per_epoch
            if self.progress.step < planned:  # more after schedule.epochs was lowered
                raise LoaderLost(f"the batches ended after step {self.progress.step:,} of {planned:,}")
        self.skip_limit.require_updates(learning_rate=self.train_step.learning_rate(max(0, self.progress.step - 1)))
        return ExitCode.DONE

    def _out_of_patience(self) -> bool:
        return self.patience is not None and self.progress.num_bad_epochs >= self.patience

    def _with_totals(self) -> Iterator[tuple[Batch, StepTotals]]:
        """Each batch with its sums over the ranks, which travel while the previous batch is computed."""
        batch = next(self.batches, None)
        if batch is None:
            return
        self.step_sync.start(batch, stop=self.stop_wanted())
        try:
            while batch is not None:
                totals = self.step_sync.finish()
                following = next(self.batches, None)
                if following is not None:
                    self.step_sync.start(following, stop=self.stop_wanted())
                yield batch, totals
                batch = following
        finally:
            self.step_sync.drain()  # stopped early, on all ranks at the same step

    def _write_down(self, batch: Batch, totals: StepTotals) -> None:
        if self.trace is not None:
            keys = [f"{shard}/{key}" for shard, key in zip(batch.index[:, 0].tolist(), batch.key, strict=True)]
            bad = [f"{record.index[0]}/{record.key}" for record in batch.bad]
            line = {
                "step": self.progress.step,
                "epoch": batch.epoch,
                "rows": batch.row.tolist(),
                "keys": keys,
                "bad": bad,
            }
            self.trace.write(line)
        if totals.num_bad:
            self._add_bad("train", batch.bad, step=self.progress.step)

    def _add_bad(self, split: str, records: list[BadRecord], *, step: int) -> None:
        """All ranks know that there are some, so all take part in telling each other which."""
        mine = [[split, record.shard, record.key, record.reason] for record in records]
        everyone = self.comm.allgather_object(mine, name=f"bad.{split}")
        self.bad_samples.add([record for rank in everyone for record in rank], step=step)

    def _say_bad(self, epoch: int) -> None:
        news = self.bad_samples.take_news()
        if news and self.comm.rank == 0:
            print(f"epoch {epoch + 1}/{self.epochs} {news}", flush=True)

    def _log(self, batch: Batch, *, epoch_ends: bool) -> None:
        metrics, now, step = self.train_step.metrics, time.monotonic(), self.progress.step - 1
        num_samples, num_steps = metrics.num_samples, metrics.num_steps
        seconds_per_step, learning_rate = (now - self._clock) / num_steps, self.train_step.learning_rate(step)
        speed = num_samples / max(now - self._clock, 1e-9)
        self._clock = now
        report = metrics.read(self.comm)
        self.tracker.log(
            {
                "kind": "train",
                "step": self.progress.step - 1,
                "epoch": batch.epoch,
                "lr": learning_rate,
                "progress": self.progress.step / (self.epochs * self.steps_per_epoch),
                "images_per_second": speed,
                "seconds_left": seconds_per_step * (self.epochs * self.steps_per_epoch - self.progress.step),
                **report,
            }
        )
        if self.find_bad is not None:
            self._add_bad("teacher", self.find_bad(), step=step)
        self.skip_limit.judge(
            metrics.skips, num_steps=num_steps, epoch=batch.epoch, epoch_ends=epoch_ends, learning_rate=learning_rate
        )

    def _evaluate_if_due(self, *, at_least: float = 0.0) -> None:
        """at_least: seconds for the first batch of it, and for the next one to train on."""
        if self.progress.evaluation_due and self.evaluate is not None:
            self.watchdog.feed("validation", at_least=at_least)
            self._evaluate(self.evaluate(), epoch=(self.progress.step - 1) // self.steps_per_epoch)
            self.watchdog.feed("the next batch", at_least=at_least)
        self.progress.evaluation_due = False

    def _evaluate(self, evaluation: Evaluation, *, epoch: int) -> None:
        if evaluation.num_bad:
            self._add_bad("val", evaluation.bad, step=self.progress.step - 1)
        values = evaluation.flat()
        self.tracker.log(
            {
                "kind": "evaluation",
                "step": self.progress.step - 1,
                "epoch": epoch,
                **values,
                "confusion": {task: matrix.numpy() for task, matrix in evaluation.confusion.items()},
            }
        )
        self.progress.latest = values
        if self.comm.rank == 0 and evaluation.unanswered:
            print(f"warning: validation has answers that are not numbers: {evaluation.unanswered}", file=sys.stderr)
        # What has not learned anything yet is not the best of anything, either.
        counts = evaluation.is_finite and self.progress.num_updates > 0
        value = values[self.monitor]
        if counts and is_better(value, self.progress.best, self.monitor):
            self.progress.best, self.progress.num_bad_epochs, self.progress.results = value, 0, values
            self.save_best(evaluation)
        else:
            self.progress.num_bad_epochs += 1
        self._clock = time.monotonic()

    def _due(self, epoch: int, every: int) -> bool:
        return (epoch + 1) % every == 0 or epoch + 1 == self.epochs

    def _checkpoint_due(self, epoch: int, epoch_ends: bool) -> bool:
        if epoch_ends and self._due(epoch, self.checkpoint_epochs):
            return True
        return self.checkpoint_steps is not None and self.progress.step % self.checkpoint_steps == 0


def is_better(new: float, old: float | None, monitor: str) -> bool:
    """Losses fall, everything else rises. What is not finite is never better, and every number is better than that."""
    if not math.isfinite(new) or old is None or not math.isfinite(old):
        return math.isfinite(new)
    return new < old if monitor.endswith("loss") else new > old
