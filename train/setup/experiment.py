"""All that a run of a config computes with: data, model, and the step that updates it.

experiment = build_experiment(config, comm)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from data.index import Index
from data.loading.eval_loader import EvalBatch
from data.loading.loader import Loader
from launch.machine import package_versions
from models.preprocessing import Normalise
from models.student import Student
from train.checkpoint.model_saver import ModelSaver
from train.config.schema import Config, describe
from train.distributed.comm import Comm
from train.distributed.gradient_buckets import GradientBuckets
from train.evaluation.ensemble import Predictor, live_predictor
from train.loop.options import LoopOptions
from train.loop.train_metrics import TrainMetrics
from train.loop.train_step import TrainStep
from train.losses.objective import Objective
from train.optim.ema import Ema
from train.setup.data import choose_tasks, class_values, eval_size, open_data, train_loader, validation_batches
from train.setup.distillation import (
    DistillationSetup,
    build_distillation,
    label_shares,
    teacher_classes,
    teacher_data,
    views,
)
from train.setup.losses import check_measure_names, check_monitor, label_terms
from train.setup.model import build_model, check_norms, choose_device, preprocessing, require_sizes
from train.setup.optimizer import learning_rate, optimizer_from
from train.setup.sparsity import Sparsity, build_sparsity

# Those that decide what a model is.
_PACKAGES = ("torch", "torchvision", "timm", "horovod", "webdataset", "numpy")


@dataclass(frozen=True)
class Experiment:
    """tasks: task -> number of classes. class_values: of those that are ordered, the value of each class. trained: all
    that a run trains and checkpoints keep, the student and the adapters between its features and a teacher's.
    eval_model: what is evaluated and saved, the moving average where there is one, and predict what it says of a batch.
    eval_batches: begins a pass over the validation data. batch_size: samples of one update, over all ranks. summary:
    what a run says of itself before it starts."""

    device: torch.device
    train_index: Index
    val_index: Index | None
    tasks: dict[str, int]
    class_values: dict[str, tuple[float, ...]]
    objective: Objective
    loader: Loader
    loop: LoopOptions
    trained: nn.ModuleDict
    eval_model: Student
    predict: Predictor
    eval_batches: Callable[[], Iterable[EvalBatch]]
    distillation: DistillationSetup
    sparsity: Sparsity
    ema: Ema[Student] | None
    train_step: TrainStep
    model_saver: ModelSaver
    batch_size: int
    summary: str


def build_experiment(config: Config, comm: Comm) -> Experiment:
    """Raises ConfigError, DataError or ModelError where the config, the data and the model do not go together."""
    device = choose_device(config, comm)
    taught = teacher_classes(config)
    train_index, val_index = open_data(config, taught)
    tasks = choose_tasks(config, train_index)
    values = class_values(config, train_index, tasks)
    check_monitor(config, tasks, ordered=values)
    sampler, loader = train_loader(
        config, train_index, comm, views=views(config), teacher=teacher_data(config, train_index)
    )
    model = build_model(config, train_index, tasks).to(device).to(memory_format=torch.channels_last)
    require_sizes(config, model, device)
    steps_per_epoch = sampler.steps_per_epoch
    distillation = build_distillation(
        config, train_index, model, tasks=tasks, steps_per_epoch=steps_per_epoch, device=device
    )
    shares = label_shares(config, taught)
    labels = label_terms(config, train_index, tasks, shares=shares, steps_per_epoch=steps_per_epoch)
    objective = Objective([*labels, *distillation.terms])
    check_measure_names(objective.names, list(tasks))
    # Checkpoints of every version know the adapters by this name.
    trained = nn.ModuleDict({"student": model, "bridges": distillation.adapters})
    # In this order: the optimizer freezes parts, the buckets move the statistics, and only then is the model copied.
    optimizer = optimizer_from(config, model, distillation.adapters)
    most_ranks = max(comm.size, config.elastic.max_ranks if config.elastic else 1)
    check_norms(config, model, num_ranks=most_ranks, num_samples=train_index.num_samples)
    sparsity = build_sparsity(config, model, optimizer, steps_per_epoch=steps_per_epoch)
    buckets = GradientBuckets(trained, comm)
    ema = Ema(model, decay=config.ema.decay) if config.ema else None
    normalise = Normalise(model.preprocessing.mean, model.preprocessing.std).to(device)
    train_step = TrainStep(
        model=model,
        normalise=normalise,
        objective=objective,
        optimizer=optimizer,
        buckets=buckets,
        metrics=TrainMetrics(objective, list(tasks), device),
        comm=comm,
        device=device,
        learning_rate=learning_rate(config, steps_per_epoch),
        precision=config.precision,
        micro_batch=config.micro_batch,
        clip_norm=config.optimizer.clip_norm,
        batch_size=config.batch_size,
        seed=config.seed,
        batch_hooks=distillation.batch_hooks,
        gradient_hooks=sparsity.gradient_hooks,
        # The average is of what the penalty left.
        update_hooks=[*sparsity.update_hooks, *([ema.update] if ema else [])],
    )
    eval_model = ema.model if ema else model
    return Experiment(
        device=device,
        train_index=train_index,
        val_index=val_index,
        tasks=tasks,
        class_values=values,
        objective=objective,
        loader=loader,
        loop=_loop_options(config, steps_per_epoch),
        trained=trained,
        eval_model=eval_model,
        predict=live_predictor(
            eval_model,
            tasks,
            normalise=normalise,
            image_size=eval_size(config),
            precision=config.precision,
            device=device,
        ),
        eval_batches=partial(_eval_batches, config, val_index, comm),
        distillation=distillation,
        sparsity=sparsity,
        ema=ema,
        train_step=train_step,
        model_saver=ModelSaver(
            eval_model,
            tasks={task: train_index.tasks[task] for task in tasks},
            class_values=values,
            preprocessing=preprocessing(config, model),
            origin=_origin(config, train_index),
            ema=ema is not None,
            comm=comm,
        ),
        batch_size=config.batch_size,
        summary=_summary(config, comm, train_index, val_index, tasks, model, distillation),
    )


def _loop_options(config: Config, steps_per_epoch: int) -> LoopOptions:
    return LoopOptions(
        epochs=config.schedule.epochs,
        steps_per_epoch=steps_per_epoch,
        log_every=config.tracking.log_every,
        evaluate_every=config.tracking.evaluate_every,
        checkpoint_steps=config.checkpoint.every_steps,
        checkpoint_epochs=config.checkpoint.every_epochs,
        monitor=config.checkpoint.monitor,
        patience=config.schedule.patience,
    )


def _eval_batches(config: Config, index: Index | None, comm: Comm) -> Iterable[EvalBatch]:
    assert index is not None
    return validation_batches(config, index, comm)


def _origin(config: Config, index: Index) -> dict[str, object]:
    """Where a model comes from: config, versions, data."""
    data = {"train": config.data.train, "samples": index.num_samples, "shards": len(index.shards)}
    return {"config": describe(config), "versions": package_versions(_PACKAGES), "data": data}


def _summary(
    config: Config,
    comm: Comm,
    train_index: Index,
    val_index: Index | None,
    tasks: dict[str, int],
    model: Student,
    distillation: DistillationSetup,
) -> str:
    ranks = f"{comm.size} rank{'s' if comm.size > 1 else ''}"
    named = ", ".join(f"{task} ({count})" for task, count in tasks.items())
    validated = f", {val_index.num_samples:,} to validate" if val_index else ""
    about_run = (
        f"{ranks}, {config.precision}; {train_index.num_samples:,} samples to train{validated}; tasks {named}; "
        f"{model.num_parameters:,} parameters; run folder {config.run.dir}"
    )
    return "\n".join([about_run, *([distillation.description] if distillation.description else [])])
