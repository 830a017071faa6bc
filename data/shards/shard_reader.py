"""Image bytes of single samples, checked against the index.

reader = ShardReader(index)
jpeg = reader.read(shard=3, sample=17)  # raises BadSample where the bytes are not the indexed ones
"""

import os
from collections import OrderedDict
from collections.abc import Sequence

import google_crc32c

from data.errors import BadSample
from data.index import Index, ShardIndex
from data.sampling.sampler import Run
from data.shards.range_cache import RangeCache
from data.storage import is_remote

_OPEN_FILES = 256
# Rows of the index that stay loaded: three default blocks (the one in use, the next, and slack), about 40 bytes each.
_LOADED_SAMPLES = 786_432


class ShardReader:
    """Reads samples by number from the shards of one index, local or remote (through `cache`)."""

    def __init__(self, index: Index, cache: RangeCache | None = None) -> None:
        self.index = index
        self._cache = cache
        self._remote = is_remote(index.root)
        if self._remote and cache is None:
            raise ValueError("a remote data set is read through a cache")
        self._infos: OrderedDict[int, ShardIndex] = OrderedDict()
        self._loaded_samples = 0
        self._files: OrderedDict[int, int] = OrderedDict()

    def info(self, shard: int) -> ShardIndex:
        """The per-sample index of a shard; the recently used ones stay loaded."""
        info = self._infos.get(shard)
        if info is None:
            info = self._infos[shard] = self.index.load_shard(shard)
            self._loaded_samples += len(info)
            # A batch draws from all shards of its block: dropping by number of shards would reload small ones for ever.
            while self._loaded_samples > _LOADED_SAMPLES and len(self._infos) > 1:
                self._loaded_samples -= len(self._infos.popitem(last=False)[1])
        else:
            self._infos.move_to_end(shard)
        return info

    def read(self, shard: int, sample: int) -> bytes:
        """The bytes of one image. BadSample when they cannot be had or are not the ones that were indexed."""
        info = self.info(shard)
        reason = info.bad.get(sample)
        if reason is not None:
            raise BadSample(reason)
        offset, size = int(info.offset[sample]), int(info.size[sample])
        data = self._fetch(shard, offset, size)
        if self._cache is not None and self._remote and google_crc32c.value(data) != int(info.crc32c[sample]):
            self._cache.forget(self.index, shard, offset, size)
            data = self._fetch(shard, offset, size)
        if len(data) != size:
            raise BadSample(f"the shard ends after {len(data)} of the {size} bytes of this image (truncated?)")
        if google_crc32c.value(data) != int(info.crc32c[sample]):
            raise BadSample("the bytes differ from the indexed ones (crc32c); was the shard damaged or rewritten?")
        return data

    def prefetch(self, runs: Sequence[Run]) -> None:
        """Announce what will be read soon: remote ranges are fetched in the background, local ones read ahead."""
        for run in runs:
            info = self.info(run.shard)
            first = int(info.offset[run.first : run.last].min())
            last = int((info.offset[run.first : run.last] + info.size[run.first : run.last]).max())
            if self._cache is not None and self._remote:
                self._cache.prefetch(self.index, run.shard, first, last)
            elif (file := self._open(run.shard)) is not None:
                os.posix_fadvise(file, first, last - first, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])
        if self._cache is not None:
            self._cache.close()

    def _fetch(self, shard: int, offset: int, size: int) -> bytes:
        if self._cache is not None and self._remote:
            return self._cache.read(self.index, shard, offset, size)
        file = self._open(shard)
        if file is None:
            raise BadSample(f"shard {self.index.shards[shard].name} cannot be opened (missing?)")
        return os.pread(file, size, offset)

    def _open(self, shard: int) -> int | None:
        file = self._files.get(shard)
        if file is not None:
            self._files.move_to_end(shard)
            return file
        try:
            file = os.open(self.index.shard_url(shard), os.O_RDONLY)
        except OSError:
            return None
        self._files[shard] = file
        if len(self._files) > _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        return file
