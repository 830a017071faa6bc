"""What a user is told of a pruning: its numbers, what it wrote, and the warnings that every command gives.

warnings = pruning_warnings(pruned, candidates, meta, goal=goal, by_gamma=True, data="shards/a/train")
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from models.artifact import ArtifactMeta
from models.channel_groups.gamma_histogram import describe, is_sparse
from models.formats.latency import Latency
from models.terminal import print_table
from prune.plan import KEPT_WIDER
from prune.pruner import Goal, Pruned, attainable, exact
from prune.selection import NO_NORM, Candidates

_FEW = 0.01  # of the channels or of a budget: less is a matter of rounding


def pruning_warnings(
    pruned: Pruned, candidates: Candidates, meta: ArtifactMeta, *, goal: Goal, by_gamma: bool, data: str | None
) -> list[str]:
    """meta: of the model before. by_gamma: gammas ranked the channels. data: where images for the check were sought."""
    warnings = []
    if by_gamma and not is_sparse(candidates.magnitudes) and not _was_pruned(meta):
        why = (
            "this model was trained with a penalty, but hardly any gamma came near zero, and pruning by gamma cuts "
            "into what it needs: train longer, or raise sparsity.strength"
            if (meta.provenance.get("config") or {}).get("sparsity")
            else "hardly any gamma is near zero, so this model was not trained sparse, and pruning by gamma cuts into "
            "what it needs (a `sparsity:` section in the config trains it so)"
        )
        warnings.append(f"{why}:\n{describe(candidates.magnitudes)}")
    if goal.kind == "ratio" and pruned.selection.is_capped:
        warnings.append(
            f"the threshold stopped at {pruned.selection.cap:.3g}, the smallest maximum of a norm, so fewer "
            "channels go than were asked for (--no-threshold-cap lets it rise; the floor then keeps that layer)"
        )
    warnings += _tie_warnings(pruned, candidates, goal)
    if without := [name for name, why in candidates.left_out.items() if why == NO_NORM]:
        warnings.append(
            f"not pruned, for want of a norm whose gammas rank it: {', '.join(without)} (--score l2 takes it)"
        )
    if "real" not in pruned.equivalence:
        why = "without --data" if data is None else f"no photo of {data} could be used, so"
        warnings.append(f"{why} the proof rests on random images alone")
    if meta.temperatures or meta.thresholds:
        warnings.append(
            "the temperatures and thresholds of the model are not kept, because the pruned one has other logits: "
            "python -m train.calibrate fits new ones, best after fine-tuning"
        )
    return warnings


def _tie_warnings(pruned: Pruned, candidates: Candidates, goal: Goal) -> list[str]:
    """Channels of one importance go together, and a penalty that gives exact zeros leaves many of them."""
    importance, threshold = candidates.magnitudes, pruned.selection.threshold
    num_tied = int((importance == threshold).sum())
    if num_tied < 1 + _FEW * len(importance):
        return []
    tied = f"{num_tied:,} of {len(importance):,} scores are {threshold:.3g}, that of the threshold, and go together: "
    if goal.kind == "ratio":
        share = float((importance <= threshold).mean())
        if share > goal.value + _FEW:
            return [f"{tied}{100 * share:.1f} % of the channels are to go where {100 * goal.value:g} % were asked for"]
        return []
    after = {"parameters": pruned.after.parameters, "macs": pruned.after.macs}.get(goal.kind)
    if after is not None and after < (1 - _FEW) * goal.value:
        unit = "MACs" if goal.kind == "macs" else "parameters"
        return [f"{tied}{after:,} {unit} are left where the budget allows {exact(goal.value)}"]
    return []


def recalibration_warnings(found: int, wanted: int, *, data: str) -> list[str]:
    """found: images that the norms were measured on."""
    if found >= wanted:
        return []
    if not found:
        return [
            f"fewer than two photos of {data} could be used, so --recalibrate left the norm statistics as they were"
        ]
    return [f"--recalibrate asked for {wanted:,} photos, {data} has {found:,} that could be used"]


def latency_warnings(before: Latency, after: Latency, *, goal: Goal, multiple: int) -> list[str]:
    """before, after: measured alike. multiple: that widths were rounded up to."""
    warnings = []
    took = attainable(after.milliseconds, "ms")
    if goal.kind == "latency" and after.milliseconds > goal.value:
        warnings.append(
            f"measured once more, the pruned model took {took}, more than the budget of {exact(goal.value)}: the "
            "machine is busy; repeat on an idle one, or ask for less"
        )
    if after.milliseconds > before.milliseconds:
        why = (
            "odd widths are slow: round them with --multiple 8"
            if multiple % 8
            else "measure again on an idle machine (python -m prune --max-latency-ms prunes by measured time)"
        )
        warnings.append(f"slower than before: {took} against {before.milliseconds:.3f} ms; {why}")
    return warnings


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


def print_warnings(plan: Mapping[str, Any]) -> None:
    """On stderr."""
    for warning in plan["remarks"]:
        print(f"warning: {warning}", file=sys.stderr)


def print_report(plan: Mapping[str, Any], written: Sequence[Path], *, folded: bool) -> None:
    """The table, the warnings, what limits and constants did, the equivalence check, and the files."""
    print_table(change_table(plan))
    print_warnings(plan)
    counts = Counter(layer["constants"] for layer in plan["layers"] if "constants" in layer)
    if counts["dropped"] and not folded:
        print(f"constants of pruned channels: dropped in {counts['dropped']} layers, as --no-fold says")
    elif counts["dropped"]:
        print(
            f"constants of pruned channels: folded forward in {counts['folded']} layers, dropped in "
            f"{counts['dropped']}, where padding or attention changes them on the way (prune.json says which)"
        )
    whole = [layer for layer in plan["layers"] if layer["after"] == layer["before"]]
    for reason, count in Counter(layer["remark"] for layer in whole if "remark" in layer).items():
        if reason.startswith(KEPT_WIDER):
            layers = "1 layer keeps all its" if count == 1 else f"{count} layers keep all their"
            print(f"{layers} channels: {reason.removeprefix(KEPT_WIDER)} (prune.json says which)")
    for kind, check in plan["proof"]["inputs"].items():
        print(
            f"masked = rebuilt on {check['num_images']} {kind} images: {check['difference']:.1e} apart, "
            f"largest logit {check['largest_logit']:.3g}"
        )
    for path in written:
        print(f"wrote {path}")
