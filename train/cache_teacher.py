"""Compute a teacher's logits once, for K augmented views of every training photo, and keep them for all students.

    horovodrun -np 8 python -m train.cache_teacher --config FILE --views 4 [--verify 200] [key=value ...]

Takes `teacher.model`, the training data and the augmentation from the config and writes the folder `teacher.cache`.
Stopped or killed, the same command continues; with more views it adds the missing ones. It also runs on its own,
without horovodrun.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from data.errors import DataError
from data.images.transform import ImageTransform
from data.index import Index
from data.loading.loader import Loader
from data.sampling.sampler import Sampler
from data.sampling.view_schedule import ViewSchedule
from data.teacher_logits import LogitReader
from data.teacher_logits.record import record_bytes
from launch.exit_codes import ExitCode
from train.cli.arguments import positive
from train.cli.command import run_command
from train.config.loading import ConfigError, load_config, require_named_models
from train.config.schema import Config, describe
from train.distillation.cache.compute import teacher_blocks
from train.distillation.cache.fill import WAIT_SECONDS, TeacherCaching, caching_progress
from train.distillation.cache.folder import CacheFolder
from train.distillation.cache.verify import TOLERANCE, Check, EntrySampler, check_entries, draw_entries
from train.distillation.loss_terms import teacher_columns
from train.distillation.teacher import Teacher, load_teacher
from train.distributed.comm import Comm, RankLost
from train.distributed.consistency import check_consistency
from train.distributed.preemption import StopSignal
from train.distributed.watchdog import Watchdog
from train.setup.data import choose_tasks, num_workers, open_data, shard_cache, train_pixels
from train.setup.distillation import cache_manifest, require_teacher_size, teacher_classes, teacher_size
from train.setup.model import choose_device
from train.tracking.console import image_progress

START_SECONDS = 600.0  # weights and folders can be far
# Enough to fill any device; the shards' batches, and with them the last bits, must not depend on the number of ranks.
LARGEST_BATCH = 256
SHOWN = 20
NEW_VIEWS = ViewSchedule()  # every epoch its own


@dataclass(frozen=True)
class Work:
    """What computing logits needs, on one rank."""

    config: Config
    comm: Comm
    watchdog: Watchdog
    device: torch.device
    teacher: Teacher
    index: Index
    pixels: ImageTransform
    batch_size: int


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(
        prog="python -m train.cache_teacher", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a run with teacher.model and teacher.cache")
    parser.add_argument("--views", required=True, type=positive, metavar="K", help="views that the cache shall have")
    parser.add_argument("--verify", type=positive, metavar="N", help="then recompute N random entries and compare")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    options = parser.parse_intermixed_args(arguments)  # overrides may stand anywhere
    return run_command(lambda comm: _run(options, comm))


def _run(options: argparse.Namespace, comm: Comm) -> ExitCode:
    config = load_config(options.config, options.overrides)
    check_consistency(comm, config={**describe(config), "--views": options.views, "--verify": options.verify})
    require_named_models(config)
    stop = StopSignal()
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))  # Ctrl-C asks for the same
    with Watchdog(config.watchdog_seconds, rank=comm.rank, flight_recorder=comm.flight_recorder) as watchdog:
        watchdog.feed("reading the data's index and the cache's manifest", at_least=START_SECONDS)
        try:
            return _cache(config, options, comm, watchdog, stop.wanted)
        except RankLost:
            if stop.wanted():  # the other ranks got the signal, too, and were quicker
                return ExitCode.PREEMPTED
            raise


def _cache(
    config: Config, options: argparse.Namespace, comm: Comm, watchdog: Watchdog, stop_wanted: Callable[[], bool]
) -> ExitCode:
    if config.teacher is None or config.teacher.model is None or config.teacher.cache is None:
        raise ConfigError(
            f"{options.config}: caching needs teacher.model, the saved model, and teacher.cache, the folder to write"
        )
    index = _open_data(config)
    folder = CacheFolder(config.teacher.cache)
    folder.take(cache_manifest(config, index), comm)
    caching = TeacherCaching(folder, index, comm=comm, max_bad_share=config.data.max_bad_share)
    for path, size in caching.cut_bytes.items():
        print(f"{path}: cut {size:,} bytes of an unfinished view", flush=True)
    if caching.first_view < options.views or options.verify is not None:
        watchdog.feed("loading the teacher", at_least=START_SECONDS)
        device = choose_device(config, comm)
        work = Work(
            config=config,
            comm=comm,
            watchdog=watchdog,
            device=device,
            teacher=load_teacher(config.teacher.model, device=device, precision=config.precision),
            index=index,
            pixels=train_pixels(config, size=teacher_size(config)),
            batch_size=config.micro_batch or min(config.batch_size, LARGEST_BATCH),
        )
        require_teacher_size(config, work.teacher)
        if not _fill(work, caching, views=options.views, stop_wanted=stop_wanted):
            return ExitCode.PREEMPTED
        if options.verify is not None and not _verify(
            work, folder, views=options.views, num_entries=options.verify, stop_wanted=stop_wanted
        ):
            return ExitCode.PREEMPTED
    if comm.rank == 0:
        _tell(folder, index, asked=options.views)
    return ExitCode.DONE


def _open_data(config: Config) -> Index:
    """The training data. What a training would say of a teacher with other classes is said now, not after hours."""
    classes = teacher_classes(config)
    index, _ = open_data(config, classes)
    teacher_columns(tasks={task: index.tasks[task] for task in choose_tasks(config, index)}, teacher=classes)
    return index


def _fill(work: Work, caching: TeacherCaching, *, views: int, stop_wanted: Callable[[], bool]) -> bool:
    """Compute what is missing; False when it was stopped."""
    stages = caching.stages(views)
    with caching_progress(stages, work.index.counts, shown=work.comm.rank == 0) as advance:

        def progress(num_photos: int) -> None:
            work.watchdog.feed("caching a batch")
            advance(num_photos)

        work.watchdog.feed("the first batch", at_least=START_SECONDS)
        blocks = teacher_blocks(
            work.index,
            stages,
            loader=partial(_loader, work),
            teacher=work.teacher,
            num_classes=caching.folder.manifest.num_classes,
            batch_size=work.batch_size,
            device=work.device,
            progress=progress,
            stop_wanted=stop_wanted,
        )
        return caching.run(views=views, blocks=blocks, watchdog=work.watchdog, stop_wanted=stop_wanted)


def _verify(work: Work, folder: CacheFolder, *, views: int, num_entries: int, stop_wanted: Callable[[], bool]) -> bool:
    """Every rank recomputes its part of the entries; False when it was stopped. DataError with the list when an entry
    of any rank is wrong."""
    entries = draw_entries(work.index.counts, views=views, num=num_entries, seed=work.config.seed)
    mine = entries[work.comm.rank :: work.comm.size]
    walk = EntrySampler(mine, batch_size=work.batch_size)
    with image_progress("Verifying", total=len(mine), shown=work.comm.rank == 0) as advance:

        def progress(num_photos: int) -> None:
            work.watchdog.feed("verifying a batch")
            advance(num_photos)

        work.watchdog.feed("the first batch to verify", at_least=START_SECONDS)
        check = check_entries(
            _loader(work, walk, views=walk.views).batches(),
            walk,
            shard_names=[shard.name for shard in work.index.shards],
            logits=LogitReader(str(folder.path), work.index, num_views=views, cache=None),
            teacher=work.teacher,
            tolerance=TOLERANCE[work.config.precision],
            device=work.device,
            progress=progress,
            stop_wanted=stop_wanted,
        )
    if check is None:
        return False
    work.watchdog.feed("waiting for the other ranks' verdicts", at_least=WAIT_SECONDS)
    _judge(check, num_entries=len(entries), tolerance=TOLERANCE[work.config.precision], comm=work.comm)
    return True


def _loader(work: Work, walk: Sampler, views: ViewSchedule = NEW_VIEWS) -> Loader:
    """The photos of a walk, which is this rank's alone."""
    cache = shard_cache(work.config, work.index.root)
    workers = num_workers(work.config, work.comm)
    return Loader(
        work.index, walk, work.pixels, workers=workers, sharers=work.comm.local_size, cache=cache, view_schedule=views
    )


def _judge(check: Check, *, num_entries: int, tolerance: float, comm: Comm) -> None:
    """DataError with the list when an entry of any rank is wrong."""
    ranks = comm.allgather_object({"largest": check.largest, "problems": check.problems}, name="verified")
    problems = [problem for rank in ranks for problem in rank["problems"]]
    largest = max(rank["largest"] for rank in ranks)
    said = (
        f"largest difference {100 * largest:.3f} % of the row's largest logit ({100 * tolerance:g} % allowed, "
        "for fp16 and other batches)"
    )
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        raise DataError(f"{len(problems)} of {num_entries} verified entries are wrong, {said}:\n{listed}")
    if comm.rank == 0:
        print(f"verified {num_entries:,} entries: {said}", flush=True)


def _tell(folder: CacheFolder, index: Index, *, asked: int) -> None:
    manifest = folder.manifest
    size = manifest.views * index.num_samples * record_bytes(manifest.num_classes)
    more = "" if manifest.views == asked else f" ({asked} were asked for)"
    print(
        f"{folder.path} is complete: {manifest.views} views of {index.num_samples:,} photos{more}, {size:,} bytes, "
        f"{sum(manifest.non_finite):,} rows without finite logits",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
