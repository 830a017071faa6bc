"""What a pruning did, as the JSON beside the narrow model: `prune.json`.

plan = make_plan(pruned, candidates, ...); path.write_text(json.dumps(plan))
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prune.candidates import Candidates
from prune.latency import Latency
from prune.proof import TOLERANCE
from prune.pruning import Goal, Limits, Pruned

FORMAT = "slimheads-prune/1"
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
    limits: Limits,
    folded: bool,
    latency: tuple[Latency, Latency],
    recalibrated_batches: int,
    remarks: Sequence[str],
) -> dict[str, Any]:
    """JSON-able. `layers` has an entry for every channel group, in the order of the network: channels before and after,
    the units that stayed, and what became of the constants of those that went. latency: before, after."""
    before, after = latency
    return {
        "format": FORMAT,
        "command": command,
        "source": dict(source),
        "goal": {"kind": goal.kind, "value": goal.value},
        "rule": rule,
        "score": score,
        "limits": asdict(limits),
        "threshold": pruned.selection.threshold,
        "cap": pruned.selection.cap,
        "layers": [_layer(group, pruned, candidates, folded) for group in pruned.groups],
        "parameters": {"before": pruned.before.parameters, "after": pruned.after.parameters},
        "macs": {"before": pruned.before.macs, "after": pruned.after.macs, "image_size": goal.image_size},
        "latency_ms": {
            "before": before.milliseconds,
            "after": after.milliseconds,
            "runtime": after.runtime,
            "threads": after.threads,
            "image_size": after.image_size,
        },
        "proof": {"tolerance": TOLERANCE, "inputs": {name: asdict(proof) for name, proof in pruned.proofs.items()}},
        "recalibrated_batches": recalibrated_batches,
        "remarks": list(remarks),
    }


def _layer(group: Any, pruned: Pruned, candidates: Candidates, folded: bool) -> dict[str, Any]:
    entry = {"name": group.name, "kind": group.kind, "before": group.num_channels, "after": group.num_channels}
    kept = pruned.selection.kept.get(group.name)
    if kept is None:
        return {**entry, "remark": f"not pruned: {candidates.left_out[group.name]}"}
    entry["after"] = len(kept) * group.copies
    if remark := pruned.selection.remarks.get(group.name):
        entry["remark"] = f"{KEPT_WIDER}{remark}"
    if len(kept) == group.num_units:
        return entry
    return {**entry, "constants": "folded" if folded and group.foldable else "dropped", "kept_units": list(kept)}
