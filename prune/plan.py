"""What a pruning did, as the JSON beside the narrow model: `prune.json`.

files = save_pruned(pruned.student, meta, Path("runs/a/pruned"), make_plan(pruned, candidates, ...))
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.files import settle, sha256_of, staged
from data.sealed_json import seal
from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta, artifact_files, load_artifact_meta
from models.channel_groups import Group
from models.errors import ModelError
from models.finite import require_finite
from models.formats.latency import Latency
from models.prune_record import PRUNE_FORMAT, PRUNE_NAME
from models.student import Student
from prune.charts import widths_picture
from prune.equivalence import TOLERANCE
from prune.goal import Goal
from prune.pruner import Pruned
from prune.selection import Candidates

KEPT_WIDER = "kept wider: "  # before the limit that did it


def make_plan(
    pruned: Pruned,
    candidates: Candidates,
    *,
    command: str,
    source: Mapping[str, Any],
    rule: str,
    score: str,
    goal: Goal,
    folded: bool,
    int8_bytes: tuple[int, int],
    latency: tuple[Latency, Latency],
    statistics: Mapping[str, int],
    accuracy: Mapping[str, Any] | None,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """JSON-able. `layers` has an entry for every channel group, in the order of the network: channels before and after,
    the units that stayed, and what became of the constants of those that went. latency and int8_bytes (as predicted):
    before, after. statistics: batches and photos that the norms were measured anew on. accuracy: None where it was not
    measured."""
    before, after = latency
    return {
        "format": PRUNE_FORMAT,
        "command": command,
        "source": dict(source),
        "goal": goal.record(),
        "rule": rule,
        "score": score,
        "limits": asdict(pruned.limits),
        "threshold": pruned.selection.threshold,
        "cap": pruned.selection.cap,
        "layers": [_layer(group, pruned, candidates, folded) for group in pruned.groups],
        "parameters": {"before": pruned.before.parameters, "after": pruned.after.parameters},
        "macs": {"before": pruned.before.macs, "after": pruned.after.macs, "image_size": goal.image_size},
        "int8_bytes": {"before": int8_bytes[0], "after": int8_bytes[1]},
        "latency_ms": {
            "before": before.milliseconds,
            "after": after.milliseconds,
            "runtime": after.runtime,
            "threads": after.threads,
            "image_size": after.image_size,
        },
        "proof": {"tolerance": TOLERANCE, "inputs": {name: asdict(one) for name, one in pruned.equivalence.items()}},
        "recalibrated_batches": statistics["batches"],
        "recalibrated_photos": statistics["photos"],
        "accuracy": None if accuracy is None else dict(accuracy),
        "remarks": list(warnings),
    }


def _layer(group: Group, pruned: Pruned, candidates: Candidates, folded: bool) -> dict[str, Any]:
    entry = {"name": group.name, "kind": group.kind, "before": group.num_channels, "after": group.num_channels}
    kept = pruned.selection.kept.get(group.name)
    if kept is None:
        return {**entry, "remark": f"not pruned: {candidates.left_out[group.name]}"}
    entry["after"] = len(kept) * group.copies
    if reason := pruned.selection.reasons.get(group.name):
        entry["remark"] = f"{KEPT_WIDER}{reason}"
    if len(kept) == group.num_units:
        return entry
    return {**entry, "constants": "folded" if folded and group.foldable else "dropped", "kept_units": list(kept)}


PICTURE_NAME = "widths.svg"
WRITTEN = (META_NAME, WEIGHTS_NAME, PRUNE_NAME, PICTURE_NAME)
_SUMMARY = ("source", "goal", "rule", "score", "parameters", "macs")


def save_pruned(student: Student, meta: ArtifactMeta, directory: Path, plan: Mapping[str, Any]) -> list[Path]:
    """The written files, of which at every moment an earlier set is whole, or this one is. The plan holds the hashes of
    the others. meta: of the model before; its metrics are not those of this one, so there are none."""
    require_finite(student, directory)  # norms that were measured anew are newer than the equivalence check
    contents = artifact_files(
        student,
        tasks=meta.tasks,
        preprocessing=meta.preprocessing,
        metrics={},
        provenance={**meta.provenance, "pruned": {key: plan[key] for key in _SUMMARY}},
        ema=meta.ema,
        class_values=meta.class_values,
    )
    picture = widths_picture(plan)
    with staged(directory) as stage:
        for name, content in {**contents, PICTURE_NAME: picture.encode()}.items():
            (stage / name).write_bytes(content)
        files = {name: sha256_of(stage / name) for name in (*contents, PICTURE_NAME)}
        (stage / PRUNE_NAME).write_bytes(seal({**plan, "files": files}, indent=1))
    return [directory / name for name in (META_NAME, PRUNE_NAME, PICTURE_NAME)]


def require_replaceable(folder: Path) -> None:
    """ModelError where a pruning would take the place of files that none has written."""
    settle(folder)
    found = [name for name in WRITTEN if (folder / name).exists()]
    if found and PRUNE_NAME not in found and not _is_cut_pruning(folder):
        raise ModelError(f"--out {folder}: holds a {found[0]} that is not of a pruning; name another folder")


def _is_cut_pruning(folder: Path) -> bool:
    """A model as a pruning writes it, whose plan was never written: earlier versions could be killed in between."""
    try:
        meta = load_artifact_meta(folder)
    except ModelError:
        return False
    return "pruned" in meta.provenance and not meta.metrics
