"""What loader processes make, in order, and in words when one of them dies.

for part in from_processes(stream, workers=4, prefetch=2): ...

torch tells of a dead process in three ways. Its SIGCHLD handler raises wherever the main thread happens to be, where
the error may be swallowed or leave work half done, so it is taken out again; torch notices by itself, within 5 s of
waiting, that the process is gone. A process that dies while it hands over its memory breaks that connection instead.
"""

import ctypes
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from data.errors import LoaderLost


def from_processes(
    dataset: Dataset[Any], *, workers: int, prefetch: int = 2, sampler: Sequence[int] | None = None
) -> Iterator[Any]:
    """The data set's items as they are, no batching; sampler: the items of a data set with numbers. Raises LoaderLost
    and whatever the data set raises."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=prefetch,
        worker_init_fn=_start,
    )
    _give_back_free_memory()
    with _unchanged_child_signal():
        items = iter(loader)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            raise (_lost(error) or error) from error.__cause__
        yield item


def _give_back_free_memory() -> None:
    """A forked process shares what is free, too, and every page of it that is used again is copied first."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _lost(error: Exception) -> LoaderLost | None:
    """What torch's words mean: it has no class for a dead process."""
    words = str(error)
    if "in DataLoader worker process" in words:  # the data set's own error, passed on
        return None
    if not isinstance(error, RuntimeError):
        return LoaderLost(f"a loader process died while it handed over a batch ({type(error).__name__}: {words})")
    return LoaderLost(f"a loader process died: {words}") if "DataLoader worker" in words else None


@contextmanager
def _unchanged_child_signal() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)


def _start(worker: int) -> None:
    # One process per core is the parallelism; threads inside would fight with the training step.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _as_it_is(item: Any) -> Any:
    """torch would otherwise look for arrays to convert."""
    return item
