"""Files that are whole or not there, whenever the machine stops: written aside, synced, then renamed.

    write_atomically(path, data)        # one file; write_result also removes what killed predecessors left
    with staged(folder) as stage:       # files that belong together take their names together
        (stage / "model.json").write_text(...)
        (stage / "model.safetensors").write_bytes(...)

A set is made in a hidden folder inside `folder`. Its renaming to `COMMITTED` is the moment from which the new set
stands; what a kill leaves to be moved after that, `settle` moves, which every writer and every reader calls first.
Other files of `folder` are left alone.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

COMMITTED = ".slimheads-committed"
_STAGED = re.compile(r"\.slimheads-staged-(\d+)-.+")
_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.(tmp|part)")


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write files in; they take their names in `folder` when the block ends well, and go when it does not.

    OSError when a file's name is taken by a folder."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    settle(folder)
    sweep(folder)
    stage = Path(tempfile.mkdtemp(prefix=f".slimheads-staged-{os.getpid()}-", dir=folder))
    try:
        yield stage
        _commit(stage, folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # not empty: somebody else's files came meanwhile
                folder.rmdir()
        raise
    settle(folder)


def _commit(stage: Path, folder: Path) -> None:
    for file in stage.iterdir():
        if (folder / file.name).is_dir():
            raise IsADirectoryError(f"{folder / file.name}: is a folder where a file is to be written; move it away")
        sync(file)
    sync(stage)
    stage.rename(folder / COMMITTED)
    sync(folder)


def settle(folder: Path) -> None:
    """Give the files of a set that was written, but not yet moved, their names. Any process may do it at any time."""
    committed = folder / COMMITTED
    try:
        names = sorted(os.listdir(committed))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            os.replace(committed / name, folder / name)
    sync(folder)
    with contextlib.suppress(OSError):
        committed.rmdir()


def settle_if_allowed(folder: Path) -> None:
    """For readers, who need not be allowed to write: hashes show them a set that is not whole."""
    with contextlib.suppress(OSError):
        settle(folder)


def write_atomically(path: Path, data: bytes) -> None:
    """The file has these bytes, or those it had before, whenever the machine stops. OSError leaves the old ones."""
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(data)
        publish(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def publish(temporary: Path, path: Path) -> None:
    """Give a complete, closed file its name; it is on disk under it when this returns."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def write_result(path: Path, data: bytes) -> None:
    """As write_atomically, for the one file of a command: what its killed predecessors left goes first."""
    sweep(path.parent, of=path.name)
    write_atomically(path, data)


def temporary_beside(path: Path, kind: str = "tmp") -> Path:
    """What a file of this process is called until it is complete; kind: tmp or part."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def sweep(folder: Path, *, of: str | None = None, alone: bool = False) -> None:
    """Remove what killed processes left unfinished: temporary files (`of`: of the file of that name alone) and staged
    folders. Names that are not of this module's making are left alone, and so are those of processes that live, unless
    a lock says that this one is `alone` in the folder."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if (found := _TEMPORARY.fullmatch(path.name)) and found[1] == (of or found[1]):
            if (alone or not _lives(int(found[2]))) and path.is_file():
                path.unlink(missing_ok=True)
        elif of is None and (found := _STAGED.fullmatch(path.name)) and (alone or not _lives(int(found[1]))):
            shutil.rmtree(path, ignore_errors=True)


def _lives(process: int) -> bool:
    """Another process of this machine; what this one's number is on is left of an earlier process that had it."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def sync(path: Path) -> None:
    """Make the bytes of a file, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
