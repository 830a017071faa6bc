"""Prints docs/CONFIG.md: every key with its default, its allowed values and what it does.

    python -m train.config.reference > docs/CONFIG.md

The texts are those that stand under the keys in this folder. Reading them takes the sources, so only this file does it.
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from train.config.base import Section, Unit, sections
from train.config.schema import Config

EXAMPLE = """\
# horovodrun -np 8 python train/main.py --config mine.yaml
run: {dir: runs/mine}
data: {train: shards/mine/train, val: shards/mine/val, image_size: 192}
model: {backbone: mobilenetv2_050, head: {kind: multi-embedding}}
tasks: {age: {class_weights: balanced}, gender: {weight: 0.5}}   # leave it out to learn every task of the data
schedule: {epochs: 30}
batch_size: 256                                                  # over all ranks
"""

_OPENING = f"""\
# Configuration

A run is one YAML file:

```yaml
{EXAMPLE}```

`key=value` on the command line replaces a value of the file: `optimizer.lr=3e-2`, `tasks.age.weight=2`, and an empty
value is `null`: `data.val=`. A key that does not exist and a value that does not fit end the run before it starts, with
the line of the file and the nearest valid key. The resolved config, with every default, is `config.yaml` in the run
folder. Ready recipes: [train/configs](../train/configs).

Below is every key, in the order of `config.yaml`.
"""

Row = tuple[str, str, str, str]  # key, default, allowed values, meaning


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join([_OPENING, *_sections()])


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Key -> the text under it in the source of its class; a section is described by its own class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {
        key.target.id: inspect.cleandoc(text.value.value)
        for key, text in pairwise(body.body)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
    return {**texts, **{name: inspect.getdoc(section.model) or "" for name, section in sections(model).items()}}


def _sections() -> Iterator[str]:
    texts, inside = descriptions(Config), sections(Config)
    for is_section, names in groupby(Config.model_fields, key=inside.__contains__):
        if is_section:
            for name in names:
                yield f"## `{name}`\n\n{texts[name]}\n\n{_table(_inner_rows(name, inside[name]))}"
        else:
            plain = list(names)
            yield f"## {', '.join(f'`{name}`' for name in plain)}\n\n{_table(_rows(Config, '', plain))}"


def _inner_rows(key: str, section: Section) -> Iterator[Row]:
    middle = ".NAME" if section.kind == "mapping" else ""
    return _rows(section.model, f"{key}{middle}.", section.model.model_fields)


def _rows(model: type[BaseModel], prefix: str, names: Iterable[str]) -> Iterator[Row]:
    """A row per key; a section inside has one for itself and one for each of its keys."""
    texts, inside, hints = descriptions(model), sections(model), get_type_hints(model, include_extras=True)
    for name in names:
        if section := inside.get(name):
            yield f"{prefix}{name}", "", f"a {section.kind}", texts[name]
            yield from _inner_rows(f"{prefix}{name}", section)
        else:
            yield f"{prefix}{name}", _default(model.model_fields[name]), allowed(hints[name]), texts[name]


def _table(lines: Iterator[Row]) -> str:
    cells = [
        (f"`{key}`", default, values, meaning.replace("\n", " ").replace("|", r"\|"))
        for key, default, values, meaning in lines
    ]
    head = [("key", "default", "values", "meaning"), ("---",) * 4]
    return "".join(f"| {' | '.join(row)} |\n" for row in [*head, *cells])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    text = json.dumps(field.get_default(call_default_factory=True))  # which is YAML
    return f"`{text}`".replace('"', "")


def allowed(annotation: Any) -> str:
    """The values of a type hint, in words: "pixels, 1 or more; or `null`"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        members = [allowed(member) for member in arguments if member is not NoneType]
        return "; or ".join([*members, *(["`null`"] if NoneType in arguments else [])])
    if origin is Annotated:
        return _number(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"name: {allowed(arguments[1])}"
    if origin is tuple:
        return f"a list of: {allowed(arguments[0])}" if arguments[-1] is ... else f"a pair of: {allowed(arguments[0])}"
    return {bool: "`true`, `false`", str: "text", int: "whole number", float: "number"}[annotation]


def _number(kind: type, metadata: tuple[Any, ...]) -> str:
    """Unit and range of an annotated number."""
    plain = [inner for outer in metadata for inner in (outer.metadata if isinstance(outer, FieldInfo) else [outer])]
    units = [found.name for found in plain if isinstance(found, Unit)]
    below, above = "", ""
    for limit in plain:
        match limit:
            case Gt(gt=0) if kind is int:
                below = "1 or more"
            case Gt(gt=low):
                below = f"above {low:g}"
            case Ge(ge=low):
                below = f"{low:g}"
            case Lt(lt=high):
                above = f"below {high:g}"
            case Le(le=high):
                above = f"{high:g}"
    span = f"{below} to {above}" if above else below if " " in below else f"{below} or more"
    return f"{units[0] if units else allowed(kind)}, {span}"


if __name__ == "__main__":
    sys.stdout.write(reference())
