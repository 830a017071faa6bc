"""What a pruning changed, as a table for the terminal.

console.print(change_table(plan))
"""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


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
