"""From a config to the parts of a run. Each function takes what it needs and returns one part.

train_index, val_index = open_data(config)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.augment import OPERATION_NAMES, POLICIES, Operations
from data.class_counts import count_classes
from data.errors import DataError
from data.index import Index, load_index
from data.loader import EvalOrder, Loader, Pixels
from data.order import SampleOrder
from data.storage import is_remote
from models.artifact import load_artifact
from models.errors import ModelError
from models.parameter_groups import parameter_groups
from models.student import Student, build_student
from train import machine
from train.comm import Comm
from train.config import AugmentConfig, Config, OptimizerConfig, ScheduleConfig
from train.config_file import ConfigError
from train.objective import Objective, label_term
from train.schedule import learning_rate_factor


def choose_device(config: Config, comm: Comm) -> torch.device:
    """The rank's device as the config wants it. Raises ConfigError."""
    return machine.choose_device(config.device, comm, deterministic=config.deterministic)


def open_data(config: Config) -> tuple[Index, Index | None]:
    """The training and validation index; they must agree on tasks and classes. Raises DataError."""
    train = load_index(config.data.train)
    if train.num_samples == 0:
        raise DataError(f"{config.data.train}: the index has no samples")
    if config.data.val is None:
        return train, None
    val = load_index(config.data.val)
    if val.num_samples == 0:
        raise DataError(f"{config.data.val}: the index has no samples")
    for task in choose_tasks(config, train):
        if task not in val.tasks:
            raise DataError(f"task {task!r} is in {config.data.train} but not in {config.data.val}")
        if val.tasks[task] != train.tasks[task]:
            raise DataError(
                f"task {task!r} has other classes in {config.data.val} ({len(val.tasks[task])}) than in "
                f"{config.data.train} ({len(train.tasks[task])}): "
                f"{_first_difference(train.tasks[task], val.tasks[task])}"
            )
    return train, val


def choose_tasks(config: Config, index: Index) -> dict[str, int]:
    """Task -> number of classes, in the config's order (default: all of the index). Raises ConfigError."""
    names = list(index.tasks) if config.tasks is None else list(config.tasks)
    for name in names:
        if name not in index.tasks:
            raise ConfigError(f"tasks.{name}: {config.data.train} has no such task; it has {', '.join(index.tasks)}")
    if not names:
        raise ConfigError("tasks: at least one task is needed")
    return {name: len(index.tasks[name]) for name in names}


def check_monitor(config: Config, tasks: Mapping[str, int]) -> None:
    """What is watched must be measured: said at the start, not after the first epoch. Raises ConfigError."""
    if config.data.val is None:
        if config.schedule.patience is not None:
            raise ConfigError("schedule.patience: needs data.val, whose results it waits for")
        return
    measured = ["mean_top1"]
    for task, num_classes in tasks.items():
        names = ("top1", "macro_f1", "loss", *(("top5",) if num_classes > 5 else ()))
        measured += [f"{task}.{name}" for name in names]
    if config.checkpoint.monitor not in measured:
        raise ConfigError(f"checkpoint.monitor: {config.checkpoint.monitor!r} is not among {', '.join(measured)}")


def build_objective(config: Config, index: Index, tasks: Mapping[str, int]) -> Objective:
    """One label term per task."""
    terms = []
    for task, num_classes in tasks.items():
        options = (config.tasks or {}).get(task)
        if options is None:
            terms.append(label_term(task))
            continue
        terms.append(
            label_term(
                task,
                weight=options.weight,
                loss=options.loss,
                class_weights=_class_weights(options.class_weights, task, num_classes, index),
                label_smoothing=options.label_smoothing,
                focal_gamma=options.focal_gamma,
            )
        )
    return Objective(terms)


def build_model(config: Config, index: Index, tasks: Mapping[str, int]) -> Student:
    """A new student, or the saved one to fine-tune. Raises ConfigError or ModelError."""
    settings = config.model
    torch.manual_seed(config.seed)
    if settings.artifact is not None:
        model, meta = load_artifact(settings.artifact)
        for task in tasks:
            if meta.tasks.get(task) != index.tasks[task]:
                raise ModelError(
                    f"{settings.artifact}: its classes of task {task!r} are {meta.tasks.get(task)}, "
                    f"the data has {index.tasks[task]}"
                )
        if list(tasks) != list(meta.tasks):
            raise ModelError(f"{settings.artifact} has tasks {list(meta.tasks)}, the config {list(tasks)}")
    else:
        assert settings.backbone is not None
        head = {name: value for name, value in settings.head.model_dump().items() if value is not None}
        dropout = head.pop("dropout", 0.0)
        model = build_student(
            backbone=settings.backbone,
            head=head,
            tasks=tasks,
            pretrained=settings.pretrained,
            drop_rate=dropout,
            drop_path_rate=settings.drop_path,
        )
    if settings.max_params is not None and model.num_parameters > settings.max_params:
        raise ConfigError(
            f"the model has {model.num_parameters:,} parameters, model.max_params is {settings.max_params:,}; "
            f"take a smaller backbone or head, or raise the limit"
        )
    return model.train()


