"""Tables on the terminal."""

import sys

from rich.console import Console
from rich.table import Table

_WIDTH = 140  # columns


def print_table(table: Table) -> None:
    """As wide as the terminal is; a pipe has no width, and rich would cut the table at 80 columns."""
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
