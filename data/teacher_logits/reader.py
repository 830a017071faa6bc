"""Stored logits of single samples, from memory-mapped local files or through the cache of remote ranges.

reader = LogitReader("shards/train/teacher", index, num_views=4, cache=None)
logits = reader.read(shard=3, sample=17, view=epoch % 4)  # float16 [num_classes], all tasks behind one another
"""

import hashlib
import mmap
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.errors import BadSample, DataError
from data.index import Index, Shard
from data.sampling.sampler import Run
from data.shards.range_cache import RangeCache
from data.storage import is_remote, join_url, local_root, read_bytes
from data.teacher_logits.manifest import MANIFEST_NAME, parse_manifest
from data.teacher_logits.record import Owner, record_bytes, sidecar_name, unpack_record

_OPEN_FILES = 256


class LogitReader:
    """Attributes: manifest; num_views, the views that may be read (K' <= K); num_classes, the columns of a row.

    Args:
        root: the cache folder (path, file://, http(s):// or s3://).
        index: the data whose shards and samples are asked for by number.
        num_views: how many of the cached views the run uses.
        cache: for a remote folder.

    Raises DataError when there are fewer views, when shards differ, and when a local file is not there, too short or
    another shard's or cache's.
    """

    def __init__(self, root: str, index: Index, *, num_views: int, cache: RangeCache | None) -> None:
        self.root, self.num_views, self._cache = local_root(root), num_views, cache
        self._remote = is_remote(self.root)
        if self._remote and cache is None:
            raise ValueError("a remote teacher cache is read through a cache")
        url = join_url(self.root, MANIFEST_NAME)
        data = read_bytes(url)
        self.manifest = parse_manifest(data, url)
        if not 0 < num_views <= self.manifest.views:
            raise DataError(
                f"{self.root}: {num_views} views are asked for, {self.manifest.views} are cached; ask for fewer "
                f"(augment.views) or add some: python -m train.cache_teacher --views {num_views}"
            )
        self.num_classes = self.manifest.num_classes
        self._record = record_bytes(self.num_classes)
        self._counts = index.counts.tolist()
        self._sidecars = self._list_sidecars(index, identity=hashlib.sha256(data).hexdigest())
        self._owners = [Owner(self.manifest.identity, shard.name) for shard in index.shards]
        self._files: OrderedDict[int, mmap.mmap] = OrderedDict()
        if not self._remote:
            for number, shard in enumerate(self._sidecars.shards):
                self._require_whole(shard)
                self._require_own(number)

    def read(self, shard: int, sample: int, view: int) -> np.ndarray:
        """float16 [num_classes] of one view (0 to num_views - 1), read-only. DataError when the bytes are damaged."""
        offset = (view * self._counts[shard] + sample) * self._record
        if self._remote:
            return self._read_remote(shard, sample, view, offset)
        file = self._files.get(shard)
        if file is None:
            file = self._map(shard)
        else:
            self._files.move_to_end(shard)
        logits = self._unpack(file[offset : offset + self._record], shard, sample, view)
        if logits is None:
            raise self._damaged(shard, sample, view)
        return logits

    def prefetch(self, runs: Sequence[Run], *, view: int) -> None:
        """Announce what will be read soon: remote ranges are fetched in the background."""
        if self._cache is None or not self._remote:
            return
        for run in runs:
            first = view * self._counts[run.shard]
            low, high = ((first + sample) * self._record for sample in (run.first, run.last))
            self._cache.prefetch(self._sidecars, run.shard, low, high)

    def _list_sidecars(self, index: Index, *, identity: str) -> Index:
        """The sidecars as shards, in the order of the data's: what RangeCache asks an index for. Their identity is the
        manifest's hash, so that a cache that was made anew or has more views is fetched anew."""
        cached = {shard.name: shard for shard in self.manifest.shards}
        sidecars = []
        for shard in index.shards:
            known = cached.get(shard.name)
            if known is None or (known.count, known.sha256) != (shard.count, shard.sha256):
                raise DataError(
                    f"{self.root}: holds no logits of shard {shard.name} as it is in {index.root}; was the data "
                    "written anew? Then cache anew (python -m train.cache_teacher) into another folder"
                )
            size = self.manifest.views * shard.count * self._record
            sidecars.append(Shard(sidecar_name(shard.name), shard.count, size, identity, 0))
        return Index(self.root, self.manifest.tasks, tuple(sidecars))

    def _require_whole(self, shard: Shard) -> None:
        """Longer is legal: a view may be under way."""
        path = Path(self.root) / shard.name
        size = path.stat().st_size if path.exists() else None
        if size is None or size < shard.bytes:
            found = "is missing" if size is None else f"has {size} of {shard.bytes} bytes (truncated?)"
            raise DataError(f"{path}: {found}; python -m train.cache_teacher completes the cache")

    def _require_own(self, shard: int) -> None:
        """By one record: the others are checked when they are read."""
        with (Path(self.root) / self._sidecars.shards[shard].name).open("rb") as file:
            if self._unpack(file.read(self._record), shard, 0, 0) is None:
                raise self._damaged(shard, 0, 0)

    def _unpack(self, record: bytes, shard: int, sample: int, view: int) -> np.ndarray | None:
        return unpack_record(record, owner=self._owners[shard], view=view, sample=sample)

    def _map(self, shard: int) -> mmap.mmap:
        sidecar = self._sidecars.shards[shard]
        self._require_whole(sidecar)
        with (Path(self.root) / sidecar.name).open("rb") as file:
            mapped = self._files[shard] = mmap.mmap(file.fileno(), sidecar.bytes, access=mmap.ACCESS_READ)
        if len(self._files) > _OPEN_FILES:  # a mapping holds a file descriptor, of which a process has about 1,000
            self._files.popitem(last=False)[1].close()
        return mapped

    def _read_remote(self, shard: int, sample: int, view: int, offset: int) -> np.ndarray:
        assert self._cache is not None
        try:
            logits = self._unpack(self._cache.read(self._sidecars, shard, offset, self._record), shard, sample, view)
            if logits is None:
                self._cache.forget(self._sidecars, shard, offset, self._record)
                data = self._cache.read(self._sidecars, shard, offset, self._record)
                logits = self._unpack(data, shard, sample, view)
        except BadSample as error:
            raise DataError(f"{self._sidecars.shard_url(shard)}: {error.reason}") from error
        if logits is None:
            raise self._damaged(shard, sample, view)
        return logits

    def _damaged(self, shard: int, sample: int, view: int) -> DataError:
        return DataError(
            f"{self._sidecars.shard_url(shard)}: the logits of sample {sample}, view {view}, are damaged (crc32c), or "
            "the file is another shard's or cache's; delete it, python -m train.cache_teacher writes it again"
        )
