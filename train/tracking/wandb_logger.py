"""Weights & Biases as one more place for the numbers; whatever goes wrong there never ends a run.

logger = WandbLogger(settings..., run_id=state["wandb_id"])
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from train.evaluation.confusions import MOST_CLASSES, Cell, all_cells, worst_confusions
from train.tracking.tracker import Record

MOST_CONFUSIONS = 100  # rows of the table of a task with more than MOST_CLASSES classes


def new_run_id() -> str:
    """An id that stays the run's over restarts; it is kept in the checkpoint."""
    import secrets

    return secrets.token_hex(4)


class WandbLogger:
    """One W&B run on rank 0. After the first failure it says so once and stays silent.

    Everything that an upload will need stays below `directory`, and offline records name it from there, so that the
    folder may be copied to a machine with a network: `cd RUN && wandb sync wandb`. Pieces of a run that was stopped
    and continued have one id, and are joined by the upload.
    """

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
        self._classes, self._directory, self._is_offline = classes, directory.absolute(), mode == "offline"
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
        if self._is_offline:
            log_artifact = self._run.log_artifact  # which W&B calls for tables, too
            self._run.log_artifact = lambda artifact: log_artifact(self._from_here(artifact))

    def _log(self, record: Record) -> None:
        kind = record["kind"]
        values = {
            f"{kind}/{key}": value for key, value in record.items() if isinstance(value, int | float) and key != "step"
        }
        for task, matrix in record.get("confusion", {}).items():
            is_whole = len(matrix) <= MOST_CLASSES
            name = "confusion" if is_whole else f"{MOST_CONFUSIONS}_worst_confusions"
            cells = all_cells(matrix) if is_whole else worst_confusions(matrix, MOST_CONFUSIONS)
            values[f"{kind}/{name}.{task}"] = self._table(self._classes[task], cells)
        for key in [key for key in record if key.endswith(".histogram")]:
            values[f"{kind}/{key}"] = self._histogram(record[key], record[f"{key}_edges"])
        self._run.log({"step": record["step"], **values})

    def _histogram(self, counts: Sequence[int], edges: Sequence[float]) -> Any:
        import wandb

        return wandb.Histogram(np_histogram=(np.array(counts), np.array(edges)))

    def _table(self, names: Sequence[str], cells: Sequence[Cell]) -> Any:
        import wandb

        rows = [[names[true], names[predicted], count] for true, predicted, count in cells]
        return wandb.Table(columns=["true", "predicted", "count"], data=rows)

    def _finish(self, artifact: Path | None) -> None:
        import wandb

        if artifact is not None:
            logged = wandb.Artifact(f"model-{self._run.id}", type="model")
            for path in sorted(artifact.iterdir()):  # a saved model stays as it is, so nothing is copied
                logged.add_file(str(path.absolute()), policy="immutable", skip_cache=True)
            self._run.log_artifact(logged)  # not waited for: that raises offline
        self._run.finish()
        if self._is_offline:
            print(f"to send the run to W&B: (cd {self._directory} && wandb sync wandb)", flush=True)

    def _from_here(self, artifact: Any) -> Any:
        """With the paths of its files as they are seen from the run folder."""
        for entry in artifact.manifest.entries.values():
            if entry.local_path and Path(entry.local_path).is_relative_to(self._directory):
                entry.local_path = str(Path(entry.local_path).relative_to(self._directory))
        return artifact

    def _try(self, action: Callable[[], None]) -> None:
        try:
            with _kept_in(self._directory / "wandb"):
                action()
        except Exception as error:  # whatever W&B raises, the JSONL has the numbers
            print(f"W&B failed and is switched off for this run: {type(error).__name__}: {error}", file=sys.stderr)
            self._run = None


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """W&B's staged copies and its cache go there instead of the home folder, unless the user has said where."""
    places = {"WANDB_DATA_DIR": str(folder), "WANDB_CACHE_DIR": str(folder / "cache")}
    ours = {name: place for name, place in places.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
