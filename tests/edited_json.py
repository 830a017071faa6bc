"""A JSON file of ours as somebody has changed it on purpose: without the checksum, which would show it.

edit_json(folder / "index.json", tasks={"age": ["old"]})
"""

import json
from pathlib import Path
from typing import Any

from data.sealed_json import CHECKSUM


def read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    content.pop(CHECKSUM, None)
    return content


def edit_json(path: Path, **changes: Any) -> None:
    """With other values of some keys."""
    path.write_text(json.dumps({**read_json(path), **changes}))
