"""From a config to the parts of a run. Each function takes what it needs and returns one part.

model = build_model(config, index, tasks)
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.class_counts import count_classes
from data.index import Index
from models.artifact import load_artifact
from models.errors import ModelError
from models.finite import require_finite
from models.parameter_groups import parameter_groups
from models.student import Student, build_student
from models.trial_pass import size_advice, trial_pass
from train import machine
from train.comm import Comm
from train.config import Config, OptimizerConfig, ScheduleConfig, TaskConfig
from train.config_file import ConfigError
from train.objective import Term, label_term
from train.schedule import learning_rate_factor, weight_ramp
from train.step import PRECISIONS


def choose_device(config: Config, comm: Comm) -> torch.device:
    """The rank's device as the config wants it. Raises ConfigError."""
    return machine.choose_device(config.device, comm, deterministic=config.deterministic)


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


def check_norms(config: Config, model: nn.Module, *, num_ranks: int, num_samples: int) -> None:
    """After the optimizer, which freezes parts. Norms that train need two samples at a time: a lone one, as a remainder
    may be, goes by the running statistics, but if all did, these would stay at their start. Raises ConfigError."""
    norms = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
    ]
    batch = min(config.batch_size, num_samples)
    if not norms or (config.micro_batch != 1 and batch > num_ranks):
        return
    if config.micro_batch == 1:
        what, least = "micro_batch is 1", "at least 2"
    else:
        what = f"batch_size is {batch}, at most one sample for each rank ({num_ranks})"
        least = f"at least {2 * num_ranks}, or fewer ranks"
    raise ConfigError(
        f"{what}: the {len(norms)} batch norms of the model (such as {norms[0]}) would see one sample at a time, of "
        f"which they cannot learn; take {least}, freeze the parts that hold them (model.freeze), or take a backbone "
        "without batch norm"
    )


def check_measure_names(terms: Sequence[str], tasks: Sequence[str]) -> None:
    """In the logs every loss term and every task's measure has a name of its own. Raises ConfigError."""
    names = [*(f"loss.{term}" for term in terms), *(f"{task}.top1" for task in tasks)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(
            f"tasks: with {', '.join(tasks)} two measures of the logs would be called {twice[0]}; rename one of the "
            "tasks, or leave it out"
        )


def label_terms(
    config: Config, index: Index, tasks: Mapping[str, int], *, shares: Mapping[str, float], steps_per_epoch: int
) -> list[Term]:
    """One label term per task. shares: what a task's weight is multiplied with, 1 where it is not named."""
    terms = []
    for task, num_classes in tasks.items():
        options = (config.tasks or {}).get(task, TaskConfig())
        terms.append(
            label_term(
                task,
                weight=options.weight * shares.get(task, 1.0),
                ramp=weight_schedule(config, steps_per_epoch, power=options.ramp),
                loss=options.loss,
                class_weights=_class_weights(options.class_weights, task, num_classes, index),
                label_smoothing=options.label_smoothing,
                focal_gamma=options.focal_gamma,
            )
        )
    return terms


def weight_schedule(config: Config, steps_per_epoch: int, *, power: float) -> Callable[[int], float] | None:
    """Step -> what a loss term's weight is multiplied with; None: 1 throughout."""
    if not power:
        return None
    return partial(weight_ramp, steps_per_epoch=steps_per_epoch, epochs=config.schedule.epochs, power=power)


def build_model(config: Config, index: Index, tasks: Mapping[str, int]) -> Student:
    """A new student, the saved one to fine-tune, or one of its shape with weights drawn from the run's seed. Raises
    ConfigError or ModelError."""
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
        if not settings.fresh_weights:
            require_finite(model, settings.artifact)
        else:
            torch.manual_seed(config.seed)
            model = build_student(**model.architecture)
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


def require_sizes(config: Config, model: Student, device: torch.device) -> None:
    """The network must take both sizes, said before the first photo is read. Raises ConfigError."""
    whose = (
        f"model.{'artifact' if config.model.artifact else 'backbone'} {config.model.artifact or config.model.backbone}"
    )
    sizes = {"data.image_size": config.data.image_size}
    # Without one of its own, the evaluation takes the training's size.
    if config.data.eval_size not in (None, config.data.image_size):
        sizes["data.eval_size"] = config.data.eval_size
    for key, size in sizes.items():
        require_size(model, size, key=key, whose=whose, device=device, precision=config.precision)


def require_size(model: Student, size: int, *, key: str, whose: str, device: torch.device, precision: str) -> None:
    """key: the setting that names the size; whose: the model's setting and value. Raises ConfigError."""
    if trouble := trial_pass(model, size, device=device, dtype=PRECISIONS[precision]):
        advice = size_advice(model, size, key=key)
        raise ConfigError(f"{key} is {size}, but {whose} does not take {size}x{size} images ({trouble}); {advice}")


def build_optimizer(config: Config, model: Student, bridges: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the parameter groups, one of them the bridges' where there are any. The fused kernels can skip
    an update without telling the host."""
    settings: OptimizerConfig = config.optimizer
    groups = parameter_groups(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        norm_bias_decay=settings.decay_norms_and_biases,
        multipliers=config.model.lr_multipliers,
        freeze=config.model.freeze,
    )
    if trained := list(bridges.parameters()):
        more = {"params": trained, "name": "bridges", "lr": settings.lr, "lr_multiplier": 1.0}
        groups.append({**more, "weight_decay": settings.weight_decay})
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


def preprocessing(config: Config, model: Student) -> dict[str, Any]:
    """What an artifact says about its input."""
    return {
        "mean": list(model.preprocessing.mean),
        "std": list(model.preprocessing.std),
        "train_size": config.data.image_size,
        "eval_size": config.data.eval_size or config.data.image_size,
    }


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
