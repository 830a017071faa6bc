"""The models that a report compares: what each costs and how well it predicts.

entries = [run_entry(run, role="student"), *export_entries(export, meta)]
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.files import sha256_of
from data.storage import is_remote
from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta
from models.cost import count_cost
from models.errors import ModelError
from models.formats.manifest import EXPORT_NAME, REFERENCE
from models.prune_record import plan_error
from models.student import build_student
from train.evaluation.ensemble import trained_precision
from train.report_page.export_and_prune_records import SavedRecord
from train.report_page.run_record import RunRecord
from train.report_page.saved_model import weights_error

PRUNED, BEFORE_EXPORT, EXPORTED = "pruned", "before export", "exported"
FROM_EXPORT = EXPORT_NAME  # as the runtime of a time that was not measured for this page


@dataclass(frozen=True)
class ModelEntry:
    """One model file. role: teacher, student, distilled, slimmed, pruned, exported. network: its architecture as JSON.
    macs, milliseconds: for one image of image_size. runtime: what the milliseconds were measured on, or FROM_EXPORT.
    top1: task -> share; None where it was not measured, on `data`. errors: ordered task -> mean absolute error.
    precision: that it computed in there. part: as in "200 of 587 photos", empty where all of them were evaluated."""

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
    errors: Mapping[str, float | None] = field(default_factory=dict)


def run_entry(run: RunRecord, *, role: str) -> ModelEntry | None:
    """The model of a run, with the results that it was saved with; None without a model."""
    if run.meta is None or run.model_path is None:
        return None
    metrics = run.meta.metrics or run.best or {}
    return _saved_entry(
        run.name,
        role,
        run.meta,
        mean_top1=metrics.get("mean_top1"),
        top1=_of_tasks(metrics, "top1"),
        errors=_of_tasks(metrics, "mean_absolute_error"),
        data=validation_data(run),
        precision=trained_precision(run.meta),
    )


def _of_tasks(metrics: Mapping[str, Any], measure: str) -> dict[str, float | None]:
    """Task -> value of `task.measure`."""
    ending = f".{measure}"
    return {key.removesuffix(ending): value for key, value in metrics.items() if key.endswith(ending)}


def pruned_entry(prune: SavedRecord, meta: ArtifactMeta) -> ModelEntry:
    """The narrow model beside a prune.json. Nobody has measured it yet. ModelError where its weights are not whole, or
    the two are not of one pruning."""
    if error := weights_error(meta) or plan_error(prune.content, meta):
        raise ModelError(error)
    return _saved_entry(prune.name, PRUNED, meta, mean_top1=None, top1={}, errors={}, data="", precision="")


def _saved_entry(
    name: str,
    role: str,
    meta: ArtifactMeta,
    *,
    mean_top1: float | None,
    top1: Mapping[str, float | None],
    errors: Mapping[str, float | None],
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
        errors=errors,
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
            errors={
                task: one["mean_absolute_error"]
                for task, one in values.get("tasks", {}).items()
                if "mean_absolute_error" in one
            },
            data=one_spelling(export.content["data"] or ""),
            precision="int8"
            if variant.endswith("int8")
            else "fp32",  # weights stored in 8 bits are not computed in them
        )
        for variant, values in export.content["variants"].items()
        if file_error(export, values) is None
    ]


def file_error(export: SavedRecord, values: Mapping[str, Any]) -> str | None:
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


def validation_data(run: RunRecord) -> str:
    """The folder that a run is validated on; empty where its config names none."""
    return one_spelling(str((run.config.get("data") or {}).get("val") or ""))


def one_spelling(data: str) -> str:
    """The same text for all spellings of a local folder, relative where it is below the current one."""
    if not data or is_remote(data):
        return data.rstrip("/")
    path = Path(os.path.abspath(data.removeprefix("file://")))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def role_of(run: RunRecord, teachers: set[Path]) -> str:
    """From the run's config; `teachers` are the folders that other runs learned from."""
    if run.meta is not None and run.meta.path.resolve() in teachers:
        return "teacher"
    model = run.config.get("model") or {}
    is_fresh = bool(model.get("fresh_weights"))  # of the artifact, the shape alone
    if run.meta is not None and run.meta.architecture["widths"]:
        if is_fresh:
            return "pruned shape, fresh weights"
        return "pruned, fine-tuned" if model.get("artifact") else PRUNED
    if run.config.get("teacher"):
        return "distilled"
    if run.config.get("sparsity"):
        return "slimmed"
    return "fine-tuned" if model.get("artifact") and not is_fresh else "trained"


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
