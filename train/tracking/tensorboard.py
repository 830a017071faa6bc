"""TensorBoard as one more place for the numbers; whatever goes wrong there never ends a run.

logger = TensorBoardLogger(Path("runs/a/tensorboard"), config=settings.config, step=0, earlier=[])

Needs the package `tensorboard` (`pip install 'slimheads[tensorboard]'`), through torch's SummaryWriter.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from train.tracking.tracker import Record

_EVENT_FILES = "events.out.tfevents.*"


class TensorBoardLogger:
    """Event files in `folder`, each record on disk before the next step. After the first failure it says so once and
    stays silent.

    step: updates that the run already has. earlier: the records of those, as they are in metrics.jsonl. TensorBoard
    drops, of the files of a run that was killed, what a purge step tells it to: everything from the last update on,
    which is then written again, so that no step is there twice.
    """

    def __init__(self, folder: Path, *, config: Mapping[str, Any], step: int, earlier: Sequence[Record]) -> None:
        self._writer: Any = None
        self._try(lambda: self._start(folder, config, step, earlier))

    def log(self, record: Record) -> None:
        if self._writer is not None:
            self._try(lambda: self._log(record))

    def finish(self, artifact: Path | None) -> None:
        if self._writer is not None:
            self._try(self._writer.close)

    def _start(self, folder: Path, config: Mapping[str, Any], step: int, earlier: Sequence[Record]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A validation is logged at the step of the update before it, so that one may be there already.
        purge_step = max(0, step - 1) if any(folder.glob(_EVENT_FILES)) else 0
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        self._writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()), purge_step)
        for record in earlier:
            if record["step"] >= purge_step:
                self._add(record)
        self._writer.flush()

    def _log(self, record: Record) -> None:
        self._add(record)
        self._writer.flush()  # a kill finds nothing in memory

    def _add(self, record: Record) -> None:
        kind = record["kind"]
        for key, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "step":
                self._writer.add_scalar(f"{kind}/{key}", value, record["step"])

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever TensorBoard raises, the JSONL has the numbers
            print(
                f"TensorBoard failed and is switched off for this run: {type(error).__name__}: {error}", file=sys.stderr
            )
            self._writer = None
