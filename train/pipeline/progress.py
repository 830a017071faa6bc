"""How far a stage is, as one line that is drawn anew, with the time to go.

with TrainingProgress("teacher", Path("phone/teacher")) as progress: code = progress.wait(child)
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_EVERY = 1.0  # seconds
_LAST_BYTES = 4096  # of metrics.jsonl, which hold its last line


class StageProgress:
    """Nothing is known of how far it is; on a terminal its time is shown."""

    def __init__(self, name: str = "") -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, *times, console=console, disable=not console.is_terminal, transient=True)
        self._bar = self._bars.add_task(name, total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def share(self) -> float | None:
        """Of the work that is done, from 0 to 1; None where that is not known."""
        return None

    def wait(self, child: subprocess.Popen[bytes]) -> int:
        """Until the child ends; its exit code."""
        while True:
            try:
                return child.wait(_EVERY)
            except subprocess.TimeoutExpired:
                if (share := self.share()) is not None:
                    self._bars.update(self._bar, total=1.0, completed=share)


class TrainingProgress(StageProgress):
    """Of a run, by the last line of its metrics."""

    def __init__(self, name: str, run: Path) -> None:
        super().__init__(name)
        self._metrics = run / "metrics.jsonl"

    def share(self) -> float | None:
        try:
            with self._metrics.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
                lines = file.read().splitlines()
            progress = [json.loads(line).get("progress") for line in lines[1:] or lines if line.endswith(b"}")]
        except (OSError, ValueError):
            return None
        known = [float(share) for share in progress if share is not None]
        return known[-1] if known else None
