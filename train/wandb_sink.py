"""Weights & Biases as one more place for the numbers; whatever goes wrong there never ends a run.

sink = WandbSink(settings..., run_id=state["wandb_id"])
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.tracking import Record


def new_run_id() -> str:
    """An id that stays the run's over restarts; it is kept in the checkpoint."""
    import secrets

    return secrets.token_hex(4)


class WandbSink:
    """One W&B run on rank 0. After the first failure it says so once and stays silent."""

    def __init__(
        self,
        *,
        mode: str,
        project: str,
        name: str | None,
        directory: Path,
        run_id: str,
        config: Mapping[str, Any],
        classes: Mapping[str, Sequence[str]],
    ) -> None:
        self._classes = classes
        self._run: Any = None
        self._try(lambda: self._start(mode, project, name, directory, run_id, config))

    def log(self, record: Record) -> None:
        if self._run is not None:
            self._try(lambda: self._log(record))

    def finish(self, artifact: Path | None) -> None:
        if self._run is not None:
            self._try(lambda: self._finish(artifact))

    def _start(
        self, mode: str, project: str, name: str | None, directory: Path, run_id: str, config: Mapping[str, Any]
    ) -> None:
        import wandb

        self._run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            project=project,
            name=name,
            dir=str(directory),
            id=run_id,
            resume="allow",
            config=dict(config),
            # Offline records otherwise wait up to 15 s in memory, where a kill finds them.
            settings=wandb.Settings(x_transaction_log_flush_interval=1, silent=True, disable_git=True),
        )
        # W&B's own step starts at 0 after every restart; ours is the axis.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _log(self, record: Record) -> None:
        kind = record["kind"]
        values = {
            f"{kind}/{key}": value for key, value in record.items() if isinstance(value, int | float) and key != "step"
        }
        for task, matrix in record.get("confusion", {}).items():
            values[f"{kind}/confusion.{task}"] = self._confusion_table(task, matrix)
        for key in [key for key in record if key.endswith(".histogram")]:
            values[f"{kind}/{key}"] = self._histogram(record[key], record[f"{key}_edges"])
        self._run.log({"step": record["step"], **values})

    def _histogram(self, counts: Sequence[int], edges: Sequence[float]) -> Any:
        import wandb

        return wandb.Histogram(np_histogram=(np.array(counts), np.array(edges)))

    def _confusion_table(self, task: str, matrix: Sequence[Sequence[float]]) -> Any:
        import wandb

        names = self._classes[task]
        rows = [
            [names[true], names[predicted], int(count)]
            for true, counts in enumerate(matrix)
            for predicted, count in enumerate(counts)
        ]
        return wandb.Table(columns=["true", "predicted", "count"], data=rows)

    def _finish(self, artifact: Path | None) -> None:
        import wandb

        if artifact is not None:
            logged = wandb.Artifact(f"model-{self._run.id}", type="model")
            logged.add_dir(str(artifact))
            self._run.log_artifact(logged)  # not waited for: that raises offline
        self._run.finish()

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever W&B raises, the JSONL has the numbers
            print(f"W&B failed and is switched off for this run: {type(error).__name__}: {error}", file=sys.stderr)
            self._run = None
