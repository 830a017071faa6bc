"""A saved model as files for phones and servers, with what each gains and loses: `python -m models.export`.

exported = export_model(ExportOptions(model="runs/a/best", out=Path("exported"))); exported.record["variants"]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.export.exporter import Exported, export_model
    from models.export.options import ExportOptions

__all__ = ["ExportOptions", "Exported", "export_model"]


def __getattr__(name: str) -> Any:
    """`python -m` imports this file before the command has looked at its arguments: torch, which takes seconds, waits
    until a name is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.export import exporter, options

    return getattr(options if name == "ExportOptions" else exporter, name)
