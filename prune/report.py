"""What a user is told of a pruning: its numbers, what it wrote, and the warnings that every command gives.

warnings = pruning_warnings(pruned, candidates, meta, goal=goal, by_gamma=True, data="shards/a/train")
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from models.artifact import ArtifactMeta
from models.channel_groups.gamma_histogram import describe, is_sparse
from models.formats.latency import Latency
from models.terminal import print_table
from prune.goal import UNITS, Goal, attainable, exact, joined
from prune.plan import KEPT_WIDER
from prune.pruner import Pruned
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
    if goal.ratio is not None and pruned.selection.is_capped:
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
    if goal.ratio is not None:
        share = float((importance <= threshold).mean())
        if share > goal.ratio + _FEW:
            return [f"{tied}{100 * share:.1f} % of the channels are to go where {100 * goal.ratio:g} % were asked for"]
        return []
    after = {"parameters": pruned.after.parameters, "macs": pruned.after.macs}
    budgets = {kind: budget for kind, budget in goal.budgets.items() if kind in after}
    if len(budgets) == len(goal.budgets) and all(after[kind] < (1 - _FEW) * budget for kind, budget in budgets.items()):
        left = joined(attainable(after[kind], UNITS[kind]) for kind in budgets)
        return [f"{tied}{left} are left where the budget allows {joined(map(exact, budgets.values()))}"]
    return []


def most_cut(pruned: Pruned) -> str:
    """What is left of the channels that the heads read, or else of the layer that lost the largest share."""
    kept = {name: len(units) for name, units in pruned.selection.kept.items()}
    cut = [group for group in pruned.groups if kept.get(group.name, group.num_units) < group.num_units]
    last = [group for group in cut if group.kind == "features"]
    group = last[0] if last else min(cut, key=lambda group: kept[group.name] / group.num_units)
    what = "the last layer before the heads" if last else "the layer that lost most"
    return f"{what}, {group.name!r}, kept {kept[group.name] * group.copies:,} of {group.num_channels:,} channels"


def few_photos_warning(there: int, needed: int, *, data: str) -> str:
    """Why norm statistics were not measured anew although nobody said so."""
    return (
        f"the norm statistics are those of before the pruning: {data} has {there:,} photos, and fewer than {needed} "
        "are not measured on by default (--recalibrate 1 does it all the same, --recalibrate 0 says nothing)"
    )


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
    budget = goal.budgets.get("latency")
    if budget is not None and after.milliseconds > budget:
        warnings.append(
            f"measured once more, the pruned model took {took}, more than the budget of {exact(budget)}: the "
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
    if sizes := plan.get("int8_bytes"):
        _row(table, "bytes of the int8 file, predicted", "", sizes)
    latency = plan["latency_ms"]
    what = f"ms per image, {latency['threads']} thread{'s' if latency['threads'] > 1 else ''}"
    _row(table, f"{what}, {latency['runtime']}", "", latency, digits=3)
    return table


def accuracy_table(accuracy: Mapping[str, Any]) -> Table:
    """Top-1 of each task before and after, with 95 % intervals. accuracy: as prune.json has it."""
    said = [f"top-1 on photos of {accuracy['data']} (95 % intervals)"]
    if accuracy["trained_on"]:
        said.append("on which the model was trained")
    if accuracy["ranked_by"]:
        said.append("some of which ranked the channels")
    table = Table(title=", ".join(said), title_justify="left")
    table.add_column("task", overflow="fold")
    for column in ("photos", "before", "after pruning"):
        table.add_column(column, justify="right", no_wrap=True)
    for task, found in accuracy["tasks"].items():
        table.add_row(escape(task), f"{found['count']:,}", *(_top1(found[name]) for name in ("before", "after")))
    return table


def _top1(measured: Mapping[str, Any]) -> str:
    low, high = measured["interval"]
    return f"{100 * measured['top1']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


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
    if plan["accuracy"]:
        print_table(accuracy_table(plan["accuracy"]))
    print_warnings(plan)
    if photos := plan["recalibrated_photos"]:
        print(f"norm statistics: measured anew on {photos:,} photos (--recalibrate 0 keeps the old ones)")
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
