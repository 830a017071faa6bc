"""Tables of photos and labels: CSV, JSON lines, JSON lists.

Use: `from data.tables import Column, Table, read_table`
"""

from data.tables.column import Column
from data.tables.table import Table, is_table, read_table

__all__ = ["Column", "Table", "is_table", "read_table"]
