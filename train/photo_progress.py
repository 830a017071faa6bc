"""A progress bar over photos, on a terminal alone.

with photo_progress("Evaluating", total=2000) as advance: advance(64)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def photo_progress(what: str, *, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Gives the function that moves the bar by a number of photos."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count: progress.advance(bar, count)
