"""The folder that an export writes: its files, the example beside them, and what it may replace there.

require_writable(Path("exported"), ["onnx fp32"]); (folder / EXAMPLE_NAME).write_text(example_text())
"""

import re
from collections.abc import Sequence
from pathlib import Path

from data.errors import BadArgument
from data.files import settle, sha256_of
from data.images import axis, orientation
from models.artifact import META_NAME, WEIGHTS_NAME
from models.errors import ModelError
from models.formats.manifest import EXPORT_NAME, read_hashes

FILES = {
    "uint8 storage": "model.uint8.safetensors",
    "onnx fp32": "model.onnx",
    "onnx int8": "model.int8.onnx",
    "executorch fp32": "model.pte",
    "executorch int8": "model.int8.pte",
}
EXAMPLE_NAME = "predict.py"
EXAMPLE = Path(__file__).with_name("predict_template.py")
_MODULES = {module.__name__: Path(str(module.__file__)) for module in (axis, orientation)}  # that the example imports


def example_text() -> str:
    """The example with the modules of ours that it imports in the places of their imports: it needs no other file."""

    def written_out(line: re.Match[str]) -> str:
        return _MODULES[line[1]].read_text(encoding="utf-8").rstrip()

    text = EXAMPLE.read_text(encoding="utf-8")
    return re.sub(r"^from (data[.\w]*) import .*$", written_out, text, flags=re.MULTILINE)


def require_writable(out: Path, variants: Sequence[str]) -> None:
    """variants: keys of FILES that are to be written. BadArgument where that would replace what no export wrote, or
    leave files of an earlier export beside the new ones."""
    if out.exists() and not out.is_dir():
        raise BadArgument(f"--out {out}: is a file; name a folder")
    settle(out)
    if (out / WEIGHTS_NAME).exists():  # that model's own model.json would be lost
        raise BadArgument(f"--out {out}: holds a saved model ({WEIGHTS_NAME}); name another folder")
    written = [FILES[variant] for variant in variants]
    stale = [name for name in FILES.values() if name not in written and (out / name).exists()]
    if stale:  # beside the new export.json, which does not name them, they would pass for files of this export
        raise BadArgument(
            f"--out {out}: holds {', '.join(stale)} of an earlier export, which this one does not write; remove it or "
            "name another folder"
        )
    _require_own(out, [*written, META_NAME, EXAMPLE_NAME])


def _require_own(out: Path, names: Sequence[str]) -> None:
    """BadArgument where a file that no export wrote would be replaced."""
    found = [name for name in names if (out / name).exists()]
    try:
        listed = read_hashes(out)
    except ModelError:  # damaged, but of an export
        return
    if found and listed is None:
        raise BadArgument(
            f"--out {out}: holds a {found[0]} that no {EXPORT_NAME} speaks of; move it away or name another folder"
        )
    if listed and EXAMPLE_NAME in found and listed.get(EXAMPLE_NAME) != sha256_of(out / EXAMPLE_NAME):
        raise BadArgument(
            f"--out {out}: its {EXAMPLE_NAME} was changed since it was exported; move it away or name another folder"
        )
