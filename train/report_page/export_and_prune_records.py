"""An export.json or a prune.json, checked as it is read: `written = read_record(Path("exported"), EXPORT_NAME)`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.sealed_json import open_sealed
from models.errors import ModelError
from models.formats.manifest import EXPORT_FORMAT, EXPORT_NAME
from models.prune_record import PRUNE_FORMAT, PRUNE_NAME
from train.report_page.saved_model import first_wrong_value

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    """Of the right types, not of text that could be read as them."""

    model_config = ConfigDict(strict=True)


class _Task(_Strict):
    top1: Share | None
    mean_absolute_error: Annotated[float, Field(ge=0)] | None = None


class _Variant(_Strict):
    file: str
    bytes: Count
    milliseconds: Milliseconds | None = None
    mean_top1: Share | None = None
    tasks: dict[str, _Task] = {}


class _Source(_Strict):
    sha256: str
    model: str | None = None


class _Gate(_Strict):
    limit: float
    lost: dict[str, dict[str, float]]


class _Quantisation(_Strict):
    calibrate: str | None = None
    photos: Count | None = None
    method: str | None = None
    float_layers: list[str] = []


class _Export(_Strict):
    format: str
    command: str
    model: _Source
    image_size: Count
    data: str | None
    variants: Annotated[dict[str, _Variant], Field(min_length=1)]
    gate: _Gate | None
    quantisation: _Quantisation
    files: dict[str, str] = {}


class _Layer(_Strict):
    name: str
    before: Count
    after: Annotated[int, Field(ge=0)]
    remark: str | None = None


class _Change(_Strict):
    before: Count
    after: Count


class _Latency(_Strict):
    before: Milliseconds
    after: Milliseconds
    runtime: str


class _Prune(_Strict):
    format: str
    command: str | None = None
    source: _Source
    layers: Annotated[list[_Layer], Field(min_length=1)]
    parameters: _Change
    macs: _Change
    latency_ms: _Latency | None = None
    files: dict[str, str] = {}


_KINDS: Mapping[str, tuple[str, type[BaseModel], str]] = {
    EXPORT_NAME: (EXPORT_FORMAT, _Export, "python -m models.export"),
    PRUNE_NAME: (PRUNE_FORMAT, _Prune, "python -m prune"),
}


@dataclass(frozen=True)
class SavedRecord:
    """A folder that holds an export.json or a prune.json, and what it says."""

    name: str
    path: Path
    content: Mapping[str, Any]


def read_record(path: Path, file: str) -> SavedRecord:
    """ModelError naming the file and the value where it is cut, missing or not what its command writes."""
    expected, kind, command = _KINDS[file]
    try:
        content = open_sealed((path / file).read_bytes(), name=file)
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / file} cannot be read: {error}") from error
    if content.get("format") != expected:
        raise ModelError(
            f"{path / file} cannot be read: its format is {content.get('format')!r}, this version reads {expected!r}"
        )
    try:
        kind.model_validate(content)
    except ValidationError as error:
        raise ModelError(
            f"{path / file} cannot be read: {first_wrong_value(error)}; write it again with {command}"
        ) from error
    return SavedRecord(path.name or str(path), path, content)
