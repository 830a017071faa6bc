"""One run from its config to its result: wires the parts of `assemble` into a trainer.

code = train(config, comm)
"""

import itertools
import json
import os
import sys
import time
from functools import partial

import torch

from data.index import Index
from models.student import Student
from train import assemble
from train.announce import announce
from train.bad_ledger import BadLedger
from train.buckets import GradientBuckets
from train.checkpoint import CheckpointStore
from train.comm import Comm
from train.config import Config, describe
from train.config_file import ConfigError
from train.control import Control
from train.ema import Ema
from train.evaluation import Evaluation, measure
from train.exit_codes import ExitCode
from train.jsonl import JsonLines, cut_lines
from train.meter import Meter
from train.model_saver import ModelSaver
from train.objective import Objective
from train.run_folder import RunFolder
from train.saved_state import SavedState, resume
from train.step import Normalise, Stepper
from train.stop_signal import StopSignal
from train.summary_table import print_result
from train.tracking import JsonlSink, PlainSink, Sink, Tracker, readable_seconds
from train.trainer import Progress, Trainer
from train.wandb_sink import WandbSink, new_run_id
from train.watchdog import Watchdog


def train(config: Config, comm: Comm) -> ExitCode:
    """Train to the end of the schedule, or continue there. Returns the exit code."""
    stop = StopSignal()
    device = assemble.choose_device(config, comm)
    folder = _take_folder(config, comm)
    done = comm.allgather_object(folder.finished() if comm.rank == 0 else None, name="finished")[0]
    if done is not None:
        if comm.rank == 0:
            print(f"{folder.path}: this run is finished")
            print_result(done)
        return ExitCode.DONE
    train_index, val_index = assemble.open_data(config)
    tasks = assemble.choose_tasks(config, train_index)
    objective = assemble.build_objective(config, train_index, tasks)
    order, loader = assemble.train_loader(config, train_index, comm)
    model = assemble.build_model(config, train_index, tasks).to(device).to(memory_format=torch.channels_last)
    stepper, ema = _build_stepper(config, model, objective, list(tasks), order.steps_per_epoch, comm, device)
    progress = Progress()
    saved = SavedState(
        model=model,
        optimizer=stepper.optimizer,
        progress=progress,
        ema=ema,
        scale=stepper.scale,
        wandb_id=new_run_id(),
    )
    store = CheckpointStore(folder.checkpoints, keep=config.checkpoint.keep)
    problems = resume(store, saved, comm)
    _cut_logs(folder, progress.step, comm)
    announce(config, comm, model, tasks, train_index, val_index)
    if comm.rank == 0:
        for problem in problems:
            print(f"not used: {problem}", flush=True)
        if progress.step:
            print(f"continues after step {progress.step}", flush=True)
    tracker = _build_tracker(config, folder, tasks, train_index, saved, comm)
    measured = ema.model if ema else model
    saver = ModelSaver(config, model, measured, train_index, tasks, progress, comm)
    with Watchdog(config.watchdog_seconds, rank=comm.rank) as watchdog:
        trainer = Trainer(
            stepper=stepper,
            control=Control(objective, comm),
            comm=comm,
            batches=loader.batches(
                start=divmod(progress.step, order.steps_per_epoch), stop_epoch=config.schedule.epochs
            ),
            steps_per_epoch=order.steps_per_epoch,
            epochs=config.schedule.epochs,
            progress=progress,
            tracker=tracker,
            ledger=BadLedger(
                folder.bad_samples,
                writes=comm.rank == 0,
                num_samples=train_index.num_samples,
                max_share=config.data.max_bad_share,
            ),
            watchdog=watchdog,
            stop_wanted=stop.wanted,
            evaluate=partial(_evaluate, config, stepper, measured, val_index, tasks, comm, watchdog)
            if val_index
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
            _finish(folder, saver, progress, tracker, comm)
        else:
            tracker.finish()
    return code


def dry_run(config: Config, comm: Comm) -> ExitCode:
    """A few updates on the first batches: parameters, memory, speed, hours to go. Nothing is written."""
    device = assemble.choose_device(config, comm)
    train_index, val_index = assemble.open_data(config)
    tasks = assemble.choose_tasks(config, train_index)
    objective = assemble.build_objective(config, train_index, tasks)
    order, loader = assemble.train_loader(config, train_index, comm)
    model = assemble.build_model(config, train_index, tasks).to(device).to(memory_format=torch.channels_last)
    stepper, _ = _build_stepper(config, model, objective, list(tasks), order.steps_per_epoch, comm, device)
    announce(config, comm, model, tasks, train_index, val_index)
    control = Control(objective, comm)
    seconds = []
    for step, batch in enumerate(itertools.islice(loader.batches(), 3)):
        begin = time.monotonic()
        control.start(batch, stop=False)
        stepper.update(batch, control.finish(), step=step)
        stepper.meter.norms.cpu()  # waits for the device
        seconds.append(time.monotonic() - begin)
    if comm.rank == 0:
        total = min(seconds) * order.steps_per_epoch * config.schedule.epochs
        print(
            f"dry run: {min(seconds):.3f} s a step of {config.batch_size} samples, {order.steps_per_epoch} steps an "
            f"epoch, about {readable_seconds(total)} "
            f"(hours:minutes:seconds) for {config.schedule.epochs} epochs (without validation); "
            f"peak memory {_peak_gigabytes(device):.2f} GB a rank"
        )
    return ExitCode.DONE


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


def _build_stepper(
    config: Config,
    model: Student,
    objective: Objective,
    tasks: list[str],
    steps_per_epoch: int,
    comm: Comm,
    device: torch.device,
) -> tuple[Stepper, Ema[Student] | None]:
    # In this order: the optimizer freezes parts, the buckets move the statistics, and only then is the model copied.
    optimizer = assemble.build_optimizer(config, model)
    buckets = GradientBuckets(model, comm)
    ema = Ema(model, decay=config.ema.decay) if config.ema else None
    stepper = Stepper(
        model=model,
        normalise=Normalise(model.preprocessing.mean, model.preprocessing.std).to(device),
        objective=objective,
        optimizer=optimizer,
        buckets=buckets,
        meter=Meter(objective, tasks, device),
        comm=comm,
        device=device,
        learning_rate=assemble.learning_rate(config, steps_per_epoch),
        precision=config.precision,
        micro_batch=config.micro_batch,
        clip_norm=config.optimizer.clip_norm,
        seed=config.seed,
        update_stages=[ema.update] if ema else [],
    )
    return stepper, ema


def _cut_logs(folder: RunFolder, step: int, comm: Comm) -> None:
    """Lines at or after the resumed step are written again, so they go first; also those of ranks that are no more."""
    if comm.rank == 0:
        for path in [folder.metrics, folder.bad_samples, *folder.path.glob("trace-rank*.jsonl")]:
            cut_lines(path, before_step=step)
    comm.allgather_object(None, name="logs are cut")


def _build_tracker(
    config: Config, folder: RunFolder, tasks: dict[str, int], index: Index, saved: SavedState, comm: Comm
) -> Tracker:
    if comm.rank != 0:
        return Tracker([])
    sinks: list[Sink] = [JsonlSink(folder.metrics)]
    if sys.stdout.isatty():
        from train.progress_sink import ProgressSink

        sinks.append(ProgressSink(list(tasks), epochs=config.schedule.epochs))
    else:
        sinks.append(PlainSink(list(tasks), epochs=config.schedule.epochs))
    settings = config.tracking.wandb
    if settings.mode != "disabled":
        sinks.append(
            WandbSink(
                mode=settings.mode,
                project=settings.project,
                name=settings.name,
                directory=folder.path,
                run_id=saved.wandb_id,
                config=describe(config),
                classes=index.tasks,
            )
        )
    return Tracker(sinks)


def _evaluate(
    config: Config,
    stepper: Stepper,
    model: torch.nn.Module,
    index: Index,
    tasks: dict[str, int],
    comm: Comm,
    watchdog: Watchdog,
) -> Evaluation:
    was_training = model.training
    model.eval()
    loader = assemble.eval_loader(config, index, comm)
    try:
        return measure(
            lambda batch: stepper.predict(model, batch),
            loader.batches(),
            comm,
            num_classes=tasks,
            device=stepper.device,
            progress=lambda count: watchdog.feed("validation"),
        )
    finally:
        model.train(was_training)


def _save_checkpoint(store: CheckpointStore, saved: SavedState, comm: Comm) -> None:
    if comm.rank == 0:
        store.save(saved.tensors(), saved.values(), step=saved.progress.step)


def _finish(folder: RunFolder, saver: ModelSaver, progress: Progress, tracker: Tracker, comm: Comm) -> None:
    saver.save(folder.last, progress.results)
    if comm.rank == 0:
        best = folder.best if progress.results else folder.last
        tracker.finish(best)
        result = {"step": progress.step, "model": str(best), "metrics": without_nan(progress.results)}
        folder.save_result(result)
        print_result(result)
    comm.allgather_object(None, name="finished writing")


def _peak_gigabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
