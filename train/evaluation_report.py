"""Everything that an evaluation found, as JSON-able values.

content = evaluation_report(evaluation, ensemble=ensemble, data="shards/val", num_views=1, bad=[])
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.confusions import MOST_CLASSES, filled_cells
from train.ensemble import Ensemble
from train.evaluation import Evaluation


def evaluation_report(
    evaluation: Evaluation, *, ensemble: Ensemble, data: str, num_views: int, bad: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Measures with confusion matrices (rows are the true classes) and class names, and what was measured how.

    Of more than MOST_CLASSES classes `confusion_cells`, the cells that are not 0, stand for the matrix. bad: (shard,
    key, reason). A measure without a labelled sample is null, and so is the loss where there is no_answer: samples
    whose logits are not finite, which count as wrong.
    """
    return {
        "data": data,
        "views": num_views,
        "models": [
            {
                "path": member.path,
                "sha256": member.meta.sha256,
                "num_parameters": member.meta.num_parameters,
                "image_size": member.image_size,
                "precision": member.precision,
                "tasks": list(member.order),
            }
            for member in ensemble.members
        ],
        "mean_top1": _finite(evaluation.mean_top1),
        "tasks": {
            task: {
                **{name: _finite(value) for name, value in measures.items()},
                "classes": list(ensemble.tasks[task]),
                **_confusion(evaluation.confusion[task].numpy()),
            }
            for task, measures in evaluation.tasks.items()
        },
        "bad_samples": [{"shard": shard, "key": key, "reason": reason} for shard, key, reason in bad],
    }


def _confusion(matrix: np.ndarray) -> dict[str, Any]:
    if len(matrix) > MOST_CLASSES:
        return {"confusion_cells": [list(cell) for cell in filled_cells(matrix)]}
    return {"confusion": matrix.astype(int).tolist()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
