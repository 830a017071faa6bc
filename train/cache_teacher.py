"""Compute a teacher's logits once, for K augmented views of every training photo, and keep them for all students.

    horovodrun -np 8 python -m train.cache_teacher --config FILE --views 4 [--verify 200] [key=value ...]

Takes `teacher.model`, the training data and the augmentation from the config and writes the folder `teacher.cache`.
Stopped or killed, the same command continues; with more views it adds the missing ones. It also runs on its own,
without horovodrun.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data.errors import DataError
from data.index import Index
from data.sampling.view_schedule import ViewSchedule
from data.teacher_logits import LogitReader
from data.teacher_logits.record import record_bytes
from launch.arguments import positive
from launch.exit_codes import ExitCode
from train.cli.command import run_command
from train.config.loading import load_config, require_named_models
from train.config.schema import describe
from train.distillation.cache.compute import teacher_blocks
from train.distillation.cache.fill import WAIT_SECONDS, TeacherCaching, caching_progress
from train.distillation.cache.folder import CacheFolder
from train.distillation.cache.verify import TOLERANCE, Check, EntrySampler, check_entries, draw_entries
from train.distillation.teacher import Teacher
from train.distributed.comm import Comm
from train.distributed.consistency import check_consistency
from train.distributed.preemption import StopSignal
from train.distributed.watchdog import Watchdog
from train.errors import RankLost
from train.setup.precision import choose_precision
from train.setup.run_settings import run_settings
from train.setup.teacher_caching import CachingSetup, caching_setup
from train.tracking.console import image_progress

START_SECONDS = 600.0  # weights and folders can be far
SHOWN = 20
NEW_VIEWS = ViewSchedule()  # every epoch its own


@dataclass(frozen=True)
class CacheTeacherOptions:
    """verify: entries to recompute afterwards, None for none."""

    config: str
    views: int
    verify: int | None
    overrides: Sequence[str]


@dataclass(frozen=True)
class Work:
    """What computing logits needs, on one rank."""

    setup: CachingSetup
    comm: Comm
    watchdog: Watchdog
    stop: StopSignal
    device: torch.device
    teacher: Teacher


def parse_options(arguments: Sequence[str] | None) -> CacheTeacherOptions:
    parser = argparse.ArgumentParser(
        prog="python -m train.cache_teacher", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a run with teacher.model and teacher.cache")
    parser.add_argument("--views", required=True, type=positive, metavar="K", help="views that the cache shall have")
    parser.add_argument("--verify", type=positive, metavar="N", help="then recompute N random entries and compare")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    found = parser.parse_intermixed_args(arguments)  # overrides may stand anywhere
    return CacheTeacherOptions(found.config, found.views, found.verify, tuple(found.overrides))


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    return run_command(lambda comm: _run(options, comm))


def _run(options: CacheTeacherOptions, comm: Comm) -> ExitCode:
    config = choose_precision(load_config(options.config, options.overrides))
    check_consistency(comm, config={**describe(config), "--views": options.views, "--verify": options.verify})
    require_named_models(config)
    with (
        StopSignal(signal.SIGINT) as stop,  # Ctrl-C asks for the same
        Watchdog(
            run_settings(config).watchdog_seconds, rank=comm.rank, flight_recorder=comm.flight_recorder
        ) as watchdog,
    ):
        watchdog.feed("reading the data's index and the cache's manifest", at_least=START_SECONDS)
        try:
            return _cache(caching_setup(config, name=options.config), options, comm, watchdog, stop)
        except RankLost:
            if stop.requested():  # the other ranks got the signal, too, and were quicker
                return ExitCode.PREEMPTED
            raise


def _cache(
    setup: CachingSetup, options: CacheTeacherOptions, comm: Comm, watchdog: Watchdog, stop: StopSignal
) -> ExitCode:
    folder = CacheFolder(setup.folder)
    folder.take(setup.manifest, comm)
    caching = TeacherCaching(folder, setup.index, comm=comm, max_bad_share=setup.max_bad_share)
    for path, size in caching.cut_bytes.items():
        print(f"{path}: cut {size:,} bytes of an unfinished view", flush=True)
    if caching.first_view < options.views or options.verify is not None:
        watchdog.feed("loading the teacher", at_least=START_SECONDS)
        device = setup.device(comm)
        work = Work(setup, comm, watchdog, stop, device, setup.load_teacher(device))
        if not _fill(work, caching, views=options.views):
            return ExitCode.PREEMPTED
        if options.verify is not None and not _verify(work, folder, views=options.views, num_entries=options.verify):
            return ExitCode.PREEMPTED
    if comm.rank == 0:
        _print_result(folder, setup.index, wanted=options.views)
    return ExitCode.DONE


def _fill(work: Work, caching: TeacherCaching, *, views: int) -> bool:
    """Compute what is missing; False when it was stopped."""
    setup, stages = work.setup, caching.stages(views)
    with caching_progress(stages, setup.index.counts, shown=work.comm.rank == 0) as advance:

        def progress(num_images: int) -> None:
            work.watchdog.feed("caching a batch")
            advance(num_images)

        work.watchdog.feed("the first batch", at_least=START_SECONDS)
        blocks = teacher_blocks(
            setup.index,
            stages,
            loader=lambda sampler: setup.loader(sampler, work.comm, NEW_VIEWS),
            teacher=work.teacher,
            num_classes=caching.folder.manifest.num_classes,
            batch_size=setup.batch_size,
            device=work.device,
            progress=progress,
            stop_requested=work.stop.requested,
        )
        return caching.run(views=views, blocks=blocks, watchdog=work.watchdog, stop_requested=work.stop.requested)


def _verify(work: Work, folder: CacheFolder, *, views: int, num_entries: int) -> bool:
    """Every rank recomputes its part of the entries; False when it was stopped. DataError with the list when an entry
    of any rank is wrong."""
    setup, tolerance = work.setup, TOLERANCE[work.setup.precision]
    entries = draw_entries(setup.index.counts, views=views, num=num_entries, seed=setup.seed)
    mine = entries[work.comm.rank :: work.comm.size]
    sampler = EntrySampler(mine, batch_size=setup.batch_size)
    with image_progress("Verifying", total=len(mine), shown=work.comm.rank == 0) as advance:

        def progress(num_images: int) -> None:
            work.watchdog.feed("verifying a batch")
            advance(num_images)

        work.watchdog.feed("the first batch to verify", at_least=START_SECONDS)
        check = check_entries(
            setup.loader(sampler, work.comm, sampler.views).batches(),
            sampler,
            shard_names=[shard.name for shard in setup.index.shards],
            logits=LogitReader(str(folder.path), setup.index, num_views=views, cache=None),
            teacher=work.teacher,
            tolerance=tolerance,
            device=work.device,
            progress=progress,
            stop_requested=work.stop.requested,
        )
    if check is None:
        return False
    work.watchdog.feed("waiting for the other ranks' verdicts", at_least=WAIT_SECONDS)
    _judge(check, num_entries=len(entries), tolerance=tolerance, comm=work.comm)
    return True


def _judge(check: Check, *, num_entries: int, tolerance: float, comm: Comm) -> None:
    """DataError with the list when an entry of any rank is wrong."""
    ranks = comm.allgather_object({"largest": check.largest, "errors": check.errors}, name="verified")
    errors = [error for rank in ranks for error in rank["errors"]]
    largest = max(rank["largest"] for rank in ranks)
    said = (
        f"largest difference {100 * largest:.3f} % of the row's largest logit ({100 * tolerance:g} % allowed, "
        "for fp16 and other batches)"
    )
    if errors:
        listed = "\n".join(f"  {error}" for error in errors[:SHOWN])
        raise DataError(f"{len(errors)} of {num_entries} verified entries are wrong, {said}:\n{listed}")
    if comm.rank == 0:
        print(f"verified {num_entries:,} entries: {said}", flush=True)


def _print_result(folder: CacheFolder, index: Index, *, wanted: int) -> None:
    manifest = folder.manifest
    size = manifest.views * index.num_samples * record_bytes(manifest.num_classes)
    more = "" if manifest.views == wanted else f" ({wanted} were asked for)"
    print(
        f"{folder.path} is complete: {manifest.views} views of {index.num_samples:,} photos{more}, {size:,} bytes, "
        f"{sum(manifest.non_finite):,} rows without finite logits",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
