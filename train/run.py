"""One run from its config to its result: wires the parts of `assemble` into a trainer.

code = train(config, comm)
"""

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from data.index import Index
from launch.exit_codes import ExitCode
from models.finite import broken_tensors
from train.announce import log_run_summary
from train.checkpoint.model_saver import ModelSaver
from train.checkpoint.progress import Progress
from train.checkpoint.run_folder import RunFolder
from train.checkpoint.state import RunState, resume
from train.checkpoint.store import CheckpointStore
from train.config.loading import ConfigError
from train.config.schema import Config, describe
from train.distributed.comm import Comm
from train.distributed.preemption import StopSignal
from train.distributed.watchdog import Watchdog
from train.evaluation.evaluation import Evaluation, measure
from train.loop.skipped_updates import NumbersExploded
from train.loop.step_sync import StepSync
from train.loop.trainer import Trainer
from train.setup.data import eval_loader
from train.setup.experiment import Experiment, build_experiment
from train.tracking.bad_samples import BadSampleLog
from train.tracking.jsonl import JsonLines, cut_lines, without_nan
from train.tracking.result_table import print_result
from train.tracking.tracker import GammaTracker, JsonlLogger, MetricLogger, PlainLogger, Tracker
from train.tracking.wandb_logger import WandbLogger, new_run_id

# What happens once before the first step may take this long, whatever a step may take: folders and weights can be far.
_START_SECONDS = 600.0


def train(config: Config, comm: Comm) -> ExitCode:
    """Train to the end of the schedule, or continue there. Returns the exit code."""
    with Watchdog(config.watchdog_seconds, rank=comm.rank, flight_recorder=comm.flight_recorder) as watchdog:
        return _train(config, comm, watchdog)


def _train(config: Config, comm: Comm, watchdog: Watchdog) -> ExitCode:
    stop = StopSignal()
    watchdog.feed("taking the run folder", at_least=_START_SECONDS)
    folder = _take_folder(config, comm)
    done = comm.allgather_object(folder.finished() if comm.rank == 0 else None, name="finished")[0]
    if done is not None:
        if comm.rank == 0:
            print(f"{folder.path}: this run is finished")
            print_result(done)
        return ExitCode.DONE
    watchdog.feed("building the model", at_least=_START_SECONDS)
    experiment = build_experiment(config, comm)
    progress = Progress()
    saved = RunState(
        model=experiment.trainee,
        optimizer=experiment.train_step.optimizer,
        progress=progress,
        ema=experiment.ema,
        scale=experiment.train_step.scale,
        wandb_id=new_run_id(),
        data=experiment.train_index.fingerprint,
        other_data_allowed=config.run.allow_changes,
    )
    store = CheckpointStore(folder.checkpoints, keep=config.checkpoint.keep)
    watchdog.feed("reading the checkpoint", at_least=_START_SECONDS)
    problems = resume(store, saved, comm)
    _cut_logs(folder, progress, comm)
    log_run_summary(config, comm, experiment)
    if comm.rank == 0:
        for problem in problems:
            print(f"not used: {problem}", flush=True)
        if progress.step:
            print(f"continues after step {progress.step}", flush=True)
    tracker = _build_tracker(config, folder, experiment, saved, comm)
    saver = ModelSaver(config, experiment, progress, comm)
    watchdog.feed("the first batch", at_least=_START_SECONDS)
    trainer = Trainer(
        train_step=experiment.train_step,
        step_sync=StepSync(experiment.objective, comm),
        comm=comm,
        batches=experiment.loader.batches(
            start=divmod(progress.step, experiment.order.steps_per_epoch), stop_epoch=config.schedule.epochs
        ),
        steps_per_epoch=experiment.order.steps_per_epoch,
        epochs=config.schedule.epochs,
        progress=progress,
        tracker=tracker,
        bad_samples=BadSampleLog(
            folder.bad_samples,
            writes=comm.rank == 0,
            num_samples=experiment.train_index.num_samples,
            max_share=config.data.max_bad_share,
        ),
        watchdog=watchdog,
        stop_wanted=stop.wanted,
        find_bad=experiment.distillation.find_bad,
        evaluate=partial(_evaluate, config, experiment, experiment.val_index, comm, watchdog)
        if experiment.val_index
        else None,
        save_checkpoint=partial(_save_checkpoint, store, saved, comm),
        save_best=lambda evaluation: saver.save(folder.best, evaluation.flat()),
        monitor=config.checkpoint.monitor,
        log_every=config.tracking.log_every,
        evaluate_every=config.tracking.evaluate_every,
        checkpoint_steps=config.checkpoint.every_steps,
        checkpoint_epochs=config.checkpoint.every_epochs,
        patience=config.schedule.patience,
        trace=JsonLines(folder.trace(comm.rank), sync=False) if config.trace_samples else None,
    )
    code = trainer.train()
    watchdog.feed("saving the model")
    if code is ExitCode.DONE:
        _require_numbers(experiment)
        _finish(folder, saver, progress, tracker, comm)
    else:
        tracker.finish()
    return code


