"""predict.py of an export: the example as a file that needs no other of ours.

(folder / "predict.py").write_text(standalone_text(EXAMPLE, MODULES))
"""

import re
from collections.abc import Mapping
from pathlib import Path


def standalone_text(example: Path, modules: Mapping[str, Path]) -> str:
    """The example's text with the modules of ours that it imports (name -> file) in the places of their imports."""

    def written_out(line: re.Match[str]) -> str:
        return modules[line[1]].read_text(encoding="utf-8").rstrip()

    return re.sub(r"^from (data\.\w+) import .*$", written_out, example.read_text(encoding="utf-8"), flags=re.MULTILINE)
