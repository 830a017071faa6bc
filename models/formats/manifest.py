"""The `export.json` beside exported files, as a list of what the export wrote: names and SHA-256.

require_as_written(Path("exported/model.onnx"))
"""

import re
import shutil
from pathlib import Path
from typing import Any

from data.files import settle_if_allowed, sha256_of
from data.sealed_json import open_sealed
from models.errors import ModelError

EXPORT_NAME = "export.json"
EXPORT_FORMAT = "slimheads-export/1"
REFERENCE = "torch fp32"  # the variant that the others are compared with
# What an export was made in before data.files had the folder.
_LEFT_OVER = re.compile(r"\.export-[a-z0-9_]{8}")
_PART = re.compile(r"(model\.(int8\.|uint8\.)?(onnx|safetensors|pte|pte\.json|json)|export\.json|predict\.py)")


def hashes_in(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of all files of a folder, by name."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}


def read_hashes(folder: Path) -> dict[str, str] | None:
    """What the export.json of a folder lists; None without one, {} where it is of a version that listed none.

    ModelError where it is damaged."""
    file = folder / EXPORT_NAME
    try:
        content: Any = open_sealed(file.read_bytes(), name=EXPORT_NAME)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read ({error}); export the model again") from error
    files = content.get("files", {}) if isinstance(content, dict) else {}
    return files if isinstance(files, dict) else {}


def require_as_written(path: Path) -> None:
    """ModelError where the export.json beside an exported file lists another content for it. A file that none lists is
    taken as it is: of an earlier version, or copied away from its export.json."""
    settle_if_allowed(path.parent)
    listed = (read_hashes(path.parent) or {}).get(path.name)
    if listed is not None and path.is_file() and sha256_of(path) != listed:
        raise ModelError(
            f"{path}: is not the file that {EXPORT_NAME} beside it was written for (cut, damaged or of another "
            "export); export the model again"
        )


def remove_left_overs(folder: Path) -> None:
    """Folders of exports that were killed; those that hold anything else are left alone."""
    for path in folder.glob(".export-*"):
        if (
            _LEFT_OVER.fullmatch(path.name)
            and path.is_dir()
            and all(_PART.fullmatch(one.name) for one in path.iterdir())
        ):
            shutil.rmtree(path, ignore_errors=True)
