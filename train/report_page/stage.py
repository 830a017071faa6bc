"""The models that a report compares: what each costs and how well it answers.

stages = run_stages(record) + export_stages(export)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.artifact import WEIGHTS_NAME, ArtifactMeta
from models.cost import count_cost
from models.student import build_student
from train.report_page.run_record import RunRecord, read_json

EXPORT_NAME, PRUNE_NAME = "export.json", "prune.json"


@dataclass(frozen=True)
class Stage:
    """One model file. role: teacher, student, distilled, slimmed, pruned, exported. top1: task -> share; None where it
    was not measured. macs: for one image of image_size."""

    name: str
    role: str
    parameters: int
    macs: int
    bytes: int
    image_size: int
    milliseconds: float | None
    mean_top1: float | None
    top1: Mapping[str, float]
    data: str


@dataclass(frozen=True)
class Written:
    """A folder that holds an export.json or a prune.json, and what it says."""

    name: str
    path: Path
    content: Mapping[str, Any]


def run_stage(record: RunRecord, *, role: str) -> Stage | None:
    """The model of a run, with the results that it was saved with; None without a model."""
    if record.meta is None:
        return None
    size = int(record.meta.preprocessing["eval_size"])
    metrics = record.meta.metrics or record.best or {}
    return Stage(
        name=record.name,
        role=role,
        parameters=record.meta.num_parameters,
        macs=count_macs(record.meta, size),
        bytes=(record.meta.path / WEIGHTS_NAME).stat().st_size,
        image_size=size,
        milliseconds=None,
        mean_top1=metrics.get("mean_top1"),
        top1={key.removesuffix(".top1"): value for key, value in metrics.items() if key.endswith(".top1")},
        data=str(record.config.get("data", {}).get("val") or ""),
    )


def export_stages(export: Written, meta: ArtifactMeta) -> list[Stage]:
    """Every file of an export, as export.json says; the folder of weights that it was made from is a stage of its own
    only where it was measured for speed."""
    size = int(export.content["image_size"])
    macs = count_macs(meta, size)
    return [
        Stage(
            name=f"{export.name} {variant}",
            role="exported" if variant != "torch fp32" else "before export",
            parameters=meta.num_parameters,
            macs=macs,
            bytes=values["bytes"],
            image_size=size,
            milliseconds=values.get("milliseconds"),
            mean_top1=values.get("mean_top1"),
            top1={task: one["top1"] for task, one in values.get("tasks", {}).items()},
            data=str(export.content.get("data") or ""),
        )
        for variant, values in export.content["variants"].items()
    ]


def read_written(path: Path, file: str) -> Written:
    """ValueError or OSError where the JSON is cut or missing."""
    return Written(path.name or str(path), path, read_json(path / file))


def role_of(record: RunRecord, teachers: set[Path]) -> str:
    """From the run's config; `teachers` are the folders that other runs learned from."""
    if record.model_path is not None and record.model_path.resolve() in teachers:
        return "teacher"
    model = record.config.get("model") or {}
    if record.meta is not None and record.meta.architecture["widths"]:
        return "pruned, fine-tuned" if model.get("artifact") else "pruned"
    if record.config.get("teacher"):
        return "distilled"
    if record.config.get("sparsity"):
        return "slimmed"
    return "fine-tuned" if model.get("artifact") else "trained"


def count_macs(meta: ArtifactMeta, image_size: int) -> int:
    """Multiply-accumulates of one image; nothing is computed and no weight is made."""
    return _count_macs(json.dumps(meta.architecture), image_size)


@cache
def _count_macs(architecture: str, image_size: int) -> int:
    """Once for all models of one shape."""
    with torch.device("meta"):
        model: nn.Module = build_student(**json.loads(architecture))
    return count_cost(model, image_size=image_size).macs
