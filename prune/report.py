"""What a user should know about a pruning beside its numbers; every command that prunes says it.

remarks = remarks_on(pruned, candidates, meta, goal=goal, by_gamma=True, data="shards/a/train")
"""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from models.artifact import ArtifactMeta
from models.channel_groups.gamma_histogram import describe, is_sparse
from models.formats.latency import Latency
from prune.pruner import Goal, Pruned, attainable, exact
from prune.selection import NO_NORM, Candidates

_FEW = 0.01  # of the channels or of a budget: less is a matter of rounding


def remarks_on(
    pruned: Pruned, candidates: Candidates, meta: ArtifactMeta, *, goal: Goal, by_gamma: bool, data: str | None
) -> list[str]:
    """meta: of the model before. by_gamma: gammas ranked the channels. data: where photos for the proof were sought."""
    remarks = []
    if by_gamma and not is_sparse(candidates.magnitudes) and not _was_pruned(meta):
        why = (
            "this model was trained with a penalty, but hardly any gamma came near zero, and pruning by gamma cuts "
            "into what it needs: train longer, or raise sparsity.strength"
            if (meta.provenance.get("config") or {}).get("sparsity")
            else "hardly any gamma is near zero, so this model was not trained sparse, and pruning by gamma cuts into "
            "what it needs (a `sparsity:` section in the config trains it so)"
        )
        remarks.append(f"{why}:\n{describe(candidates.magnitudes)}")
    if goal.kind == "ratio" and pruned.selection.is_capped:
        remarks.append(
            f"the threshold stopped at {pruned.selection.cap:.3g}, the smallest maximum of a norm, so fewer "
            "channels go than were asked for (--no-threshold-cap lets it rise; the floor then keeps that layer)"
        )
    remarks += _tie_remarks(pruned, candidates, goal)
    if without := [name for name, why in candidates.left_out.items() if why == NO_NORM]:
        remarks.append(
            f"not pruned, for want of a norm whose gammas rank it: {', '.join(without)} (--score l2 takes it)"
        )
    if "real" not in pruned.proofs:
        why = "without --data" if data is None else f"no photo of {data} could be used, so"
        remarks.append(f"{why} the proof rests on random images alone")
    return remarks


def _tie_remarks(pruned: Pruned, candidates: Candidates, goal: Goal) -> list[str]:
    """Channels of one score go together, and a penalty that gives exact zeros leaves many of them."""
    scores, threshold = candidates.magnitudes, pruned.selection.threshold
    num_tied = int((scores == threshold).sum())
    if num_tied < 1 + _FEW * len(scores):
        return []
    tied = f"{num_tied:,} of {len(scores):,} scores are {threshold:.3g}, that of the threshold, and go together: "
    if goal.kind == "ratio":
        share = float((scores <= threshold).mean())
        if share > goal.value + _FEW:
            return [f"{tied}{100 * share:.1f} % of the channels are to go where {100 * goal.value:g} % were asked for"]
        return []
    after = {"parameters": pruned.after.parameters, "macs": pruned.after.macs}.get(goal.kind)
    if after is not None and after < (1 - _FEW) * goal.value:
        unit = "MACs" if goal.kind == "macs" else "parameters"
        return [f"{tied}{after:,} {unit} are left where the budget allows {exact(goal.value)}"]
    return []


def recalibration_remarks(found: int, wanted: int, *, data: str) -> list[str]:
    """found: photos that the norms were measured on."""
    if found >= wanted:
        return []
    if not found:
        return [
            f"fewer than two photos of {data} could be used, so --recalibrate left the norm statistics as they were"
        ]
    return [f"--recalibrate asked for {wanted:,} photos, {data} has {found:,} that could be used"]


def latency_remarks(before: Latency, after: Latency, *, goal: Goal, multiple: int) -> list[str]:
    """before, after: measured alike. multiple: that widths were rounded up to."""
    remarks = []
    took = attainable(after.milliseconds, "ms")
    if goal.kind == "latency" and after.milliseconds > goal.value:
        remarks.append(
            f"measured once more, the pruned model took {took}, more than the budget of {exact(goal.value)}: the "
            "machine is busy; repeat on an idle one, or ask for less"
        )
    if after.milliseconds > before.milliseconds:
        why = (
            "odd widths are slow: round them with --multiple 8"
            if multiple % 8
            else "measure again on an idle machine (python -m prune --max-latency-ms prunes by measured time)"
        )
        remarks.append(f"slower than before: {took} against {before.milliseconds:.3f} ms; {why}")
    return remarks


def _was_pruned(meta: ArtifactMeta) -> bool:
    """Then the gammas near zero went first, and few are left."""
    if "pruned" in meta.provenance:
        return True
    config = meta.provenance.get("config") or {}
    return bool(meta.architecture["widths"]) and not config.get("model", {}).get("fresh_weights")


def change_table(plan: Mapping[str, Any]) -> Table:
    """Widths of the layers that changed, then parameters, MACs and latency."""
    table = Table(title="pruned", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    for column in ("before", "after", "left"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in plan["layers"]:
        if layer["after"] < layer["before"]:
            _row(table, layer["name"], layer["kind"], layer)
    table.add_section()
    _row(table, "parameters", "", plan["parameters"])
    _row(table, f"MACs at {plan['macs']['image_size']} px", "", plan["macs"])
    latency = plan["latency_ms"]
    what = f"ms per image, {latency['threads']} thread{'s' if latency['threads'] > 1 else ''}"
    _row(table, f"{what}, {latency['runtime']}", "", latency, digits=3)
    return table


def _row(table: Table, name: str, kind: str, values: Mapping[str, float], *, digits: int = 0) -> None:
    before, after = values["before"], values["after"]
    table.add_row(name, kind, f"{before:,.{digits}f}", f"{after:,.{digits}f}", f"{100 * after / before:.0f} %")
