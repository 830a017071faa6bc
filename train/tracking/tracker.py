"""Where a run's numbers go: an fsynced JSONL (the truth), the console, and Weights & Biases.

tracker = Tracker([JsonlLogger(path), PlainLogger(["age"], epochs=60)]); tracker.log({"kind": "train", "step": 20, ...})
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from train.tracking.jsonl import JsonLines

Record = Mapping[str, Any]


class MetricLogger(Protocol):
    def log(self, record: Record) -> None: ...

    def finish(self, artifact: Path | None) -> None: ...


class Tracker:
    """Hands every record to every logger. Only rank 0 has loggers. more_of_training: measured for each record of
    training, and added to it."""

    def __init__(
        self, loggers: Sequence[MetricLogger], *, more_of_training: Callable[[], Record] | None = None
    ) -> None:
        self._loggers, self._more_of_training = list(loggers), more_of_training

    def log(self, record: Record) -> None:
        if self._more_of_training is not None and record["kind"] == "train":
            record = {**record, **self._more_of_training()}
        for logger in self._loggers:
            logger.log(record)

    def finish(self, artifact: Path | None = None) -> None:
        for logger in self._loggers:
            logger.finish(artifact)


class JsonlLogger:
    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path, sync=True)

    def log(self, record: Record) -> None:
        self._lines.write({key: value for key, value in record.items() if key != "confusion"})

    def finish(self, artifact: Path | None) -> None:
        self._lines.close()


class PlainLogger:
    """One line per record, for logs and pipes."""

    def __init__(self, tasks: Sequence[str], *, epochs: int) -> None:
        self._tasks, self._epochs = list(tasks), epochs

    def log(self, record: Record) -> None:
        print(describe_record(record, self._tasks, self._epochs), flush=True)

    def finish(self, artifact: Path | None) -> None:
        sys.stdout.flush()


def describe_record(record: Record, tasks: Sequence[str], epochs: int) -> str:
    """One readable line from a record."""
    head = f"epoch {record['epoch'] + 1}/{epochs} step {record['step'] + 1}"
    if record["kind"] == "evaluation":
        parts = [_describe_task(record, task) for task in tasks if record.get(f"{task}.count")]
        missing = sum(record.get(f"{task}.no_answer", 0) for task in tasks)
        return f"{head}  validation: {', '.join(parts)}" + (f"  {missing:.0f} answers not a number" if missing else "")
    terms = {name.removeprefix("loss."): value for name, value in record.items() if name.startswith("loss.")}
    losses = " ".join(f"{term} {value:.3f}" for term, value in terms.items() if not math.isnan(value))
    skipped = f"  {record['skipped_updates']:.0f} updates skipped" if record["skipped_updates"] else ""
    rate, left = readable_rate(record["images_per_second"]), readable_seconds(record["seconds_left"])
    return f"{head}  loss {record['loss']:.3f} ({losses})  lr {record['lr']:.2e}  {rate} images/s  left {left}{skipped}"


def _describe_task(record: Record, task: str) -> str:
    error = record.get(f"{task}.mean_absolute_error")
    ordered = "" if error is None or math.isnan(error) else f" (mean abs. error {error:.3f})"
    return f"{task} {100 * record[f'{task}.top1']:.1f} %{ordered}"


def readable_rate(rate: float) -> str:
    """Whole numbers, but two digits of what is below ten: a slow run is not at 0."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def readable_seconds(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
