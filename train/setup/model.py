"""The model and the device from the config, and what they must be able to do.

model = build_model(config, index, tasks)
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from data.index import Index
from models.artifact import load_artifact
from models.errors import ModelError
from models.finite import require_finite
from models.preprocessing import PRECISIONS
from models.student import Student, build_student
from models.trial_pass import size_advice, trial_pass
from train.config.schema import Config
from train.distributed import device as machine
from train.distributed.comm import Comm
from train.errors import ConfigError


def choose_device(config: Config, comm: Comm) -> torch.device:
    """The rank's device as the config wants it. Raises ConfigError."""
    return machine.choose_device(config.device, comm, deterministic=config.deterministic)


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
    if error := trial_pass(model, size, device=device, dtype=PRECISIONS[precision]):
        advice = size_advice(model, size, key=key)
        raise ConfigError(f"{key} is {size}, but {whose} does not take {size}x{size} images ({error}); {advice}")


def preprocessing(config: Config, model: Student) -> dict[str, Any]:
    """What an artifact says about its input."""
    return {
        "mean": list(model.preprocessing.mean),
        "std": list(model.preprocessing.std),
        "train_size": config.data.image_size,
        "eval_size": config.data.eval_size or config.data.image_size,
    }
