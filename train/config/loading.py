"""From a YAML file and `key=value` overrides to a Config, with errors that name the key, the line and the fix.

config = load_config("run.yaml", ["optimizer.lr=3e-2"])
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from models.errors import ModelError
from models.model_path import require_models
from train.config.key_hints import suggest
from train.config.schema import Config
from train.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats (PyYAML reads 1e-3 as text) and no duplicate keys."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

Model = TypeVar("Model", bound=BaseModel)
_UNION_MEMBER = re.compile(r"^(constrained-|literal\[|tuple\[|function-)")

_COMMAND_LINE = "command line, "

Places = dict[tuple[str, ...], str]  # keys -> where they are given: a line of the file, or an override


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and validate. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_config(text, overrides, name=str(path))


def parse_config(text: str, overrides: Sequence[str] = (), *, name: str = "config") -> Config:
    """A Config from YAML text; `name` stands for the file in messages. Raises ConfigError."""
    return parse_as_model(Config, text, overrides, name=name)


def parse_as_model(model: type[Model], text: str, overrides: Sequence[str] = (), *, name: str) -> Model:
    """The same for any model of settings."""
    places: Places = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        values: Any = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: a config is a YAML mapping (key: value), this is {type(values).__name__}")
    _collect_lines(node, (), places, name)
    for override in overrides:
        _apply(values, override, places)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        messages = dict.fromkeys(_explain(item, places, name, model) for item in error.errors())
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


def require_packages(config: Config) -> None:
    """ConfigError naming the key that needs a package which is not installed; imports none."""
    if config.tracking.tensorboard is not False and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tracking.tensorboard: the package tensorboard is not installed; pip install 'slimheads[tensorboard]', or "
            "set it to false"
        )


def _collect_lines(node: yaml.Node | None, path: tuple[str, ...], places: Places, name: str) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*path, str(key.value))
        line = f"{name}:{key.start_mark.line + 1}"
        if here in places:
            raise ConfigError(f"{line}: key {'.'.join(here)!r} is given twice")
        places[here] = line
        _collect_lines(value, here, places, name)


def _apply(values: dict[str, Any], override: str, places: Places) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: write key=value, for example optimizer.lr=0.05")
    whole = tuple(key.split("."))
    *parents, last = whole
    group = values
    for depth, parent in enumerate(parents, start=1):
        if group.get(parent) is None:
            group[parent] = {}
            places[whole[:depth]] = f"{_COMMAND_LINE}{override!r}"
        group = group[parent]
        if not isinstance(group, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a group of keys")
    try:
        group[last] = yaml.load(text, Loader=_Loader) if text else None
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from error
    for below in [path for path in places if path[: len(whole)] == whole]:
        del places[below]  # lines of what is replaced
    places[whole] = f"{_COMMAND_LINE}{override!r}"


def _explain(item: Any, places: Places, name: str, model: type[BaseModel]) -> str:
    path = tuple(str(part) for part in item["loc"])
    where = _where(path, places, name)
    key = ".".join(part for part in path if not _UNION_MEMBER.search(part))
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}; {suggest(path, model)}"
    if item["type"] == "missing":
        return f"{where}: key {key!r} is required"
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    shown = "" if isinstance(value, (dict, BaseModel)) else f" (got {value!r})"
    return f"{where}: {key or 'config'}: {message}{shown}"


def _where(path: tuple[str, ...], places: Places, name: str) -> str:
    # Unions put the name of the member that failed into the path; keep the keys that were given.
    known = path
    while known and known not in places:
        known = known[:-1]
    where = places.get(known, name)
    # What is wrong with a group of keys may be an override's doing.
    below = [place for key, place in places.items() if path and key[: len(path)] == path]
    others = [place for place in dict.fromkeys(below) if place.startswith(_COMMAND_LINE) and place != where]
    return f"{where} and {', '.join(others)}" if others else where
