"""The job's secret, which workers on several hosts share: from a variable or a file, never from a command line.

secret = read_secret(os.environ, alone=False)
"""

import secrets
from collections.abc import Mapping
from pathlib import Path

from launch.errors import LaunchError

_SHORTEST = 16  # characters


def read_secret(environment: Mapping[str, str], *, alone: bool) -> bytes:
    """SLIMHEADS_SECRET, or the content of the file SLIMHEADS_SECRET_FILE; a new one for a worker that is alone.

    Raises LaunchError.
    """
    path = environment.get("SLIMHEADS_SECRET_FILE")
    text = environment.get("SLIMHEADS_SECRET", "")
    if path:
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise LaunchError(f"SLIMHEADS_SECRET_FILE={path}: {error.strerror}") from error
    if not text and alone:
        return secrets.token_bytes(32)
    if len(text) < _SHORTEST:
        raise LaunchError(
            f"several workers need a secret of {_SHORTEST} characters or more, the same for all: "
            f"export SLIMHEADS_SECRET=$(openssl rand -hex 16) before they start, or name a file in "
            f"SLIMHEADS_SECRET_FILE"
        )
    return text.encode()