def build_optimizer(config: Config, model: Student) -> torch.optim.Optimizer:
    """The optimizer over the parameter groups. The fused kernels can skip an update without telling the host."""
    settings: OptimizerConfig = config.optimizer
    groups = parameter_groups(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        norm_bias_decay=settings.decay_norms_and_biases,
        multipliers=config.model.lr_multipliers,
        freeze=config.model.freeze,
    )
    if settings.kind == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        sgd = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=True)
        if settings.momentum:
            _start_momentum(sgd)
        return sgd
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.kind]
    return kind(groups, lr=settings.lr, betas=settings.betas, fused=True)


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Momentum begins at 0. The fused kernel would make room for it in the first step and, should that step be skipped
    (fp16 often skips it), go on with whatever the memory held."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def learning_rate(config: Config, steps_per_epoch: int) -> Callable[[int], float]:
    """Step -> learning rate."""
    schedule: ScheduleConfig = config.schedule
    factor = partial(
        learning_rate_factor,
        steps_per_epoch=steps_per_epoch,
        epochs=schedule.epochs,
        warmup_epochs=schedule.warmup_epochs,
        warmup_factor=schedule.warmup_factor,
        decay=schedule.decay,
        final_factor=schedule.final_factor,
        milestones=schedule.milestones,
        gamma=schedule.gamma,
    )
    return lambda step: config.optimizer.lr * factor(step)


def operations(augment: AugmentConfig) -> Operations:
    """The policy's operations with the single ones that the config sets."""
    chosen = {name: getattr(augment, name) for name in OPERATION_NAMES}
    set_by_hand = {name: value for name, value in chosen.items() if value is not None}
    return Operations(**{**POLICIES[augment.policy].__dict__, **set_by_hand})


def num_workers(config: Config, comm: Comm) -> int:
    """Decoding processes of a rank."""
    return machine.num_decoders(comm) if config.data.workers == "auto" else config.data.workers


def shard_cache(config: Config, index: Index) -> tuple[str, int] | None:
    """(folder, bytes) of the cache of a remote set."""
    if not is_remote(index.root):
        return None
    return config.data.cache.dir or str(machine.shard_cache_folder()), int(config.data.cache.max_gigabytes * 1e9)


def train_loader(config: Config, index: Index, comm: Comm) -> tuple[SampleOrder, Loader]:
    """The order of all epochs and this rank's loader."""
    if config.data.lanes < comm.size:
        raise ConfigError(
            f"data.lanes is {config.data.lanes}, but there are {comm.size} ranks; every rank needs a lane: "
            f"set it to {comm.size} or more"
        )
    if config.batch_size < comm.size:
        raise ConfigError(
            f"batch_size is {config.batch_size} over all ranks, but there are {comm.size} ranks; a rank would be idle: "
            f"raise it or start fewer ranks"
        )
    order = SampleOrder(
        index.counts,
        seed=config.seed,
        batch_size=config.batch_size,
        block=config.data.block,
        lanes=config.data.lanes,
        window=config.data.window,
    )
    pixels = Pixels(
        size=config.data.image_size,
        operations=operations(config.augment),
        seed=config.augment.seed,
        max_pixels=config.data.max_pixels,
        num_views=config.augment.views,
    )
    return order, _loader(config, index, order, pixels, comm)


def eval_loader(config: Config, index: Index, comm: Comm) -> Loader:
    """Every sample once, at eval_size, without augmentation."""
    size = config.data.eval_size or config.data.image_size
    batch_size = config.micro_batch or max(1, config.batch_size // comm.size)
    order = EvalOrder(index.counts, batch_size=batch_size, num_ranks=comm.size)
    pixels = Pixels(size=size, operations=POLICIES["none"], max_pixels=config.data.max_pixels)
    return _loader(config, index, order, pixels, comm)


def preprocessing(config: Config, model: Student) -> dict[str, Any]:
    """What an artifact says about its input."""
    return {
        "mean": list(model.preprocessing.mean),
        "std": list(model.preprocessing.std),
        "train_size": config.data.image_size,
        "eval_size": config.data.eval_size or config.data.image_size,
    }


def _loader(config: Config, index: Index, order: SampleOrder | EvalOrder, pixels: Pixels, comm: Comm) -> Loader:
    return Loader(
        index,
        order,
        pixels,
        rank=comm.rank,
        num_ranks=comm.size,
        workers=num_workers(config, comm),
        cache=shard_cache(config, index),
    )


def _class_weights(setting: Any, task: str, num_classes: int, index: Index) -> Tensor | None:
    if setting is None:
        return None
    if setting == "balanced":
        counts = count_classes(index)[task][:-1]  # the last number counts missing labels
        # A class without a sample never occurs; any weight does.
        return torch.tensor(counts.sum() / (num_classes * np.maximum(counts, 1)), dtype=torch.float32)
    if len(setting) != num_classes:
        raise ConfigError(f"tasks.{task}.class_weights: {len(setting)} weights for {num_classes} classes")
    return torch.tensor(setting, dtype=torch.float32)


def _first_difference(one: tuple[str, ...], other: tuple[str, ...]) -> str:
    only_one, only_other = sorted(set(one) - set(other)), sorted(set(other) - set(one))
    if only_one or only_other:
        return f"only in train: {only_one[:5]}, only in val: {only_other[:5]}"
    return "the same names in another order"
