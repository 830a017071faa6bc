"""The parts that every run of a config needs: data, model and the step that updates it.

parts = build_experiment(config, comm)
"""

from dataclasses import dataclass

import torch

from data.index import Index
from data.loading.loader import Loader
from data.sampling.sampler import TrainSampler
from models.preprocessing import Normalise
from models.student import Student
from train.config.schema import Config
from train.distillation.adapters import Trainee
from train.distributed.comm import Comm
from train.distributed.gradient_buckets import GradientBuckets
from train.loop.train_metrics import TrainMetrics
from train.loop.train_step import TrainStep
from train.losses.objective import Objective
from train.optim.ema import Ema
from train.optim.optimizer import build_optimizer, learning_rate
from train.setup.data import choose_tasks, open_data, train_loader
from train.setup.distillation import (
    DistillationSetup,
    build_distillation,
    label_shares,
    teacher_classes,
    teacher_data,
    views,
)
from train.setup.losses import check_measure_names, check_monitor, label_terms
from train.setup.model import build_model, check_norms, choose_device, require_sizes
from train.setup.sparsity import Sparsity, build_sparsity


@dataclass(frozen=True)
class Experiment:
    device: torch.device
    train_index: Index
    val_index: Index | None
    tasks: dict[str, int]  # task -> number of classes
    objective: Objective
    order: TrainSampler
    loader: Loader
    trainee: Trainee
    distillation: DistillationSetup
    sparsity: Sparsity
    ema: Ema[Student] | None
    train_step: TrainStep

    @property
    def model(self) -> Student:
        return self.trainee.student

    @property
    def eval_model(self) -> Student:
        """The model that is evaluated and saved: the moving average where there is one."""
        return self.ema.model if self.ema else self.model


def build_experiment(config: Config, comm: Comm) -> Experiment:
    """Raises ConfigError, DataError or ModelError where the config, the data and the model do not go together."""
    device = choose_device(config, comm)
    taught = teacher_classes(config)
    train_index, val_index = open_data(config, taught)
    tasks = choose_tasks(config, train_index)
    check_monitor(config, tasks)
    order, loader = train_loader(
        config,
        train_index,
        comm,
        views=views(config),
        teacher=teacher_data(config, train_index),
    )
    model = build_model(config, train_index, tasks).to(device).to(memory_format=torch.channels_last)
    require_sizes(config, model, device)
    steps_per_epoch = order.steps_per_epoch
    distillation = build_distillation(
        config, train_index, model, tasks=tasks, steps_per_epoch=steps_per_epoch, device=device
    )
    shares = label_shares(config, taught)
    terms = label_terms(config, train_index, tasks, shares=shares, steps_per_epoch=steps_per_epoch)
    objective = Objective([*terms, *distillation.terms])
    check_measure_names(objective.names, list(tasks))
    trainee = Trainee(model, distillation.bridges)
    # In this order: the optimizer freezes parts, the buckets move the statistics, and only then is the model copied.
    optimizer = build_optimizer(config, model, distillation.bridges)
    check_norms(
        config,
        model,
        num_ranks=max(comm.size, config.elastic.max_ranks if config.elastic else 1),
        num_samples=train_index.num_samples,
    )
    sparsity = build_sparsity(config, model, optimizer, steps_per_epoch=steps_per_epoch)
    buckets = GradientBuckets(trainee, comm)
    ema = Ema(model, decay=config.ema.decay) if config.ema else None
    train_step = TrainStep(
        model=model,
        normalise=Normalise(model.preprocessing.mean, model.preprocessing.std).to(device),
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
        batch_hooks=distillation.stages,
        gradient_hooks=sparsity.gradient_hooks,
        # The average is of what the penalty left.
        update_hooks=[*sparsity.update_hooks, *([ema.update] if ema else [])],
    )
    return Experiment(
        device,
        train_index,
        val_index,
        tasks,
        objective,
        order,
        loader,
        trainee,
        distillation,
        sparsity,
        ema,
        train_step,
    )
