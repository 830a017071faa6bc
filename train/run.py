"""One run from its settings to its result: wires an experiment into a trainer.

code = train(run_settings(config), lambda: build_experiment(config, comm), comm)
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data.loading.batch import Batch
from launch.exit_codes import ExitCode
from models.finite import broken_tensors
from train.checkpoint.progress import Progress
from train.checkpoint.run_folder import RunFolder
from train.checkpoint.state import RunState, resume
from train.checkpoint.store import CheckpointStore
from train.distributed.comm import Comm
from train.distributed.preemption import StopSignal
from train.distributed.watchdog import Watchdog
from train.errors import ConfigError, NumbersExploded
from train.evaluation.evaluation import Evaluation, evaluate
from train.loop.step_sync import StepSync
from train.loop.trainer import Callbacks, Trainer
from train.setup.experiment import Experiment
from train.setup.run_settings import RunSettings
from train.tracking.bad_samples import BadSampleLog
from train.tracking.jsonl import JsonLines, cut_lines, read_lines, without_nan
from train.tracking.result_table import print_result
from train.tracking.tensorboard import TensorBoardLogger
from train.tracking.tracker import JsonlLogger, MetricLogger, PlainLogger, Tracker
from train.tracking.wandb_logger import WandbLogger, new_run_id

# What happens once before the first step may take this long, whatever a step may take: folders and weights can be far.
_START_SECONDS = 600.0


def train(settings: RunSettings, build: Callable[[], Experiment], comm: Comm) -> ExitCode:
    """Train to the end of the schedule, or continue there. Returns the exit code.

    build: makes the experiment, once the run folder is known to be free."""
    with (
        Watchdog(settings.watchdog_seconds, rank=comm.rank, flight_recorder=comm.flight_recorder) as watchdog,
        StopSignal() as stop,
    ):
        watchdog.feed("taking the run folder", at_least=_START_SECONDS)
        with _take_folder(settings, comm) as folder:
            return _train(settings, build, folder, comm, watchdog, stop)


def _train(
    settings: RunSettings,
    build: Callable[[], Experiment],
    folder: RunFolder,
    comm: Comm,
    watchdog: Watchdog,
    stop: StopSignal,
) -> ExitCode:
    result = comm.allgather_object(folder.finished() if comm.rank == 0 else None, name="finished")[0]
    if result is not None:
        if comm.rank == 0:
            print(f"{folder.path}: this run is finished")
            print_result(result)
        return ExitCode.DONE
    watchdog.feed("building the model", at_least=_START_SECONDS)
    experiment = build()
    progress = Progress()
    state = RunState(
        model=experiment.trained,
        optimizer=experiment.train_step.optimizer,
        progress=progress,
        ema=experiment.ema,
        scale=experiment.train_step.scale,
        wandb_id=new_run_id(),
        data=experiment.train_index.fingerprint,
        other_data_allowed=settings.allow_changes,
    )
    store = CheckpointStore(folder.checkpoints, keep=settings.num_checkpoints)
    watchdog.feed("reading the checkpoint", at_least=_START_SECONDS)
    warnings = resume(store, state, comm)
    _cut_logs(folder, progress, comm)
    if comm.rank == 0:
        print(experiment.summary, flush=True)
        for warning in warnings:
            print(f"not used: {warning}", flush=True)
        if progress.step:
            print(f"continues after step {progress.step}", flush=True)
    tracker = _build_tracker(settings, folder, experiment, state, comm)
    save_model = partial(_save_model, experiment, progress)
    trace = JsonLines(folder.trace(comm.rank), sync=False) if settings.trace else None
    watchdog.feed("the first batch", at_least=_START_SECONDS)
    trainer = Trainer(
        experiment.train_step,
        experiment.loader.batches(
            start=divmod(progress.step, experiment.loop.steps_per_epoch), stop_epoch=experiment.loop.epochs
        ),
        step_sync=StepSync(experiment.objective, comm),
        options=experiment.loop,
        progress=progress,
        tracker=tracker,
        bad_samples=BadSampleLog(
            folder.bad_samples,
            comm,
            num_samples=experiment.train_index.num_samples,
            max_share=settings.max_bad_share,
        ),
        watchdog=watchdog,
        callbacks=Callbacks(
            evaluate=partial(_evaluate, experiment, comm, watchdog) if experiment.val_index else None,
            save_checkpoint=partial(_save_checkpoint, store, state, comm),
            save_best=lambda evaluation: save_model(folder.best, evaluation.flat()),
            stop_requested=stop.requested,
            find_bad=experiment.distillation.find_bad,
            after_step=partial(_write_trace, trace) if trace else lambda batch, step: None,
        ),
    )
    code = trainer.train()
    watchdog.feed("saving the model")
    if code is ExitCode.DONE:
        _require_numbers(experiment)
        save_model(folder.last, progress.latest)
        _finish(folder, progress, tracker, comm)
    else:
        tracker.finish()
    return code


def _take_folder(settings: RunSettings, comm: Comm) -> RunFolder:
    """Rank 0 locks the folder and checks the config; every rank raises its ConfigError."""
    folder = RunFolder(settings.folder)
    folder.create()
    error = None
    if comm.rank == 0:
        try:
            folder.lock()
            if not settings.may_resume and folder.holds_checkpoints():
                raise ConfigError(f"run.dir {folder.path} holds a run already and run.resume is never")
            folder.check_config(settings.config, allow_changes=settings.allow_changes)
            folder.save_config(settings.config)
        except ConfigError as mistake:
            error = str(mistake)
    error = comm.allgather_object(error, name="folder")[0]
    if error is not None:
        folder.unlock()
        raise ConfigError(error)
    return folder


def _cut_logs(folder: RunFolder, progress: Progress, comm: Comm) -> None:
    """What comes after the checkpoint is written again, so it goes first; also lines of ranks that are no more."""

    def is_due(record: Mapping[str, Any]) -> bool:
        """A line of the evaluation that follows the checkpoint, which has the step of the update before it."""
        is_evaluation = record.get("kind") == "evaluation" or record.get("split") == "val"
        return progress.evaluation_due and is_evaluation and record["step"] == progress.step - 1

    if comm.rank == 0:
        for path in [folder.metrics, folder.bad_samples, *folder.path.glob("trace-rank*.jsonl")]:
            cut_lines(path, before_step=progress.step, but=is_due)
    comm.allgather_object(None, name="logs are cut")


def _build_tracker(
    settings: RunSettings, folder: RunFolder, experiment: Experiment, state: RunState, comm: Comm
) -> Tracker:
    if comm.rank != 0:
        return Tracker([])
    tasks, epochs = list(experiment.tasks), experiment.loop.epochs
    loggers: list[MetricLogger] = [JsonlLogger(folder.metrics)]
    if sys.stdout.isatty():
        from train.tracking.console import ProgressBarLogger  # loads rich's live display

        loggers.append(ProgressBarLogger(tasks, epochs=epochs))
    else:
        loggers.append(PlainLogger(tasks, epochs=epochs))
    if settings.wandb.mode != "disabled":
        loggers.append(
            WandbLogger(
                mode=settings.wandb.mode,
                project=settings.wandb.project,
                name=settings.wandb.name,
                directory=folder.path,
                run_id=state.wandb_id,
                config=settings.config,
                classes=experiment.train_index.tasks,
            )
        )
    if settings.tensorboard is not None:
        earlier, step = read_lines(folder.metrics), state.progress.step
        loggers.append(TensorBoardLogger(settings.tensorboard, config=settings.config, step=step, earlier=earlier))
    return Tracker(loggers, more_of_training=experiment.sparsity.report)


def _evaluate(experiment: Experiment, comm: Comm, watchdog: Watchdog) -> Evaluation:
    assert experiment.val_index is not None
    model = experiment.eval_model
    was_training = model.training
    model.eval()
    try:
        evaluation = evaluate(
            experiment.predict,
            experiment.eval_batches(),
            comm,
            num_samples=experiment.val_index.num_samples,
            num_classes=experiment.tasks,
            class_values=experiment.class_values,
            device=experiment.device,
            progress=lambda count: watchdog.feed("validation"),
        )
    finally:
        model.train(was_training)
    if comm.rank == 0 and evaluation.unanswered:
        print(f"warning: validation has answers that are not numbers: {evaluation.unanswered}", file=sys.stderr)
    return evaluation


def _save_checkpoint(store: CheckpointStore, state: RunState, comm: Comm) -> None:
    if comm.rank == 0:
        store.save(state.tensors(), state.values(), step=state.progress.step)


def _save_model(experiment: Experiment, progress: Progress, folder: Path, metrics: Mapping[str, float]) -> None:
    experiment.model_saver.save(folder, metrics, step=progress.step)


def _write_trace(trace: JsonLines, batch: Batch, step: int) -> None:
    keys = [f"{shard}/{key}" for shard, key in zip(batch.index[:, 0].tolist(), batch.key, strict=True)]
    bad = [f"{record.index[0]}/{record.key}" for record in batch.bad]
    trace.write({"step": step, "epoch": batch.epoch, "rows": batch.row.tolist(), "keys": keys, "bad": bad})


def _require_numbers(experiment: Experiment) -> None:
    """The last update may have been the one that broke the weights; all ranks have the same."""
    if broken := broken_tensors(experiment.eval_model):
        raise NumbersExploded(
            f"the weights are not finite at the end: {broken}; no model is saved but best/, where an earlier one was "
            "measured. Try a lower optimizer.lr"
        )


def _finish(folder: RunFolder, progress: Progress, tracker: Tracker, comm: Comm) -> None:
    if comm.rank == 0:
        best = folder.best if progress.results else folder.last
        if progress.latest and not progress.results:
            print(f"warning: no validation was finite, so none is the best; {best} is the last model", file=sys.stderr)
        tracker.finish(best)
        result = {
            "step": progress.step,
            "model": str(best),
            "metrics": without_nan(progress.results or progress.latest),
        }
        folder.save_result(result)
        print_result(result)
    comm.allgather_object(None, name="finished writing")
