"""The data of a run from its config: indices, sample sampler, loaders.

train_index, val_index = open_data(config, taught={})
"""

from collections.abc import Iterable, Iterator, Mapping

from data.errors import DataError
from data.images.augment import OPERATION_NAMES, POLICIES, Operations
from data.images.transform import ImageTransform
from data.index import Index, load_index, match_classes
from data.loading.eval_loader import EvalBatch, eval_batches
from data.loading.image_sets import ShardImages
from data.loading.loader import Loader, TeacherData
from data.sampling.sampler import TrainSampler
from data.sampling.view_schedule import ViewSchedule
from data.storage import is_remote
from launch.cache_folder import cache_folder
from models.artifact import load_artifact_meta
from train.config.schema import AugmentConfig, Config, TaskConfig
from train.distributed.comm import Comm
from train.distributed.device import num_decoders
from train.errors import ConfigError
from train.evaluation.class_values import values_of_classes


def open_data(config: Config, taught: Mapping[str, tuple[str, ...]]) -> tuple[Index, Index | None]:
    """The training and validation index, with classes in the order of the model to fine-tune, else of the training
    data; all are matched by name. Raises DataError or ConfigError.

    taught: task -> class names of the teacher. A task that the config names and only the teacher knows has no label
    anywhere and is learnt from the teacher alone.
    """
    train = _with_taught(_open(config.data.train), config, taught)
    chosen = choose_tasks(config, train)
    known = {task: classes for task, classes in _model_tasks(config).items() if task in chosen}
    train = match_classes(train, known, of=str(config.model.artifact))
    if config.data.val is None:
        return train, None
    val = _with_taught(_open(config.data.val), config, taught)
    for task in chosen:
        if task not in val.tasks:
            raise DataError(f"task {task!r} is in {config.data.train} but not in {config.data.val}")
    return train, match_classes(val, {task: train.tasks[task] for task in chosen}, of=config.data.train)


def choose_tasks(config: Config, index: Index) -> dict[str, int]:
    """Task -> number of classes, in the order of the model to fine-tune, else of the config (default: all of the
    index). Raises ConfigError."""
    names = list(index.tasks) if config.tasks is None else list(config.tasks)
    for name in names:
        if name not in index.tasks:
            raise ConfigError(f"tasks.{name}: {config.data.train} has no such task; it has {', '.join(index.tasks)}")
    if not names:
        why = "" if index.tasks else f"; {config.data.train} has no labels, so a teacher must bring them"
        raise ConfigError(f"tasks: at least one task is needed{why}")
    model_tasks = _model_tasks(config)
    ordered = list(model_tasks) if set(names) == set(model_tasks) else names
    return {name: len(index.tasks[name]) for name in ordered}


def class_values(config: Config, index: Index, tasks: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """Task -> value of each class, of the tasks that are ordered; see train.evaluation.class_values. Where the config
    says nothing, the model to fine-tune does. Raises ConfigError."""
    values = {}
    known = {} if config.model.artifact is None else load_artifact_meta(config.model.artifact).class_values
    for task in tasks:
        order = (config.tasks or {}).get(task, TaskConfig()).ordered
        if order is None:
            if task in known:
                values[task] = known[task]
        elif order is not False:
            try:
                values[task] = values_of_classes(index.tasks[task], order)
            except ValueError as error:
                raise ConfigError(f"tasks.{task}.ordered: {error}") from error
    return values


def _model_tasks(config: Config) -> dict[str, tuple[str, ...]]:
    """Task -> class names of the model to fine-tune, {} without one. Raises ModelError."""
    return {} if config.model.artifact is None else load_artifact_meta(config.model.artifact).tasks


def _open(url: str) -> Index:
    index = load_index(url)
    if index.num_samples == 0:
        raise DataError(f"{url}: the index has no samples")
    return index


def _with_taught(index: Index, config: Config, taught: Mapping[str, tuple[str, ...]]) -> Index:
    """Data without any label has the teacher's tasks unless the config names some."""
    wanted = config.tasks if config.tasks is not None else ({} if index.tasks else taught)
    return index.with_unlabelled({task: taught[task] for task in wanted if task in taught and task not in index.tasks})


def operations(augment: AugmentConfig) -> Operations:
    """The policy's operations with the single ones that the config sets."""
    chosen = {name: getattr(augment, name) for name in OPERATION_NAMES}
    set_by_hand = {name: value for name, value in chosen.items() if value is not None}
    return Operations(**{**POLICIES[augment.policy].__dict__, **set_by_hand})


def num_workers(config: Config, comm: Comm) -> int:
    """Decoding processes of a rank."""
    return num_decoders(comm) if config.data.workers == "auto" else config.data.workers


def shard_cache(config: Config, *urls: str | None) -> tuple[str, int] | None:
    """(folder, bytes) of the cache of remote files; None where none of the places is remote."""
    if not any(url is not None and is_remote(url) for url in urls):
        return None
    return config.data.cache.dir or str(cache_folder("shards")), int(config.data.cache.max_gigabytes * 1e9)


def train_loader(
    config: Config, index: Index, comm: Comm, *, views: ViewSchedule, teacher: TeacherData
) -> tuple[TrainSampler, Loader]:
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
    sampler = TrainSampler(
        index.counts,
        seed=config.seed,
        batch_size=config.batch_size,
        block=config.data.block,
        lanes=config.data.lanes,
        window=config.data.window,
    )
    loader = Loader(
        index,
        sampler,
        train_pixels(config, size=config.data.image_size),
        rank=comm.rank,
        num_ranks=comm.size,
        workers=num_workers(config, comm),
        sharers=comm.local_size,
        cache=shard_cache(config, index.root, teacher.cache),
        view_schedule=views,
        teacher=teacher,
    )
    return sampler, loader


def train_pixels(config: Config, *, size: int) -> ImageTransform:
    """The augmented views at a size."""
    return ImageTransform(
        size=size, operations=operations(config.augment), seed=config.augment.seed, max_pixels=config.data.max_pixels
    )


def eval_size(config: Config) -> int:
    """Pixels of the images that the model is evaluated on."""
    return config.data.eval_size or config.data.image_size


def validation_batches(config: Config, index: Index, comm: Comm) -> Iterator[EvalBatch]:
    """Every sample once, at eval_size, without augmentation: a pass as that of `python -m train.evaluate`."""
    return eval_batches(
        ShardImages(index, cache=shard_cache(config, index.root)),
        sizes=[eval_size(config)],
        num_views=1,
        batch_size=config.micro_batch or max(1, config.batch_size // comm.size),
        workers=num_workers(config, comm),
        rank=comm.rank,
        num_ranks=comm.size,
        sharers=comm.local_size,
        max_pixels=config.data.max_pixels,
    )
