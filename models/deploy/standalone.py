"""predict.py of an export: the example as a file that needs no other.

(folder / "predict.py").write_text(standalone_text(EXAMPLE))
"""

from pathlib import Path

import data.orientation

_IMPORT = "from data.orientation import orientation_of\n"


def standalone_text(example: Path) -> str:
    """The example's text, with the one module of ours that it imports written out in the import's place."""
    before, _, after = example.read_text(encoding="utf-8").partition(_IMPORT)
    module = Path(data.orientation.__file__).read_text(encoding="utf-8")
    return f"{before}{module.rstrip()}\n{after}"
