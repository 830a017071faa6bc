"""The `prune.json` beside a pruned model: its name, its format, and whether it is of the pruning that wrote the model.

if error := plan_error(plan, meta): print(error)
"""

from collections.abc import Mapping
from typing import Any

from data.staging import sha256_of
from models.artifact import META_NAME, ArtifactMeta

PRUNE_NAME = "prune.json"
PRUNE_FORMAT = "slimheads-prune/1"


def plan_error(plan: Mapping[str, Any], meta: ArtifactMeta) -> str | None:
    """Why a plan is not of the pruning that wrote the model beside it; None where it is."""
    listed = (plan.get("files") or {}).get(META_NAME)
    if listed is None:  # of a version that listed no hashes
        summary = meta.provenance.get("pruned") or {}
        is_same = all(summary.get(key) == plan.get(key) for key in summary)
    else:
        is_same = sha256_of(meta.path / META_NAME) == listed
    return (
        None if is_same else f"{meta.path / PRUNE_NAME} and the {META_NAME} beside it are of two prunings; prune again"
    )
