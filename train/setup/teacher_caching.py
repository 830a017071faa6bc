"""What filling a teacher's cache needs of a config: `setup = caching_setup(config, name="run.yaml")`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from data.index import Index
from data.loading.loader import Loader
from data.sampling.sampler import Sampler
from data.sampling.view_schedule import ViewSchedule
from data.teacher_logits import LogitManifest
from train.config.schema import Config
from train.distillation.loss_terms import teacher_columns
from train.distillation.teacher import Teacher, load_teacher
from train.distributed.comm import Comm
from train.errors import ConfigError
from train.setup.data import choose_tasks, num_workers, open_data, shard_cache, train_pixels
from train.setup.distillation import cache_manifest, require_teacher_size, teacher_classes, teacher_size
from train.setup.model import choose_device

# Enough to fill any device; the shards' batches, and with them the last bits, must not depend on the number of ranks.
_LARGEST_BATCH = 256


@dataclass(frozen=True)
class CachingSetup:
    """folder: of the cache. manifest: what the cache is made with. device: this rank's. load_teacher: onto a device.
    loader: the photos of a sampler, which is one rank's alone, in the views of a schedule."""

    folder: str
    index: Index
    manifest: LogitManifest
    max_bad_share: float
    batch_size: int
    precision: str
    seed: int
    device: Callable[[Comm], torch.device]
    load_teacher: Callable[[torch.device], Teacher]
    loader: Callable[[Sampler, Comm, ViewSchedule], Loader]


def caching_setup(config: Config, *, name: str) -> CachingSetup:
    """name: of the config's file. What a training would say of a teacher with other classes is said now, not after
    hours. Raises ConfigError, DataError or ModelError."""
    teacher = config.teacher
    if teacher is None or teacher.model is None or teacher.cache is None:
        raise ConfigError(
            f"{name}: caching needs teacher.model, the saved model, and teacher.cache, the folder to write"
        )
    classes = teacher_classes(config)
    index, _ = open_data(config, classes)
    teacher_columns(tasks={task: index.tasks[task] for task in choose_tasks(config, index)}, teacher=classes)
    return CachingSetup(
        folder=teacher.cache,
        index=index,
        manifest=cache_manifest(config, index),
        max_bad_share=config.data.max_bad_share,
        batch_size=config.micro_batch or min(config.batch_size, _LARGEST_BATCH),
        precision=config.precision,
        seed=config.seed,
        device=partial(choose_device, config),
        load_teacher=partial(_load_teacher, config, teacher.model),
        loader=partial(_loader, config, index),
    )


def _load_teacher(config: Config, model: str | Mapping[str, str], device: torch.device) -> Teacher:
    teacher = load_teacher(model, device=device, precision=config.precision)
    require_teacher_size(config, teacher)
    return teacher


def _loader(config: Config, index: Index, sampler: Sampler, comm: Comm, view_schedule: ViewSchedule) -> Loader:
    return Loader(
        index,
        sampler,
        train_pixels(config, size=teacher_size(config)),
        workers=num_workers(config, comm),
        sharers=comm.local_size,
        cache=shard_cache(config, index.root),
        view_schedule=view_schedule,
    )
