"""Shard-sized jobs over worker processes, with a progress bar on a terminal.

Use: `for done in map_in_processes(write_one, numbers, shared=settings, workers=4, what="Writing shards"): ...`
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data.errors import LoaderLost

Item = TypeVar("Item")
Result = TypeVar("Result")
Shared = TypeVar("Shared")

STUCK_SECONDS = 3600.0  # for one shard
_shared: Any = None


def default_workers() -> int:
    """The cores this process may use, at most 8."""
    return min(8, len(os.sched_getaffinity(0)))


def map_in_processes(
    function: Callable[[Shared, Item], Result], items: Sequence[Item], *, shared: Shared, workers: int, what: str
) -> Iterator[Result]:
    """Yield `function(shared, item)` in the order of `items`. `shared` is sent to each worker once.

    One worker means this process. Otherwise they are forked from a fresh interpreter (forking this one, beside the
    progress bar's thread, is not safe), and they end on their own when this process is killed. Raises LoaderLost when
    one of them is killed, or takes longer than STUCK_SECONDS for an item.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(what, total=len(items))
        for result in _results(function, items, shared=shared, workers=min(workers, len(items))):
            yield result
            progress.advance(bar)


def _results(
    function: Callable[[Shared, Item], Result], items: Sequence[Item], *, shared: Shared, workers: int
) -> Iterator[Result]:
    if workers <= 1:
        for item in items:
            yield function(shared, item)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])  # heavy imports once, not once a worker
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(shared,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(waiting) == 4 * workers:  # enough to keep all busy, few enough to bound memory
                    yield waiting.popleft().result(STUCK_SECONDS)
                waiting.append(pool.submit(_call, function, item))
            while waiting:
                yield waiting.popleft().result(STUCK_SECONDS)
        except TimeoutError as error:
            for process in list(pool._processes.values()):  # else leaving the pool would wait for them
                process.kill()
            raise LoaderLost(f"a worker process gave nothing for {STUCK_SECONDS:g} s") from error
        except BrokenProcessPool as error:
            raise LoaderLost(
                "a worker process was killed, often for lack of memory (--workers 1 needs least)"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(shared: object) -> None:
    global _shared
    _shared = shared
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, workers of a killed parent wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _call(function: Callable[[Any, Item], Result], item: Item) -> Result:
    return function(_shared, item)
