"""Fills a teacher cache: every rank computes the logits of its own shards, view by view.

caching = TeacherCaching(folder, index, comm=comm, max_bad_share=0.001)
is_done = caching.run(views=4, blocks=blocks, watchdog=watchdog, stop_requested=stop.requested)

A view of a shard is appended as a whole: a kill at any moment loses at most the blocks under way, and the same command
continues there.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import numpy as np

from data.bad_samples import FILE_NAME
from data.errors import DataError, LoaderLost
from data.index import Index
from data.teacher_logits import SidecarWriter
from train.distillation.cache.compute import Block, Stage, Unusable, plan_stages
from train.distillation.cache.folder import CacheFolder
from train.distributed.comm import Comm
from train.distributed.watchdog import Watchdog
from train.tracking.bad_samples import BadSampleLog
from train.tracking.console import image_progress
from train.tracking.tracker import readable_rate, readable_seconds

_NAMED = 50  # samples without finite logits that the manifest names
_SHOWN = 20
# A rank that waits is not stuck: the others have their own watchdogs, and a lost one ends the wait at once.
WAIT_SECONDS = 7 * 86_400.0
_STORED = "no finite logits are stored (computed before an interruption, which took the reason with it)"


def deal_shards(counts: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Shard numbers per rank, ascending: largest first to the rank with the fewest samples."""
    dealt: list[list[int]] = [[] for _ in range(num_ranks)]
    samples = [0] * num_ranks
    for shard in sorted(range(len(counts)), key=lambda number: (-counts[number], number)):
        rank = samples.index(min(samples))
        dealt[rank].append(shard)
        samples[rank] += counts[shard]
    return [sorted(shards) for shards in dealt]


