"""Whether the installed Horovod was compiled for the torch beside it.

check_horovod_matches_torch(torch_version=torch.__version__)
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path


class HorovodError(RuntimeError):
    """Horovod cannot be built or does not fit; the message says what to do."""


def installed_version() -> str | None:
    """Version of the installed Horovod with its local part, or None."""
    try:
        return importlib.metadata.version("horovod")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_horovod_matches_torch(*, torch_version: str) -> None:
    """Raise HorovodError unless the installed Horovod was compiled for exactly `torch_version` (`torch.__version__`).

    Reads the metadata that Horovod's own build leaves in its package; imports nothing.
    """
    fix = "run `make setup` (or `python -m launch.horovod_build`)"
    try:
        distribution = importlib.metadata.distribution("horovod")
    except importlib.metadata.PackageNotFoundError:
        raise HorovodError(f"Horovod is not installed: {fix}") from None
    metadata = Path(str(distribution.locate_file("horovod/metadata.json")))
    built_for = json.loads(metadata.read_text()).get("pytorch") if metadata.exists() else None
    if built_for != torch_version:
        raise HorovodError(f"Horovod was built for torch {built_for}, but torch {torch_version} is installed: {fix}")
