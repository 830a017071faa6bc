"""What the exports promise: their gate, how int8 was calibrated, and which layers stayed in float.

section = exports_section(exports)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from models.formats.manifest import REFERENCE
from train.report_page.export_and_prune_records import SavedRecord
from train.report_page.markup import Html, join, tag
from train.report_page.numbers import count


def exports_section(exports: Sequence[SavedRecord]) -> Html | None:
    """One part for each; None where nothing was exported."""
    return tag("section", tag("h2", "Exports", id="exports"), *map(_export, exports)) if exports else None


def _export(export: SavedRecord) -> Html:
    quantisation = export.content["quantisation"]
    return join(
        tag("h3", export.name),
        _gate(export.content["gate"]),
        tag("p", _calibration(quantisation)) if quantisation.get("calibrate") and quantisation.get("photos") else None,
        tag("p", _in_float(quantisation["float_layers"])) if "float_layers" in quantisation else None,
    )


def _gate(gate: Mapping[str, Any] | None) -> Html:
    if gate is None:
        return tag("p", "No gate was set: nothing was refused, whatever it lost.")
    badge = tag("span", "missed" if gate["lost"] else "passed", class_="badge warn" if gate["lost"] else "badge")
    allowed = f" Gate: no task may lose more than {_points(gate['limit'])} of top-1 against {REFERENCE}."
    losses = [
        f"{variant} loses {_points(lost)} of {task}"
        for variant, tasks in gate["lost"].items()
        for task, lost in tasks.items()
    ]
    return tag("p", badge, allowed, f" Over it: {'; '.join(losses)}." if losses else None)


def _calibration(quantisation: Mapping[str, Any]) -> str:
    # A program of ExecuTorch has no choice of method.
    method = f", by {quantisation['method']}" if quantisation.get("method") else ""
    return f"int8 was calibrated on {count(quantisation['photos'], 'photo')} of {quantisation['calibrate']}{method}."


def _in_float(layers: Sequence[str]) -> str:
    return (
        f"{count(len(layers), 'layer')} of int8 kept in float: {', '.join(layers)}."
        if layers
        else "No layer of int8 was kept in float."
    )


def _points(share: float) -> str:
    return "1 point" if share == 0.01 else f"{100 * share:.3g} points"
