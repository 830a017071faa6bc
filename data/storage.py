"""Reading from a local path, `file://`, `http(s)://` or `s3://`: whole small files, and ranges of remote ones.

Use: `text = read_bytes(join_url("s3://bucket/train", "index.json"))`
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from data.errors import BadSample, DataError

_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.5

Content = TypeVar("Content")


def local_root(root: str) -> str:
    """Strip `file://` and trailing slashes; refuse schemes that run programs or that nobody can read."""
    if root.startswith("file://"):
        root = root.removeprefix("file://")
    scheme = root.split("://", 1)[0] if "://" in root else ""
    if root.startswith("pipe:"):
        raise DataError(f"{root}: pipe: runs a shell command and is refused; give a folder, http(s):// or s3://")
    if scheme and scheme not in ("http", "https", "s3"):
        raise DataError(f"{root}: cannot read {scheme}://; give a folder, file://, http(s):// or s3://")
    return root.rstrip("/") or "/"


def is_remote(url: str) -> bool:
    """True for http(s):// and s3:// addresses."""
    return "://" in url and not url.startswith("file://")


def join_url(root: str, name: str) -> str:
    """Path or URL of the file `name` in the folder `root`."""
    return f"{root.rstrip('/')}/{name}"


def read_bytes(url: str) -> bytes:
    """The whole file. Network errors are retried with growing pauses; then, or when it is not there: DataError."""
    if not is_remote(url):
        try:
            return Path(url.removeprefix("file://")).read_bytes()
        except OSError as error:
            raise DataError(f"{url}: cannot be read ({error.strerror})") from error

    def fetch() -> bytes:
        import fsspec  # a sixth of the start-up time of commands that mostly read local files

        with fsspec.open(url, "rb") as file:
            return file.read()

    try:
        return _with_retries(fetch, what=f"{url}:")
    except FileNotFoundError as error:
        raise DataError(f"{url}: not found") from error


def read_range(url: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of a remote file. Network errors are retried; BadSample when there is no such file, DataError
    when it cannot be had or the server does not serve ranges."""

    def fetch() -> bytes:
        import fsspec  # as above

        try:
            filesystem, path = fsspec.core.url_to_fs(url)
            data: bytes = filesystem.cat_file(path, start=start, end=end)
        except FileNotFoundError:
            raise
        except Exception as error:  # as below
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        if len(data) > end - start:
            raise DataError(f"{url}: the server ignores range requests; use one that serves HTTP ranges, or S3")
        if len(data) < end - start:
            raise ConnectionError(f"got {len(data)} of {end - start} bytes")
        return data

    try:
        return _with_retries(fetch, what=f"{url}: bytes {start} to {end}")
    except FileNotFoundError as error:
        raise BadSample(f"{url} is missing") from error


def _with_retries(fetch: Callable[[], Content], *, what: str) -> Content:
    """Tried again with growing pauses; what is not there, and DataError, ends it at once."""
    pause = _FIRST_PAUSE_SECONDS
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return fetch()
        except (FileNotFoundError, DataError):
            raise
        except Exception as error:  # each fsspec backend raises its own family of network errors
            if attempt == _ATTEMPTS:
                raise DataError(f"{what} cannot be read after {_ATTEMPTS} attempts ({error})") from error
            time.sleep(pause)
            pause *= 2
    raise AssertionError("unreachable")
