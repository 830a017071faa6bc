"""Runs the benchmarks and prints a table: `python -m tests.benchmarks [loader step ...] [--out bench.json] [--quick]`.

Every group runs in a process of its own. bench.json holds one number per name, of the groups that ran.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figure import Figure
from tests.benchmarks.groups import GROUPS, measure_group

_FILE_WIDTH = 190  # characters of a table that goes to a file or a pipe


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"there is no group {group!r}; there are {', '.join(GROUPS)}")
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    figures: list[Figure] = []
    for group in options.groups or GROUPS:
        begin = time.monotonic()
        with console.status(f"{group}: {GROUPS[group]}"):
            figures += measure_group(group, quick=options.quick)
        console.print(f"{group}: {GROUPS[group]} ({time.monotonic() - begin:.0f} s)")
    console.print(table_of(figures))
    options.out.write_text(json.dumps({figure.name: figure.value for figure in figures}, indent=2) + "\n")
    print(f"wrote {options.out}")
    return 0


def table_of(figures: Sequence[Figure]) -> Table:
    table = Table("name", "value", "target", "met", "95 % interval", "note")
    for figure in figures:
        target = "" if figure.target is None else f"{'>=' if figure.at_least else '<='} {figure.target:g}"
        met = {True: "yes", False: "[bold red]no[/]", None: ""}[figure.met]
        interval = "" if figure.interval is None else "{:.3f} to {:.3f}".format(*figure.interval)
        table.add_row(figure.name, _short(figure.value), target, met, interval, figure.note)
    return table


def _short(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) and abs(value) < 10 else f"{value:.0f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measure speed and memory side by side."
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="few rounds and small sets: whether it runs, not how fast")
    return parser


if __name__ == "__main__":
    sys.exit(main())
