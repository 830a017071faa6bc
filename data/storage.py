"""Reading whole small files from a local path, `file://`, `http(s)://` or `s3://`.

Use: `text = read_bytes(join_url("s3://bucket/train", "index.json"))`
"""

import time
from pathlib import Path

import fsspec

from data.errors import DataError

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5


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
    pause = FIRST_PAUSE_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with fsspec.open(url, "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            raise DataError(f"{url}: not found") from error
        except Exception as error:  # each fsspec backend raises its own family of network errors
            if attempt == ATTEMPTS:
                raise DataError(f"{url}: cannot be read after {ATTEMPTS} attempts ({error})") from error
            time.sleep(pause)
            pause *= 2
    raise AssertionError("unreachable")