class TeacherCaching:
    """Attributes: num_views, shard -> views that it has, of this rank's shards; first_view, the first that a shard of
    any rank lacks; cut_bytes, sidecar -> bytes of an unfinished view that were cut off."""

    def __init__(self, folder: CacheFolder, index: Index, *, comm: Comm, max_bad_share: float) -> None:
        self.folder, self.index, self.comm = folder, index, comm
        shards = deal_shards(index.counts.tolist(), comm.size)[comm.rank]
        self._writers = {
            shard: SidecarWriter(
                folder.path,
                shard_name=index.shards[shard].name,
                num_samples=index.shards[shard].count,
                num_classes=folder.manifest.num_classes,
            )
            for shard in shards
        }
        self.num_views = {shard: writer.num_views for shard, writer in self._writers.items()}
        self.cut_bytes = {str(writer.path): writer.cut_bytes for writer in self._writers.values() if writer.cut_bytes}
        self._bad_samples = BadSampleLog(
            folder.path / FILE_NAME, comm, num_samples=index.num_samples, max_share=max_bad_share
        )
        fewest = min([folder.manifest.views, *self.num_views.values()])
        self.first_view = min(comm.allgather_object(fewest, name="cached views"))
        if self.first_view < folder.manifest.views:  # a sidecar was deleted or damaged: nobody may count on it
            folder.update(replace(folder.manifest, views=self.first_view), comm)
        self._stored = self._unusable_stored()

    def stages(self, views: int) -> list[Stage]:
        """What this rank has to compute."""
        return plan_stages(self.num_views, views)

    def run(
        self, *, views: int, blocks: Iterator[Block], watchdog: Watchdog, stop_requested: Callable[[], bool]
    ) -> bool:
        """Append the blocks of this rank's stages; False when it was stopped. DataError when more samples have no
        finite logits than data.max_bad_share allows."""
        for view in range(self.first_view, views):
            started = time.monotonic()
            due = [shard for shard, count in self.num_views.items() if count <= view]
            unusable = self._stored.get(view, [])
            written = []
            for block in islice(blocks, len(due)):
                writer = self._writers[block.shard]
                assert writer.num_views == block.view == view
                writer.append(block.logits)
                written.append(block.shard)
                unusable += block.unusable
                self._require_few(unusable)
            if stop_requested():
                return False
            if written != due:
                raise LoaderLost(f"view {view}: {len(written)} of {len(due)} shards were computed")
            watchdog.feed("waiting for the other ranks", at_least=WAIT_SECONDS)
            computed = sum(self.index.shards[shard].count for shard in due)
            self._finish(view, unusable, computed, started, views)
            watchdog.feed("the first batch of a view")
        return True

    def _unusable_stored(self) -> dict[int, list[Unusable]]:
        """View -> samples without finite logits in views that a shard already has, but that some shard lacks."""
        found: dict[int, list[Unusable]] = {}
        for shard, writer in self._writers.items():
            for view in range(self.first_view, writer.num_views):
                logits = writer.read(view)
                if logits is None:
                    raise DataError(f"{writer.path}: view {view} is damaged (crc32c); delete it and repeat the command")
                wrong = np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist()
                if wrong:
                    name, info = self.index.shards[shard].name, self.index.load_shard(shard)
                    named = [(name, info.key(sample), info.bad.get(sample, _STORED)) for sample in wrong]
                    found.setdefault(view, []).extend(named)
        return found

    def _require_few(self, unusable: Sequence[Unusable]) -> None:
        """A broken teacher is told after one block, not after a whole view."""
        if len(unusable) > self._bad_samples.limit:
            listed = "\n".join(f"  {shard} {key}: {reason}" for shard, key, reason in unusable[:_SHOWN])
            raise DataError(
                f"{len(unusable)} samples have no finite logits so far, more than the {self._bad_samples.limit} that "
                f"data.max_bad_share allows (does the teacher overflow in precision {self.folder.manifest.precision}?):"
                f"\n{listed}"
            )

    def _finish(self, view: int, unusable: list[Unusable], computed: int, started: float, views: int) -> None:
        """All ranks have a view: count and name what is not finite, then say in the manifest that it is there."""
        mine = {"computed": computed, "count": len(unusable), "unusable": unusable[: self._bad_samples.limit + 1]}
        ranks = self.comm.allgather_object(mine, name="view is cached")
        named = sorted((shard, key, reason) for rank in ranks for shard, key, reason in rank["unusable"])
        self._bad_samples.add([("train", *record) for record in named], step=view)
        manifest = self.folder.manifest
        known = {(shard, key): reason for shard, key, reason in (*named, *manifest.non_finite_samples)}
        self.folder.update(
            replace(
                manifest,
                views=view + 1,
                non_finite=(*manifest.non_finite[:view], sum(rank["count"] for rank in ranks)),
                non_finite_samples=tuple((*sample, known[sample]) for sample in sorted(known)[:_NAMED]),
            ),
            self.comm,
        )
        if self.comm.rank == 0:
            total = sum(rank["computed"] for rank in ranks)
            rate = readable_rate(total / (time.monotonic() - started))
            done = f"{total:,} photos, {rate} images/s" if total else "its photos were cached before"
            print(f"view {view + 1} of {views}: {done}", flush=True)


_LINE_SECONDS = 60.0


@contextmanager
def caching_progress(stages: Sequence[Stage], counts: np.ndarray, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Gives the function that counts photos. stages: of this rank; counts: samples per shard."""
    total = sum((stage.stop - stage.first) * int(counts[list(stage.shards)].sum()) for stage in stages)
    if not shown or sys.stderr.isatty():
        with image_progress("Caching", total=total, shown=shown) as advance:
            yield advance
        return
    done, started, told = 0, time.monotonic(), time.monotonic()

    def count(num_photos: int) -> None:
        nonlocal done, told
        done += num_photos
        now = time.monotonic()
        if now - told > _LINE_SECONDS:
            told = now
            left = readable_seconds((now - started) / done * (total - done))
            print(f"{done:,} of this rank's {total:,} photos, {left} to go", flush=True)

    yield count
