"""From a YAML file and `key=value` overrides to a Config, with errors that name the key, the line and the fix.

config = load_config("run.yaml", ["optimizer.lr=3e-2"])
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from models.errors import ModelError
from models.model_path import require_models
from train.config import Config


class ConfigError(ValueError):
    """The configuration cannot be used; the message is for the user."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats (PyYAML reads 1e-3 as text) and no duplicate keys."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

_UNION_MEMBER = re.compile(r"^(constrained-|literal\[|tuple\[|function-)")

Lines = dict[tuple[str, ...], int]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and validate. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_config(text, overrides, name=str(path))


def parse_config(text: str, overrides: Sequence[str] = (), *, name: str = "config") -> Config:
    """A Config from YAML text; `name` stands for the file in messages. Raises ConfigError."""
    lines: Lines = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        values: Any = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: a config is a YAML mapping (key: value), this is {type(values).__name__}")
    _collect_lines(node, (), lines, name)
    for override in overrides:
        _apply(values, override, lines)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        messages = dict.fromkeys(_explain(item, lines, name) for item in error.errors())
        raise ConfigError("\n".join(messages)) from error


def require_named_models(config: Config) -> None:
    """ConfigError naming the key where a saved model that the config names is not there; needs no torch."""
    named: dict[str, str] = {}
    if config.model.artifact is not None:
        named["model.artifact"] = config.model.artifact
    teacher = config.teacher.model if config.teacher else None
    if isinstance(teacher, str):
        named["teacher.model"] = teacher
    elif teacher is not None:
        named |= {f"teacher.model.{task}": path for task, path in teacher.items()}
    for key, path in named.items():
        try:
            require_models(path)
        except ModelError as error:
            raise ConfigError(f"{key}: {error}") from error


def _collect_lines(node: yaml.Node | None, path: tuple[str, ...], lines: Lines, name: str) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*path, str(key.value))
        if here in lines:
            raise ConfigError(f"{name}:{key.start_mark.line + 1}: key {'.'.join(here)!r} is given twice")
        lines[here] = key.start_mark.line + 1
        _collect_lines(value, here, lines, name)


def _apply(values: dict[str, Any], override: str, lines: Lines) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: write key=value, for example optimizer.lr=0.05")
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a group of keys")
    try:
        place[last] = yaml.load(text, Loader=_Loader) if text else None
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from error
    lines[tuple(key.split("."))] = 0  # from the command line


def _explain(item: Any, lines: Lines, name: str) -> str:
    path = tuple(str(part) for part in item["loc"])
    # Unions put the name of the member that failed into the path; keep the keys that the file has.
    known = path
    while known and known not in lines:
        known = known[:-1]
    line = lines.get(known)
    where = "command line" if line == 0 else f"{name}:{line}" if line else name
    key = ".".join(part for part in path if not _UNION_MEMBER.search(part))
    if item["type"] == "extra_forbidden":
        parent = _model_at(path[:-1])
        valid = sorted(parent.model_fields) if parent else []
        near = difflib.get_close_matches(path[-1], valid, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(valid)}"
        return f"{where}: unknown key {key!r}; {hint}"
    if item["type"] == "missing":
        return f"{where}: key {key!r} is required"
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    shown = "" if isinstance(value, (dict, BaseModel)) else f" (got {value!r})"
    return f"{where}: {key or 'config'}: {message}{shown}"


def _model_at(path: Sequence[str]) -> type[BaseModel] | None:
    """The config class that a path of keys leads to; the names inside a dictionary (tasks) are skipped."""
    model: type[BaseModel] = Config
    skip = False
    for key in path:
        if skip:
            skip = False
            continue
        if key not in model.model_fields:
            return None
        annotation = model.model_fields[key].annotation
        inner = _model_in(annotation)
        if inner is None:
            return None
        model, skip = inner, _holds_dict(annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)


def _holds_dict(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_holds_dict(inner) for inner in get_args(annotation))
