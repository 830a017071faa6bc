"""A live progress bar on a terminal: images per second, time left, loss per task.

logger = ProgressBarLogger(["age"], epochs=60)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from train.tracking.tracker import Record, describe_record


class ProgressBarLogger:
    """The bar moves with every training record; evaluations are printed above it."""

    def __init__(self, tasks: Sequence[str], *, epochs: int) -> None:
        self._tasks, self._epochs = list(tasks), epochs
        percent = TaskProgressColumn(table_column=Column(min_width=4, no_wrap=True))
        # The text wraps where the terminal is narrow; it must not squeeze the percentage away.
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False, overflow="fold"))
        self._bar = Progress(BarColumn(bar_width=12), percent, text)
        self._row = self._bar.add_task("", total=1.0)
        self._bar.start()

    def log(self, record: Record) -> None:
        text = describe_record(record, self._tasks, self._epochs)
        if record["kind"] == "train":
            self._bar.update(self._row, completed=record["progress"], description=text)
        else:
            self._bar.console.print(text, highlight=False, markup=False)

    def finish(self, artifact: Path | None) -> None:
        self._bar.stop()


@contextmanager
def image_progress(what: str, *, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Gives the function that moves the bar by a number of photos."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count: progress.advance(bar, count)
