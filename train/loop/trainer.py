"""The training loop: batches in, updates out, and now and then a log line, an evaluation, a checkpoint.

code = Trainer(train_step, batches, step_sync=..., options=LoopOptions(epochs=60, steps_per_epoch=1367), ...).train()
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data.errors import LoaderLost
from data.loading.batch import BadRecord, Batch
from launch.exit_codes import ExitCode
from train.checkpoint.progress import Progress
from train.distributed.watchdog import Watchdog
from train.evaluation.evaluation import Evaluation
from train.loop.options import LoopOptions
from train.loop.skipped_updates import SkipLimit
from train.loop.step_sync import StepSync, StepTotals
from train.loop.train_step import TrainStep
from train.tracking.bad_samples import BadSampleLog
from train.tracking.tracker import Tracker

# The first step also pays for what libraries load and choose lazily.
_FIRST_STEP_SECONDS = 60.0
# And the first batch of a process for folders that can be far.
_FIRST_BATCH_SECONDS = 600.0


@dataclass(frozen=True)
class Callbacks:
    """What a run does beside updates. Every rank calls them at the same steps.

    evaluate: measures the model; None without validation data. save_checkpoint, save_best: write on rank 0, do nothing
    elsewhere. stop_requested: asks for a checkpoint and the end after this step. find_bad: names this rank's samples
    that only computing could show to be bad, asked at every log line. after_step: is told of every update's batch.
    """

    evaluate: Callable[[], Evaluation] | None = None
    save_checkpoint: Callable[[], None] = lambda: None
    save_best: Callable[[Evaluation], None] = lambda evaluation: None
    stop_requested: Callable[[], bool] = lambda: False
    find_bad: Callable[[], list[BadRecord]] | None = None
    after_step: Callable[[Batch, int], None] = lambda batch, step: None


class Trainer:
    """Runs from `progress.step` to the end of the schedule; the loop knows when, its parts know how.

    batches: the rank's batches from progress.step on.
    """

    def __init__(
        self,
        train_step: TrainStep,
        batches: Iterator[Batch],
        *,
        step_sync: StepSync,
        options: LoopOptions,
        progress: Progress,
        tracker: Tracker,
        bad_samples: BadSampleLog,
        watchdog: Watchdog,
        callbacks: Callbacks,
    ) -> None:
        self.train_step, self.batches, self.step_sync = train_step, batches, step_sync
        self.options, self.progress, self.callbacks = options, progress, callbacks
        self.tracker, self.bad_samples, self.watchdog = tracker, bad_samples, watchdog
        self.skip_limit = SkipLimit(progress, steps_per_epoch=options.steps_per_epoch)
        train_step.metrics.continue_row(progress.skipped_row, progress.skipped_since, progress.skipped_terms)
        self._clock = time.monotonic()

    def train(self) -> ExitCode:
        """DONE at the end of the schedule or when patience ran out, PREEMPTED when a signal asked to stop. Raises
        LoaderLost when a batch is not the one that is due, or the batches end before the schedule, and NumbersExploded
        where too many updates are skipped."""
        # A run that was stopped between an epoch's checkpoint and the end of its evaluation.
        self._evaluate_if_due(at_least=_FIRST_BATCH_SECONDS)
        if self._is_out_of_patience():  # a run that was killed between its last evaluation and its result
            return ExitCode.DONE
        limit = _FIRST_STEP_SECONDS
        for batch, totals in self._with_totals():
            self._require_due(batch)
            self.watchdog.feed(f"epoch {batch.epoch} step {batch.step}", at_least=limit)
            limit = 0.0
            self.train_step.update(batch, totals, step=self.progress.step)
            self.callbacks.after_step(batch, self.progress.step)
            if totals.num_bad:
                self.bad_samples.add_of_all_ranks("train", batch.bad, step=self.progress.step)
            self.progress.step += 1
            epoch_ends = batch.step + 1 == self.options.steps_per_epoch
            saves = totals.stop or self.options.checkpoint_is_due(
                batch.epoch, step=self.progress.step, epoch_ends=epoch_ends
            )
            # A checkpoint holds no half-filled metrics, which only the rank that saves would get back.
            if saves or epoch_ends or self.progress.step % self.options.log_every == 0:
                self._log(batch, epoch_ends=epoch_ends)
            self.progress.evaluation_due = epoch_ends and self.options.evaluation_is_due(batch.epoch)
            if saves:
                self.watchdog.feed("saving a checkpoint")
                self.callbacks.save_checkpoint()
            if totals.stop:
                self._print_bad_samples(batch.epoch)
                return ExitCode.PREEMPTED
            # After the checkpoint: whatever ends an evaluation, the epoch is not trained again.
            self._evaluate_if_due()
            if epoch_ends:
                self._print_bad_samples(batch.epoch)
            if self._is_out_of_patience():
                break
        else:
            if self.progress.step < self.options.num_steps:  # more after schedule.epochs was lowered
                raise LoaderLost(f"the batches ended after step {self.progress.step:,} of {self.options.num_steps:,}")
        self.skip_limit.require_updates(learning_rate=self.train_step.learning_rate(max(0, self.progress.step - 1)))
        return ExitCode.DONE

    def _with_totals(self) -> Iterator[tuple[Batch, StepTotals]]:
        """Each batch with its sums over the ranks, which travel while the previous batch is computed."""
        batch = next(self.batches, None)
        if batch is None:
            return
        self.step_sync.start(batch, stop=self.callbacks.stop_requested())
        try:
            while batch is not None:
                totals = self.step_sync.finish()
                following = next(self.batches, None)
                if following is not None:
                    self.step_sync.start(following, stop=self.callbacks.stop_requested())
                yield batch, totals
                batch = following
        finally:
            self.step_sync.drain()  # stopped early, on all ranks at the same step

    def _require_due(self, batch: Batch) -> None:
        if (batch.epoch, batch.step) != divmod(self.progress.step, self.options.steps_per_epoch):
            raise LoaderLost(
                f"epoch {batch.epoch} step {batch.step} came where step {self.progress.step} of the run was due"
            )

    def _is_out_of_patience(self) -> bool:
        return self.options.patience is not None and self.progress.num_bad_epochs >= self.options.patience

    def _print_bad_samples(self, epoch: int) -> None:
        self.bad_samples.print_new(f"epoch {epoch + 1}/{self.options.epochs}")

    def _log(self, batch: Batch, *, epoch_ends: bool) -> None:
        metrics, now, step = self.train_step.metrics, time.monotonic(), self.progress.step - 1
        num_samples, num_steps = metrics.num_samples, metrics.num_steps
        seconds_per_step, learning_rate = (now - self._clock) / num_steps, self.train_step.learning_rate(step)
        speed = num_samples / max(now - self._clock, 1e-9)
        self._clock = now
        self.tracker.log(
            {
                "kind": "train",
                "step": step,
                "epoch": batch.epoch,
                "lr": learning_rate,
                "progress": self.progress.step / self.options.num_steps,
                "images_per_second": speed,
                "seconds_left": seconds_per_step * (self.options.num_steps - self.progress.step),
                **self.train_step.read_metrics(),
            }
        )
        if self.callbacks.find_bad is not None:
            self.bad_samples.add_of_all_ranks("teacher", self.callbacks.find_bad(), step=step)
        self.skip_limit.judge(
            metrics.skips, num_steps=num_steps, epoch=batch.epoch, epoch_ends=epoch_ends, learning_rate=learning_rate
        )

    def _evaluate_if_due(self, *, at_least: float = 0.0) -> None:
        """at_least: seconds for the first batch of it, and for the next one to train on."""
        if self.progress.evaluation_due and self.callbacks.evaluate is not None:
            self.watchdog.feed("validation", at_least=at_least)
            self._take_in(self.callbacks.evaluate(), epoch=(self.progress.step - 1) // self.options.steps_per_epoch)
            self.watchdog.feed("the next batch", at_least=at_least)
        self.progress.evaluation_due = False

    def _take_in(self, evaluation: Evaluation, *, epoch: int) -> None:
        """Log it, and save the model where it is the best so far."""
        progress, step = self.progress, self.progress.step - 1
        if evaluation.num_bad:
            self.bad_samples.add_of_all_ranks("val", evaluation.bad, step=step)
        values = evaluation.flat()
        confusion = {task: matrix.numpy() for task, matrix in evaluation.confusion.items()}
        self.tracker.log({"kind": "evaluation", "step": step, "epoch": epoch, **values, "confusion": confusion})
        progress.latest = values
        # What has not learned anything yet is not the best of anything, either.
        counts = evaluation.is_finite and progress.num_updates > 0
        value = values[self.options.monitor]
        if counts and is_better(value, progress.best, self.options.monitor):
            progress.best, progress.num_bad_epochs, progress.results = value, 0, values
            self.callbacks.save_best(evaluation)
        else:
            progress.num_bad_epochs += 1
        self._clock = time.monotonic()


def is_better(new: float, old: float | None, monitor: str) -> bool:
    """Losses and errors fall, everything else rises. What is not finite is never better, and every number is better
    than that."""
    if not math.isfinite(new) or old is None or not math.isfinite(old):
        return math.isfinite(new)
    return new < old if monitor.endswith(("loss", "mean_absolute_error")) else new > old
