"""The models that a report compares: what each costs and how well it answers.

entries = [run_entry(record, role="student"), *export_entries(export, meta)]
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.staging import sha256_of
from data.storage import is_remote
from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta
from models.cost import count_cost
from models.errors import ModelError
from models.formats.manifest import EXPORT_NAME, REFERENCE
from models.prune_record import plan_error
from models.student import build_student
from train.report_page.export_and_prune_records import SavedRecord
from train.report_page.run_record import RunRecord
from train.report_page.saved_model import weights_gap

PRUNED, BEFORE_EXPORT, EXPORTED = "pruned", "before export", "exported"
FROM_EXPORT = EXPORT_NAME  # as the runtime of a time that was not measured for this page


@dataclass(frozen=True)
class ModelEntry:
    """One model file. role: teacher, student, distilled, slimmed, pruned, exported. network: its architecture as JSON.
    macs, milliseconds: for one image of image_size. runtime: what the milliseconds were measured on, or FROM_EXPORT.
    top1: task -> share; None where it was not measured, on `data`. precision: that it computed in there. part: as in
    "200 of 587 photos", empty where it was asked about all of them."""

    name: str
    role: str
    file: Path
    network: str
    sha256: str
    parameters: int
    macs: int
    bytes: int
    image_size: int
    milliseconds: float | None
    runtime: str
    mean_top1: float | None
    top1: Mapping[str, float | None]
    data: str
    precision: str
    part: str = ""


def run_entry(record: RunRecord, *, role: str) -> ModelEntry | None:
    """The model of a run, with the results that it was saved with; None without a model."""
    if record.meta is None or record.model_path is None:
        return None
    metrics = record.meta.metrics or record.best or {}
    top1 = {key.removesuffix(".top1"): value for key, value in metrics.items() if key.endswith(".top1")}
    return _stage(
        record.name,
        role,
        record.meta,
        mean_top1=metrics.get("mean_top1"),
        top1=top1,
        data=photos_of(record),
        precision=_trained_precision(record.meta),
    )


def pruned_entry(prune: SavedRecord, meta: ArtifactMeta) -> ModelEntry:
    """The narrow model beside a prune.json. Nobody has measured it yet. ModelError where its weights are not whole, or
    the two are not of one pruning."""
    if gap := weights_gap(meta) or plan_error(prune.content, meta):
        raise ModelError(gap)
    return _stage(prune.name, PRUNED, meta, mean_top1=None, top1={}, data="", precision="")


def _stage(
    name: str,
    role: str,
    meta: ArtifactMeta,
    *,
    mean_top1: float | None,
    top1: Mapping[str, float | None],
    data: str,
    precision: str,
) -> ModelEntry:
    size = int(meta.preprocessing["eval_size"])
    return ModelEntry(
        name=name,
        role=role,
        file=meta.path / WEIGHTS_NAME,
        network=network_of(meta),
        sha256=meta.sha256,
        parameters=meta.num_parameters,
        macs=count_macs(network_of(meta), size),
        bytes=(meta.path / WEIGHTS_NAME).stat().st_size,
        image_size=size,
        milliseconds=None,
        runtime="",
        mean_top1=mean_top1,
        top1=top1,
        data=data,
        precision=precision,
    )


def export_entries(export: SavedRecord, meta: ArtifactMeta) -> list[ModelEntry]:
    """Every file of an export, as export.json says; the weights that it was made from come first. ModelError where
    the model.json beside it is of another model."""
    if export.content["model"]["sha256"] != meta.sha256:
        raise ModelError(
            f"{export.path / META_NAME} is of another model than the {EXPORT_NAME} beside it was written for; "
            "export the model again"
        )
    size = export.content["image_size"]
    macs = count_macs(network_of(meta), size)
    return [
        ModelEntry(
            name=f"{export.name} {variant}",
            role=BEFORE_EXPORT if variant == REFERENCE else EXPORTED,
            file=export.path / values["file"],
            network=network_of(meta),
            sha256=meta.sha256,
            parameters=meta.num_parameters,
            macs=macs,
            bytes=values["bytes"],
            image_size=size,
            milliseconds=values.get("milliseconds"),
            runtime=FROM_EXPORT,
            mean_top1=values.get("mean_top1"),
            top1={task: one["top1"] for task, one in values.get("tasks", {}).items()},
            data=one_spelling(export.content["data"] or ""),
            precision="int8"
            if variant.endswith("int8")
            else "fp32",  # weights stored in 8 bits are not computed in them
        )
        for variant, values in export.content["variants"].items()
        if file_gap(export, values) is None
    ]


def file_gap(export: SavedRecord, values: Mapping[str, Any]) -> str | None:
    """Why an exported file is not the one that export.json speaks of; None where it is, or where it lies elsewhere."""
    file = export.path / values["file"]
    if not file.is_file():
        return None
    if file.stat().st_size != values["bytes"]:
        return f"{file} is cut or changed: it has {file.stat().st_size:,} bytes, {EXPORT_NAME} says {values['bytes']:,}"
    listed = export.content.get("files", {}).get(file.name)
    return (
        None if listed in (None, sha256_of(file)) else f"{file} is damaged: {EXPORT_NAME} was written for other bytes"
    )


def photos_of(record: RunRecord) -> str:
    """The photos that a run is validated on; empty where its config names none."""
    return one_spelling(str((record.config.get("data") or {}).get("val") or ""))


def one_spelling(data: str) -> str:
    """The same text for all spellings of a local folder, relative where it is below the current one."""
    if not data or is_remote(data):
        return data.rstrip("/")
    path = Path(os.path.abspath(data.removeprefix("file://")))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def role_of(record: RunRecord, teachers: set[Path]) -> str:
    """From the run's config; `teachers` are the folders that other runs learned from."""
    if record.meta is not None and record.meta.path.resolve() in teachers:
        return "teacher"
    model = record.config.get("model") or {}
    is_fresh = bool(model.get("fresh_weights"))  # of the artifact, the shape alone
    if record.meta is not None and record.meta.architecture["widths"]:
        if is_fresh:
            return "pruned shape, fresh weights"
        return "pruned, fine-tuned" if model.get("artifact") else PRUNED
    if record.config.get("teacher"):
        return "distilled"
    if record.config.get("sparsity"):
        return "slimmed"
    return "fine-tuned" if model.get("artifact") and not is_fresh else "trained"


def _trained_precision(meta: ArtifactMeta) -> str:
    """In which a training validates, too."""
    return str((meta.provenance.get("config") or {}).get("precision", "fp32"))


def network_of(meta: ArtifactMeta) -> str:
    """The same text for networks that differ in nothing but their weights, and in what only training does."""
    parts = ("backbone", "head", "tasks", "widths")
    return json.dumps({key: meta.architecture[key] for key in parts}, sort_keys=True)


@cache
def count_macs(network: str, image_size: int) -> int:
    """Multiply-accumulates of one image; nothing is computed and no weight is made."""
    with torch.device("meta"):
        model: nn.Module = build_student(**json.loads(network))
    return count_cost(model, image_size=image_size).macs
