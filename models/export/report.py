"""What an export gained and lost, as JSON-able values, and whether a task lost too much.

content = export_report(...); losses = losses_over_gate(results, gate=0.01)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from data.errors import DataError
from data.sealed_json import finite_or_null
from launch.machine import package_versions, processor, processor_flags
from models.artifact import ArtifactMeta
from models.errors import ModelError
from models.formats.manifest import EXPORT_FORMAT, REFERENCE
from train.evaluation.comparison import Comparison

_PACKAGES = ("torch", "onnx", "onnxruntime", "executorch")


def export_report(
    meta: ArtifactMeta,
    *,
    files: Mapping[str, Path],
    image_size: int,
    results: Mapping[str, Comparison],
    milliseconds: Mapping[str, float],
    data: str | None,
    predicted_bytes: Mapping[str, int],
    quantisation: Mapping[str, Any],
    gate: float | None,
    command: str,
) -> dict[str, Any]:
    """files: variant -> file (of the reference: the weights). results, milliseconds and predicted_bytes may lack
    variants.

    `agreement` is the share of photos with the answer of torch fp32, `difference` the largest difference of a
    log-probability. Latency is of one image on one thread.
    """
    variants = {}
    for name, path in files.items():
        variant: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size}
        if name in predicted_bytes:
            variant["predicted_bytes"] = predicted_bytes[name]
        if name in milliseconds:
            variant["milliseconds"] = milliseconds[name]
        if name in results:
            variant["mean_top1"] = results[name].mean_top1
            variant["tasks"] = {
                task: {
                    **{measure: finite_or_null(value) for measure, value in values.items()},
                    "agreement": results[name].agreement[task],
                    "difference": finite_or_null(results[name].difference[task]),
                }
                for task, values in results[name].tasks.items()
            }
        variants[name] = variant
    return {
        "format": EXPORT_FORMAT,
        "command": command,
        "model": {"path": str(meta.path), "sha256": meta.sha256, "num_parameters": meta.num_parameters},
        "image_size": image_size,
        "data": data,
        "variants": variants,
        "quantisation": dict(quantisation),
        "gate": None if gate is None else {"limit": gate, "lost": losses_over_gate(results, gate=gate)},
        "machine": {"processor": processor(), "vnni": "vnni" in processor_flags(), "threads": 1},
        "versions": package_versions(_PACKAGES),
    }


def export_table(content: Mapping[str, Any]) -> Table:
    """Size, time and accuracy per variant, from the content of `export_report`."""
    table = Table(title="export")
    tasks = list(dict.fromkeys(task for variant in content["variants"].values() for task in variant.get("tasks", {})))
    table.add_column("variant")
    measured = list(content["variants"].values())
    ordered = [task for task in tasks if any("mean_absolute_error" in one["tasks"][task] for one in measured)]
    headings = [f"{escape(task)} top-1" for task in tasks] + [f"{escape(task)} mean abs. error" for task in ordered]
    for heading in ("bytes", "ms, one thread", *headings):
        table.add_column(heading, justify="right")
    for name, variant in content["variants"].items():
        time = f"{variant['milliseconds']:.2f}" if "milliseconds" in variant else "-"
        shares = [variant["tasks"][task]["top1"] for task in tasks]
        errors = [variant["tasks"][task].get("mean_absolute_error") for task in ordered]
        cells = ["-" if share is None else f"{100 * share:.2f} %" for share in shares]
        cells += ["-" if error is None else f"{error:.3f}" for error in errors]
        table.add_row(name, f"{variant['bytes']:,}", time, *cells)
    return table


def prediction_lines(content: Mapping[str, Any]) -> list[str]:
    """How near `predicted_int8_bytes`, on which budgets of pruning rest, came to the files that were written."""
    return [
        f"{variant['file']}: {variant['bytes']:,} bytes, predicted from the network's shapes "
        f"{variant['predicted_bytes']:,} ({100 * (variant['predicted_bytes'] / variant['bytes'] - 1):+.2f} %)"
        for variant in content["variants"].values()
        if "predicted_bytes" in variant
    ]


def require_measured(results: Mapping[str, Comparison], tasks: Sequence[str], *, data: str) -> None:
    """A gate over a task that no photo is labelled for would always pass. DataError naming it."""
    for task in tasks:
        if not results[REFERENCE].tasks.get(task, {}).get("count"):
            raise DataError(f"--gate: no photo of {data} is labelled for task {task!r}, so nobody knows what it loses")


def require_finite_predictions(results: Mapping[str, Comparison], *, data: str) -> None:
    """ModelError naming the files that give no numbers, the model itself among them: such a one loses nothing against
    another, and would pass every gate."""
    for name, result in results.items():
        if result.num_without_answer:
            tasks = [
                f"{report['no_answer']:.0f} of {report['count']:.0f} for task {task!r}"
                for task, report in result.tasks.items()
                if report["no_answer"]
            ]
            raise ModelError(
                f"{name} gives answers that are not numbers (NaN or infinity) on the photos of {data}: "
                f"{', '.join(tasks)}; nothing was written"
            )


def losses_over_gate(results: Mapping[str, Comparison], *, gate: float) -> dict[str, dict[str, float]]:
    """variant -> task -> top-1 that it lost against torch fp32, where that is more than `gate`."""
    reference = results[REFERENCE]
    over: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        for task, values in result.tasks.items():
            lost = reference.tasks[task]["top1"] - values["top1"]
            if lost > gate + 1e-12:
                over.setdefault(name, {})[task] = lost
    return over


def gate_message(
    lost: Mapping[str, Mapping[str, float]],
    *,
    gate: float,
    worst: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]],
) -> str:
    """One line per loss, and what to do about it. worst: variant -> task -> (layer or tensor, KL divergence of it
    alone), worst first."""
    lines = [f"the gate of {100 * gate:g} points of top-1 is missed:"]
    for name, tasks in lost.items():
        parts = "tensors" if name == "uint8 storage" else "layers"
        for task, points in tasks.items():
            lines.append(f"  {name}, task {task}: {100 * points:.2f} points lost")
            if name in worst:
                named = ", ".join(f"{part} ({divergence:.2g})" for part, divergence in worst[name][task])
                lines.append(f"    {parts} that hurt it most (KL divergence of each alone in 8 bits): {named}")
    if "onnx int8" in worst:
        lines.append("  keep the worst layers in float with --keep-float N (or their names), or train longer")
    if "executorch int8" in lost:
        lines.append(
            "  layers of an ExecuTorch program cannot be told apart, it is quantised as a whole; --format onnx --int8 "
            "names those of the same network"
        )
    return "\n".join(lines)
