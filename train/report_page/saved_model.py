"""What a report reads of a saved model: `meta = read_meta(folder)`, and whether its weights are whole."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta, load_artifact_meta
from models.errors import ModelError


class _Head(BaseModel):
    kind: str


class _Architecture(BaseModel):
    backbone: str
    head: _Head


class _Preprocessing(BaseModel):
    eval_size: Annotated[int, Field(gt=0)]


class _Meta(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    architecture: _Architecture
    preprocessing: _Preprocessing
    metrics: dict[str, float | None]
    provenance: dict[str, Any]
    num_parameters: Annotated[int, Field(gt=0)]
    sha256: str


def read_meta(folder: Path) -> ArtifactMeta:
    """What `model.json` says. ModelError naming the file and the value where the report cannot use it."""
    meta = load_artifact_meta(folder / META_NAME)
    try:
        _Meta.model_validate(meta)
    except ValidationError as error:
        raise ModelError(f"{folder / META_NAME}: {first_wrong_value(error)}") from error
    return meta


def weights_error(meta: ArtifactMeta) -> str | None:
    """What is wrong with the weights beside a `model.json`, in words; None where they are those it was written for."""
    file = meta.path / WEIGHTS_NAME
    try:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{file} is missing"
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"
    return None if found == meta.sha256 else f"{file} is cut or changed: {META_NAME} was written for other weights"


_LONGEST = 60  # characters of a value that is quoted


def first_wrong_value(error: ValidationError) -> str:
    """The first key that is wrong, what it should be and what it is."""
    item = error.errors()[0]
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {item['msg'].removeprefix('Input ')}, not {repr(item['input'])[:_LONGEST]}"
