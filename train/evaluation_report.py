"""Everything that an evaluation found, as JSON-able values.

content = evaluation_report(evaluation, ensemble=ensemble, data="shards/val", num_views=1, bad=[])
"""

import math
from collections.abc import Sequence
from typing import Any

from train.ensemble import Ensemble
from train.evaluation import Evaluation


def evaluation_report(
    evaluation: Evaluation, *, ensemble: Ensemble, data: str, num_views: int, bad: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Measures with confusion matrices (rows are the true classes) and class names, and what was measured how.

    bad: (shard, key, reason). A measure without a labelled sample is null, and so is the loss where there is
    no_answer: samples whose logits are not finite, which count as wrong.
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
                "confusion": [[int(count) for count in row] for row in evaluation.confusion[task].tolist()],
            }
            for task, measures in evaluation.tasks.items()
        },
        "bad_samples": [{"shard": shard, "key": key, "reason": reason} for shard, key, reason in bad],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