def _take_folder(config: Config, comm: Comm) -> RunFolder:
    """Rank 0 locks the folder and checks the config; its trouble is everybody's."""
    folder = RunFolder(config.run.dir)
    folder.create()
    trouble = None
    if comm.rank == 0:
        try:
            folder.lock()
            if config.run.resume == "never" and folder.holds_checkpoints():
                raise ConfigError(f"run.dir {folder.path} holds a run already and run.resume is never")
            folder.check_config(describe(config), allow_changes=config.run.allow_changes)
            folder.save_config(describe(config))
        except ConfigError as error:
            trouble = str(error)
    trouble = comm.allgather_object(trouble, name="folder")[0]
    if trouble is not None:
        raise ConfigError(trouble)
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


def _build_tracker(config: Config, folder: RunFolder, experiment: Experiment, saved: RunState, comm: Comm) -> Tracker:
    if comm.rank != 0:
        return Tracker([])
    sinks: list[MetricLogger] = [JsonlLogger(folder.metrics)]
    if sys.stdout.isatty():
        from train.tracking.console import ProgressBarLogger

        sinks.append(ProgressBarLogger(list(experiment.tasks), epochs=config.schedule.epochs))
    else:
        sinks.append(PlainLogger(list(experiment.tasks), epochs=config.schedule.epochs))
    settings = config.tracking.wandb
    if settings.mode != "disabled":
        sinks.append(
            WandbLogger(
                mode=settings.mode,
                project=settings.project,
                name=settings.name,
                directory=folder.path,
                run_id=saved.wandb_id,
                config=describe(config),
                classes=experiment.train_index.tasks,
            )
        )
    return GammaTracker(sinks, experiment.sparsity.norms)


def _evaluate(config: Config, experiment: Experiment, index: Index, comm: Comm, watchdog: Watchdog) -> Evaluation:
    model = experiment.eval_model
    was_training = model.training
    model.eval()
    try:
        return measure(
            lambda batch: experiment.train_step.predict(model, batch),
            eval_loader(config, index, comm).batches(),
            comm,
            num_samples=index.num_samples,
            num_classes=experiment.tasks,
            device=experiment.device,
            progress=lambda count: watchdog.feed("validation"),
        )
    finally:
        model.train(was_training)


def _save_checkpoint(store: CheckpointStore, saved: RunState, comm: Comm) -> None:
    if comm.rank == 0:
        store.save(saved.tensors(), saved.values(), step=saved.progress.step)


def _require_numbers(experiment: Experiment) -> None:
    """The last update may have been the one that broke the weights; all ranks have the same."""
    if broken := broken_tensors(experiment.eval_model):
        raise NumbersExploded(
            f"the weights are not finite at the end: {broken}; no model is saved but best/, where an earlier one was "
            "measured. Try a lower optimizer.lr"
        )


def _finish(folder: RunFolder, saver: ModelSaver, progress: Progress, tracker: Tracker, comm: Comm) -> None:
    saver.save(folder.last, progress.latest)
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
