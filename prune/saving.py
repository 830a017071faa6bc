"""Writes a pruned model as a folder: the artifact, `prune.json` and `widths.svg`.

files = save_pruned(pruned.student, meta, directory, plan)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.sealed_json import seal
from data.staging import settle, sha256_of, staged
from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta, artifact_files, load_artifact_meta
from models.errors import ModelError
from models.finite import require_finite
from models.student import Student
from prune.picture import width_picture

PLAN_NAME, PICTURE_NAME = "prune.json", "widths.svg"
WRITTEN = (META_NAME, WEIGHTS_NAME, PLAN_NAME, PICTURE_NAME)
_SUMMARY = ("source", "goal", "rule", "score", "parameters", "macs")


def save_pruned(student: Student, meta: ArtifactMeta, directory: Path, plan: Mapping[str, Any]) -> list[Path]:
    """The written files, of which at every moment an earlier set is whole, or this one is. The plan holds the hashes of
    the others. meta: of the model before; its metrics are not those of this one, so there are none."""
    require_finite(student, directory)  # norms that were measured anew are newer than the proof
    contents = artifact_files(
        student,
        tasks=meta.tasks,
        preprocessing=meta.preprocessing,
        metrics={},
        provenance={**meta.provenance, "pruned": {key: plan[key] for key in _SUMMARY}},
        ema=meta.ema,
    )
    picture = width_picture(
        [(layer["name"], layer["before"], layer["after"]) for layer in plan["layers"]],
        title=f"{_share(plan['parameters'])} of the parameters, {_share(plan['macs'])} of the MACs",
    )
    with staged(directory) as stage:
        for name, content in {**contents, PICTURE_NAME: picture.encode()}.items():
            (stage / name).write_bytes(content)
        files = {name: sha256_of(stage / name) for name in (*contents, PICTURE_NAME)}
        (stage / PLAN_NAME).write_bytes(seal({**plan, "files": files}, indent=1))
    return [directory / name for name in (META_NAME, PLAN_NAME, PICTURE_NAME)]


def plan_gap(plan: Mapping[str, Any], meta: ArtifactMeta) -> str | None:
    """Why a plan is not of the pruning that wrote the model beside it; None where it is."""
    listed = (plan.get("files") or {}).get(META_NAME)
    if listed is None:  # of a version that listed no hashes
        summary = meta.provenance.get("pruned") or {}
        is_same = all(summary.get(key) == plan.get(key) for key in summary)
    else:
        is_same = sha256_of(meta.path / META_NAME) == listed
    return (
        None if is_same else f"{meta.path / PLAN_NAME} and the {META_NAME} beside it are of two prunings; prune again"
    )


def require_replaceable(folder: Path) -> None:
    """ModelError where a pruning would take the place of files that none has written."""
    settle(folder)
    found = [name for name in WRITTEN if (folder / name).exists()]
    if found and PLAN_NAME not in found and not _is_cut_pruning(folder):
        raise ModelError(f"--out {folder}: holds a {found[0]} that is not of a pruning; name another folder")


def _is_cut_pruning(folder: Path) -> bool:
    """A model as a pruning writes it, whose plan was never written: earlier versions could be killed in between."""
    try:
        meta = load_artifact_meta(folder)
    except ModelError:
        return False
    return "pruned" in meta.provenance and not meta.metrics


def _share(counts: Mapping[str, int]) -> str:
    return f"{100 * counts['after'] / counts['before']:.1f} %"
