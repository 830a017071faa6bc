"""The folder of a teacher cache that is being written: its lock, its manifest, and who it belongs to.

folder = CacheFolder("shards/train/teacher"); folder.take(expected, comm)
"""

from pathlib import Path

from data.files import sweep
from data.storage import is_remote, local_root
from data.teacher_logits import MANIFEST_NAME, LogitManifest, check_manifest, load_manifest, write_manifest
from launch.file_lock import FileLock
from train.distributed.comm import Comm
from train.errors import ConfigError


class CacheFolder:
    """Attributes: path; manifest, once the folder is taken."""

    manifest: LogitManifest

    def __init__(self, root: str) -> None:
        if is_remote(root):
            raise ConfigError(
                f"teacher.cache {root}: a cache is written to a local folder; set teacher.cache to one and copy it "
                "there afterwards (training reads it from anywhere)"
            )
        self.path = Path(local_root(root))
        self._lock: FileLock | None = None

    def take(self, expected: LogitManifest, comm: Comm) -> None:
        """Make and lock the folder (rank 0 does), write a first manifest or check the one that is there.

        ConfigError when it cannot be used; DataError when its logits are of something else."""
        trouble = self._prepare(expected) if comm.rank == 0 else None
        trouble = comm.allgather_object(trouble, name="teacher cache folder")[0]
        if trouble is not None:
            raise ConfigError(trouble)
        self.manifest = load_manifest(str(self.path))
        check_manifest(self.manifest, expected, root=str(self.path))

    def update(self, manifest: LogitManifest, comm: Comm) -> None:
        """What every rank knows, rank 0 writes; it is there for all when this returns."""
        self.manifest = manifest
        if comm.rank == 0:
            write_manifest(self.path, manifest)
        comm.allgather_object(None, name="manifest is written")

    def _prepare(self, expected: LogitManifest) -> str | None:
        """What is wrong, in words."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            is_ours = self._lock.acquire()
        except OSError as error:
            return f"teacher.cache {self.path}: cannot be made ({error.strerror})"
        if not is_ours:
            return f"teacher.cache {self.path}: another caching is writing it; wait for it or choose another folder"
        sweep(self.path, alone=True)  # what a caching left that was killed while it wrote
        stored = list(self.path.glob("*.logits"))
        if stored and not (self.path / MANIFEST_NAME).exists():
            return f"teacher.cache {self.path}: holds logits but no {MANIFEST_NAME} says of what; delete them"
        if any(file.stat().st_size for file in stored):
            return None
        # Without a logit, an earlier manifest is that of a call which failed at once, and binds nobody.
        write_manifest(self.path, expected.with_identity())
        return None
