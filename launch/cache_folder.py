"""Where everything that can be made or fetched again is kept: `cache_folder("wheels")`."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$XDG_CACHE_HOME/slimheads/KIND`; an empty or relative XDG_CACHE_HOME counts as none, as the XDG base directory
    specification wants it. The folder need not exist."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "slimheads" / kind
