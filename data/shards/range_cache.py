"""A size-bounded disk cache of byte ranges of remote shards.

    cache = RangeCache(directory, max_bytes=50_000_000_000)
    cache.prefetch(index, shard, first, last)      # fetched in the background
    data = cache.read(index, shard, offset, size)   # from disk, or fetched now

A rank owns stretches of many shards, seldom a whole one, so the cache keeps pages, not shards: per shard one sparse
file with the data and behind it one byte per page that says whether the page is there. Names hold the hash of the full
address and of the shard's content, so equal base names never meet and a rewritten shard is another entry. Several
processes may use one folder: a page is marked after it was written, and two that fetch the same page write the same
bytes.
"""

import contextlib
import hashlib
import mmap
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data.errors import BadSample, DataError
from data.index import Index
from data.storage import read_range

PAGE = 4096  # bytes; small, so that a run of images fetches hardly more than itself
DEFAULT_CACHE_BYTES = 50_000_000_000
_THREADS = 8
_OPEN_ENTRIES = 256
_RESCAN_SHARE = 0.005  # of max_bytes fetched between two looks at the folder


class _Entry:
    """The cache file of one shard: sparse data, then the map of pages that are there.

    One file, because another process that drops an entry must drop data and map at once.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        num_pages = -(-size // PAGE)
        self.data = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self.data, num_pages * (PAGE + 1))
        mapped = mmap.mmap(self.data, num_pages * (PAGE + 1))
        self.pages = np.frombuffer(mapped, dtype=np.uint8, offset=num_pages * PAGE)
        self.pending: dict[tuple[int, int], Future[None]] = {}
        self.used = 0.0

    def missing(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Page ranges [first, last) inside [offset, end) bytes that are not there."""
        low, high = offset // PAGE, -(-end // PAGE)
        holes = np.flatnonzero(self.pages[low:high] == 0) + low
        if not len(holes):
            return []
        groups = np.split(holes, np.flatnonzero(np.diff(holes) > 1) + 1)
        return [(int(group[0]), int(group[-1]) + 1) for group in groups]

    def evicted(self) -> bool:
        return os.fstat(self.data).st_nlink == 0

    def close(self) -> None:
        os.close(self.data)


class RangeCache:
    """See the module's docstring.

    Args:
        directory: a local folder, shared by the ranks of a host.
        max_bytes: the least recently used shards are dropped when the folder passes it.
    """

    def __init__(self, directory: str | Path, *, max_bytes: int) -> None:
        self.directory, self.max_bytes = Path(directory), max_bytes
        self.directory.mkdir(parents=True, exist_ok=True)
        self.fetched_bytes = 0
        self._under_way = 0  # bytes that fetches have made room for and not yet written
        self._since_scan = max_bytes  # look once before the first fetch
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._lock = threading.RLock()
        self._pool: ThreadPoolExecutor | None = None

    def prefetch(self, index: Index, shard: int, first: int, last: int) -> None:
        """Fetch bytes [first, last) of a shard in the background. Errors show when the bytes are read."""
        with self._lock:
            entry = self._entry(index, shard)
            self._pool = self._pool or ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch")
            for pages in entry.missing(first, last):
                if not any(low <= pages[0] and pages[1] <= high for low, high in entry.pending):
                    url = index.shard_url(shard)
                    entry.pending[pages] = self._pool.submit(self._fetch_pending, entry, url, pages)

    def read(self, index: Index, shard: int, offset: int, size: int) -> bytes:
        """Bytes [offset, offset + size) of a shard. BadSample when the shard is not there, DataError when the network
        fails for good."""
        end = offset + size
        if end > index.shards[shard].bytes:
            raise BadSample("the index points past the end of the shard")
        with self._lock:
            entry = self._entry(index, shard)
            waits = [
                future for (low, high), future in entry.pending.items() if low * PAGE < end and offset < high * PAGE
            ]
        for future in waits:
            with contextlib.suppress(BadSample, DataError):  # tried again below, where the error has a reader
                future.result()
        for pages in entry.missing(offset, end):
            self._fetch(entry, index.shard_url(shard), pages)
        return os.pread(entry.data, size, offset)

    def forget(self, index: Index, shard: int, offset: int, size: int) -> None:
        """Drop bytes that turned out wrong (a machine that crashed while writing them): they are fetched again."""
        with self._lock:
            self._entry(index, shard).pages[offset // PAGE : -(-(offset + size) // PAGE)] = 0

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            while self._entries:
                self._entries.popitem()[1].close()

    def _entry(self, index: Index, shard: int) -> _Entry:
        """The open entry of a shard; opened again when another process evicted it."""
        url, info = index.shard_url(shard), index.shards[shard]
        name = (url, info.sha256)
        entry = self._entries.get(name)
        if entry is not None and entry.evicted() and not entry.pending:
            self._entries.pop(name).close()
            entry = None
        if entry is None:
            file_name = hashlib.sha256(f"{url}|{info.sha256}".encode()).hexdigest()[:40] + ".bin"
            entry = self._entries[name] = _Entry(self.directory / file_name, info.bytes)
            self._close_old_entries()
        self._entries.move_to_end(name)
        if time.time() - entry.used > 1:
            entry.used = time.time()
            with contextlib.suppress(FileNotFoundError):
                os.utime(entry.path)
        return entry

    def _close_old_entries(self) -> None:
        for name in list(self._entries)[: max(0, len(self._entries) - _OPEN_ENTRIES)]:
            if not self._entries[name].pending:
                self._entries.pop(name).close()

    def _fetch_pending(self, entry: _Entry, url: str, pages: tuple[int, int]) -> None:
        try:
            self._fetch(entry, url, pages)
        finally:
            with self._lock:
                entry.pending.pop(pages, None)

    def _fetch(self, entry: _Entry, url: str, pages: tuple[int, int]) -> None:
        start, end = pages[0] * PAGE, min(pages[1] * PAGE, entry.size)
        self._make_room(end - start, keep=entry)
        try:
            data = read_range(url, start, end)
            os.pwrite(entry.data, data, start)
        finally:
            with self._lock:
                self._under_way -= end - start
        entry.pages[pages[0] : pages[1]] = 1
        with self._lock:
            self.fetched_bytes += len(data)

    def _make_room(self, size: int, keep: _Entry) -> None:
        with self._lock:
            self._under_way += size
            self._since_scan += size
            if self._since_scan < self.max_bytes * _RESCAN_SHARE:
                return
            self._since_scan = 0
            total = self._under_way
        files = []
        for path in self.directory.glob("*.bin"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime, status.st_blocks * 512, path))
        total += sum(used for _, used, _ in files)
        for _, used, path in sorted(files):
            if total <= self.max_bytes * (1 - _RESCAN_SHARE):
                break
            if path != keep.path:
                path.unlink(missing_ok=True)
                total -= used
