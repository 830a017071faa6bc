"""The parts that every run of a config needs: data, model and the stepper that updates it.

parts = build_parts(config, comm)
"""

from dataclasses import dataclass

import torch

from data.index import Index
from data.loader import Loader
from data.order import SampleOrder
from models.student import Student
from train import assemble
from train.buckets import GradientBuckets
from train.comm import Comm
from train.config import Config
from train.ema import Ema
from train.meter import Meter
from train.objective import Objective
from train.step import Normalise, Stepper


@dataclass(frozen=True)
class Parts:
    device: torch.device
    train_index: Index
    val_index: Index | None
    tasks: dict[str, int]  # task -> number of classes
    objective: Objective
    order: SampleOrder
    loader: Loader
    model: Student
    ema: Ema[Student] | None
    stepper: Stepper

    @property
    def measured(self) -> Student:
        """The model that is evaluated and saved: the moving average where there is one."""
        return self.ema.model if self.ema else self.model


def build_parts(config: Config, comm: Comm) -> Parts:
    """Raises ConfigError, DataError or ModelError where the config, the data and the model do not go together."""
    device = assemble.choose_device(config, comm)
    train_index, val_index = assemble.open_data(config)
    tasks = assemble.choose_tasks(config, train_index)
    assemble.check_monitor(config, tasks)
    objective = assemble.build_objective(config, train_index, tasks)
    order, loader = assemble.train_loader(config, train_index, comm)
    model = assemble.build_model(config, train_index, tasks).to(device).to(memory_format=torch.channels_last)
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
        meter=Meter(objective, list(tasks), device),
        comm=comm,
        device=device,
        learning_rate=assemble.learning_rate(config, order.steps_per_epoch),
        precision=config.precision,
        micro_batch=config.micro_batch,
        clip_norm=config.optimizer.clip_norm,
        seed=config.seed,
        update_stages=[ema.update] if ema else [],
    )
    return Parts(device, train_index, val_index, tasks, objective, order, loader, model, ema, stepper)
