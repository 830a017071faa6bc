"""The folder of one run: its lock, its saved config, and what may have changed since.

with RunFolder(path) as folder: folder.create(); folder.lock(); folder.check_config(resolved, allow_changes=False)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from data.files import write_result
from launch.file_lock import FileLock
from train.config.flat import flat
from train.errors import ConfigError

# What may differ between stop and resume without changing what is learned.
_FREE = (
    "run.",
    "tracking.",
    "data.workers",
    "data.cache.",
    "data.max_bad_share",
    "checkpoint.",
    "watchdog_seconds",
    "trace_samples",
    "micro_batch",
    "elastic",
    "device",
)


class RunFolder:
    """Paths inside a run folder, and who owns it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.bad_samples = self.path / "bad_samples.jsonl"
        self.config = self.path / "config.yaml"
        self.result = self.path / "result.json"
        self.best = self.path / "best"
        self.last = self.path / "last"
        self._lock: FileLock | None = None

    def trace(self, rank: int) -> Path:
        return self.path / f"trace-rank{rank}.jsonl"

    def holds_checkpoints(self) -> bool:
        return any(self.checkpoints.glob("step-*.safetensors"))  # not what a killed save left

    def create(self) -> None:
        """Make it, or say why not. Raises ConfigError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run.dir {self.path}: cannot be made ({error.strerror})") from error

    def lock(self) -> None:
        """Until this process ends. Raises ConfigError when another run holds it."""
        self._lock = FileLock(self.path / ".lock")
        try:
            is_ours = self._lock.acquire()
        except OSError as error:
            raise ConfigError(
                f"run.dir {self.path}: cannot be locked there ({error.strerror}); choose another"
            ) from error
        if not is_ours:
            raise ConfigError(f"run.dir {self.path}: another run is using it; wait for it or choose another")

    def unlock(self) -> None:
        """Another run may have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.unlock()

    def finished(self) -> dict[str, Any] | None:
        """The result of a run that is done, else None."""
        return json.loads(self.result.read_text(encoding="utf-8")) if self.result.exists() else None

    def check_config(self, resolved: Mapping[str, Any], *, allow_changes: bool) -> None:
        """Compare with the config that the run began with. Raises ConfigError naming what changed.

        A run that has no checkpoint yet has learned nothing: its config may still be put right.
        """
        if not self.config.exists() or not self.holds_checkpoints():
            return
        before = flat(yaml.safe_load(self.config.read_text(encoding="utf-8")))
        now = flat(resolved)
        changed = [
            f"  {key}: {before.get(key)!r} -> {now.get(key)!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and not key.startswith(_FREE)
        ]
        if changed and not allow_changes:
            raise ConfigError(
                f"run.dir {self.path} holds a run with another config:\n" + "\n".join(changed) + "\n"
                "take another run.dir, or say run.allow_changes=true to continue it with the new values"
            )

    def save_config(self, resolved: Mapping[str, Any]) -> None:
        _replace(self.config, yaml.safe_dump(dict(resolved), sort_keys=False))

    def save_result(self, result: Mapping[str, Any]) -> None:
        """From now on the run is finished."""
        _replace(self.result, json.dumps(result, indent=2, allow_nan=False))


def _replace(path: Path, text: str) -> None:
    path.with_suffix(".part").unlink(missing_ok=True)  # left by a version before data.files
    write_result(path, text.encode())
