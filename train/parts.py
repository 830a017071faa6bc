"""The parts that every run of a config needs: data, model and the stepper that updates it.

parts = build_parts(config, comm)
"""

from dataclasses import dataclass

import torch

from data.index import Index
from data.loader import Loader
from data.order import SampleOrder
from models.student import Student
from train import assemble, assemble_data, assemble_teacher
from train.assemble_sparsity import Sparsity, build_sparsity
from train.assemble_teacher import Lessons
from train.buckets import GradientBuckets
from train.comm import Comm
from train.config import Config
from train.ema import Ema
from train.meter import Meter
from train.objective import Objective
from train.step import Normalise, Stepper
from train.trainee import Trainee


@dataclass(frozen=True)
class Parts:
    device: torch.device
    train_index: Index
    val_index: Index | None
    tasks: dict[str, int]  # task -> number of classes
    objective: Objective
    order: SampleOrder
    loader: Loader
    trainee: Trainee
    lessons: Lessons
    sparsity: Sparsity
    ema: Ema[Student] | None
    stepper: Stepper

    @property
    def model(self) -> Student:
        return self.trainee.student

    @property
    def measured(self) -> Student:
        """The model that is evaluated and saved: the moving average where there is one."""
        return self.ema.model if self.ema else self.model


def build_parts(config: Config, comm: Comm) -> Parts:
    """Raises ConfigError, DataError or ModelError where the config, the data and the model do not go together."""
    device = assemble.choose_device(config, comm)
    taught = assemble_teacher.teacher_classes(config)
    train_index, val_index = assemble_data.open_data(config, taught)
    tasks = assemble_data.choose_tasks(config, train_index)
    assemble.check_monitor(config, tasks)
    order, loader = assemble_data.train_loader(
        config,
        train_index,
        comm,
        views=assemble_teacher.views(config),
        teacher=assemble_teacher.teacher_data(config, train_index),
    )
    model = assemble.build_model(config, train_index, tasks).to(device).to(memory_format=torch.channels_last)
    assemble.require_sizes(config, model, device)
    steps_per_epoch = order.steps_per_epoch
    lessons = assemble_teacher.build_lessons(
        config, train_index, model, tasks=tasks, steps_per_epoch=steps_per_epoch, device=device
    )
    shares = assemble_teacher.label_shares(config, taught)
    label_terms = assemble.label_terms(config, train_index, tasks, shares=shares, steps_per_epoch=steps_per_epoch)
    objective = Objective([*label_terms, *lessons.terms])
    assemble.check_measure_names(objective.names, list(tasks))
    trainee = Trainee(model, lessons.bridges)
    # In this order: the optimizer freezes parts, the buckets move the statistics, and only then is the model copied.
    optimizer = assemble.build_optimizer(config, model, lessons.bridges)
    assemble.check_norms(
        config,
        model,
        num_ranks=max(comm.size, config.elastic.max_ranks if config.elastic else 1),
        num_samples=train_index.num_samples,
    )
    sparsity = build_sparsity(config, model, optimizer, steps_per_epoch=steps_per_epoch)
    buckets = GradientBuckets(trainee, comm)
    ema = Ema(model, decay=config.ema.decay) if config.ema else None
    stepper = Stepper(
        model=model,
        normalise=Normalise(model.preprocessing.mean, model.preprocessing.std).to(device),
        objective=objective,
        optimizer=optimizer,
        buckets=buckets,
        meter=Meter(objective, list(tasks), device),
        comm=comm,
        device=device,
        learning_rate=assemble.learning_rate(config, steps_per_epoch),
        precision=config.precision,
        micro_batch=config.micro_batch,
        clip_norm=config.optimizer.clip_norm,
        batch_size=config.batch_size,
        seed=config.seed,
        batch_stages=lessons.stages,
        gradient_stages=sparsity.gradient_stages,
        # The average is of what the penalty left.
        update_stages=[*sparsity.update_stages, *([ema.update] if ema else [])],
    )
    return Parts(
        device, train_index, val_index, tasks, objective, order, loader, trainee, lessons, sparsity, ema, stepper
    )
