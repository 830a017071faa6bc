"""What the sections of the config are made of: the strict base class, ranges of numbers, and their units.

class EmaConfig(Strict):
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    '''What the key does, for docs/CONFIG.md.'''
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class Unit:
    """What a number counts, for docs/CONFIG.md: Annotated[Positive, Unit("pixels")]. It checks nothing."""

    name: str


class Strict(BaseModel):
    """A section: unknown keys, numbers that are not finite and later changes are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]

Pixels = Annotated[Positive, Unit("pixels")]
Samples = Annotated[Positive, Unit("samples")]
Updates = Annotated[Positive, Unit("updates")]
WholeEpochs = Annotated[Positive, Unit("epochs")]
Epochs = Annotated[NotNegative, Unit("epochs")]


@dataclass(frozen=True)
class Section:
    """A key whose value has keys of its own: once, in each entry of a list, or under each name of a mapping."""

    model: type[BaseModel]
    kind: Literal["group", "list", "mapping"]


def sections(model: type[BaseModel]) -> dict[str, Section]:
    """The sections right inside another, by key."""
    return {
        name: Section(inner, kind)
        for name, field in model.model_fields.items()
        for inner, kind in _members(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel)
    }


def _members(annotation: Any) -> Iterator[tuple[Any, Literal["group", "list", "mapping"]]]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        for member in arguments:
            yield from _members(member)
    elif origin is dict:
        yield arguments[1], "mapping"
    elif origin is tuple:
        yield arguments[0], "list"
    else:
        yield annotation, "group"
