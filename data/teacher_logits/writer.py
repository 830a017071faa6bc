"""Appends views to the sidecar of one shard, so that a kill at any moment leaves whole views and at most a torn tail.

writer = SidecarWriter(root, shard_name="000000.tar", num_samples=1000, num_classes=127)
while writer.num_views < 4: writer.append(logits)  # float16 [1000, 127]
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from data.files import sync
from data.teacher_logits.manifest import MANIFEST_NAME, load_manifest
from data.teacher_logits.record import Owner, pack_block, record_bytes, sidecar_name, unpack_record


class SidecarWriter:
    """Attributes: path; num_views, the whole views in the file; cut_bytes, what opening it cut from its end because a
    view was torn (a kill in the middle of a write) or its checksums were wrong (a crash of the machine, or the file of
    another shard or cache). The manifest is in the folder before the first sidecar."""

    def __init__(self, root: str | Path, *, shard_name: str, num_samples: int, num_classes: int) -> None:
        self.path = Path(root) / sidecar_name(shard_name)
        self.num_samples, self.num_classes = num_samples, num_classes
        self._owner = Owner(_identity(self.path.with_name(MANIFEST_NAME)), shard_name)
        self._record = record_bytes(num_classes)
        self._block = num_samples * self._record
        size = self.path.stat().st_size if self.path.exists() else 0
        self.num_views = size // self._block
        while self.num_views and self.read(self.num_views - 1) is None:
            self.num_views -= 1
        self.cut_bytes = size - self.num_views * self._block
        if self.cut_bytes:
            os.truncate(self.path, self.num_views * self._block)

    def append(self, logits: np.ndarray) -> None:
        """logits: float16 [num_samples, num_classes] of the next view; on disk when this returns."""
        if logits.dtype != np.float16 or logits.shape != (self.num_samples, self.num_classes):
            wanted = f"float16 [{self.num_samples}, {self.num_classes}]"
            raise ValueError(f"{self.path}: a view is {wanted}, not {logits.dtype} {list(logits.shape)}")
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(pack_block(logits, owner=self._owner, view=self.num_views))
        sync(self.path)
        if is_new:
            sync(self.path.parent)
        self.num_views += 1

    def read(self, view: int) -> np.ndarray | None:
        """A whole view, float16 [num_samples, num_classes]; None where a checksum is wrong."""
        with self.path.open("rb") as file:
            file.seek(view * self._block)
            data = file.read(self._block)
        rows = [
            unpack_record(data[at : at + self._record], owner=self._owner, view=view, sample=sample)
            for sample, at in enumerate(range(0, self._block, self._record))
        ]
        whole = [row for row in rows if row is not None]
        return np.stack(whole) if len(whole) == self.num_samples else None


def _identity(manifest: Path) -> str:
    """What the cache's manifest says."""
    status = manifest.stat() if manifest.exists() else None
    return "" if status is None else _read_identity(manifest, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=1)
def _read_identity(manifest: Path, _stamp: tuple[int, int, int]) -> str:
    """Kept, because a rank opens a sidecar for each of thousands of shards."""
    return load_manifest(str(manifest.parent)).identity
