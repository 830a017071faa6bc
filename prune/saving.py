"""Writes a pruned model as a folder: the artifact, `prune.json` and `widths.svg`.

files = save_pruned(pruned.student, meta, directory, plan)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.artifact import ArtifactMeta, save_artifact
from models.finite import require_finite
from models.student import Student
from prune.picture import width_picture

PLAN_NAME, PICTURE_NAME = "prune.json", "widths.svg"


def save_pruned(student: Student, meta: ArtifactMeta, directory: Path, plan: Mapping[str, Any]) -> list[Path]:
    """The written files. meta: of the model before; its metrics are not those of this one, so there are none."""
    require_finite(student, directory)  # norms that were measured anew are newer than the proof
    summary = {key: plan[key] for key in ("source", "goal", "rule", "score", "parameters", "macs")}
    written = [
        save_artifact(
            student,
            directory,
            tasks=meta.tasks,
            preprocessing=meta.preprocessing,
            metrics={},
            provenance={**meta.provenance, "pruned": summary},
            ema=meta.ema,
        )
    ]
    contents = {
        PLAN_NAME: json.dumps(plan, indent=1, allow_nan=False) + "\n",
        PICTURE_NAME: width_picture(
            [(layer["name"], layer["before"], layer["after"]) for layer in plan["layers"]],
            title=f"{_share(plan['parameters'])} of the parameters, {_share(plan['macs'])} of the MACs",
        ),
    }
    for name, content in contents.items():
        (directory / name).write_text(content, encoding="utf-8")
        written.append(directory / name)
    return written


def _share(counts: Mapping[str, int]) -> str:
    return f"{100 * counts['after'] / counts['before']:.1f} %"
