"""predict.py of an export: the example as a file that needs no other of ours.

(folder / "predict.py").write_text(standalone_text(EXAMPLE, ORIENTATION))
"""

from pathlib import Path

_IMPORT = "from data.orientation import orientation_of\n"


def standalone_text(example: Path, orientation: Path) -> str:
    """The example's text, with the one module of ours that it imports, data.orientation, in the import's place."""
    before, _, after = example.read_text(encoding="utf-8").partition(_IMPORT)
    return f"{before}{orientation.read_text(encoding='utf-8').rstrip()}\n{after}"
