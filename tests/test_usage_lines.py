"""What a docstring shows as a call of ours can be called: the name exists, its keywords exist, nothing that it needs is
left out but by `...`."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.test_structure import CODE, name_of, tree_of

_OPENS_A_BLOCK = re.compile(r"^(with|for|if|while|def|class|async)\b")


@dataclass(frozen=True)
class Signature:
    """positional: names, in order; required: without a default; keywords: all names; open: takes any others."""

    positional: tuple[str, ...]
    required: frozenset[str]
    keywords: frozenset[str]
    open: bool


def of_function(node: ast.FunctionDef, *, is_method: bool) -> Signature:
    named = [*node.args.posonlyargs, *node.args.args][1 if is_method else 0 :]
    optional = (
        {argument.arg for argument in named[len(named) - len(node.args.defaults) :]} if node.args.defaults else set()
    )
    defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    optional |= {argument.arg for argument, default in defaults if default is not None}
    names = {argument.arg for argument in (*named, *node.args.kwonlyargs)}
    is_open = node.args.vararg is not None or node.args.kwarg is not None
    return Signature(tuple(one.arg for one in named), frozenset(names - optional), frozenset(names), is_open)


def of_class(node: ast.ClassDef) -> Signature | None:
    """Of __init__ or of a dataclass's fields; None for classes that inherit theirs."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return of_function(item, is_method=True)
    if not any("dataclass" in ast.unparse(one) for one in node.decorator_list) or node.bases:
        return None
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    names = [item.target.id for item in fields if isinstance(item.target, ast.Name)]
    required = {item.target.id for item in fields if item.value is None and isinstance(item.target, ast.Name)}
    return Signature(tuple(names), frozenset(required), frozenset(names), open=False)


def defined(tree: ast.Module) -> tuple[dict[str, Signature | None], dict[str, list[Signature]]]:
    """Functions and classes of a module, and the methods of its classes, by name."""
    names: dict[str, Signature | None] = {}
    methods: dict[str, list[Signature]] = defaultdict(list)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names[node.name] = of_function(node, is_method=False)
        elif isinstance(node, ast.ClassDef):
            names[node.name] = of_class(node)
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    is_static = any(ast.unparse(one) == "staticmethod" for one in item.decorator_list)
                    methods[item.name].append(of_function(item, is_method=not is_static))
    return names, methods


def code_in(text: str) -> Iterator[ast.AST]:
    """Everything in a docstring that parses as statements with a call: lines, and parts between backticks."""
    candidates = [line.strip() for line in text.splitlines()]
    candidates += re.findall(r"`([^`]+)`", text.replace("\n", " "))
    for block in re.split(r"\n\s*\n", text):  # statements over several lines stand in a block of their own
        lines = block.splitlines()
        candidates += [
            " ".join(line.strip() for line in lines[start:stop])
            for start in range(len(lines))
            for stop in (start + 2, start + 3)
        ]
    for candidate in dict.fromkeys(candidates):
        source = candidate.removeprefix("Use: ").strip("`")
        if "(" not in source:
            continue
        if _OPENS_A_BLOCK.match(source) and source.rstrip().endswith(":"):
            source += " pass"
        try:
            yield ast.parse(source)
        except SyntaxError:
            continue


def mistake(call: ast.Call, signature: Signature) -> str | None:
    shown = ast.unparse(call)
    given = {keyword.arg for keyword in call.keywords}
    if None in given or any(isinstance(argument, ast.Starred) for argument in call.args) or signature.open:
        return None
    if unknown := given - signature.keywords:
        return f"{shown}: no argument {', '.join(sorted(map(str, unknown)))}"
    positional = [argument for argument in call.args if ast.unparse(argument) != "..."]
    if len(positional) > len(signature.positional):
        return f"{shown}: {len(signature.positional)} arguments by position"
    if len(positional) < len(call.args):  # elided
        return None
    missing = signature.required - set(signature.positional[: len(call.args)]) - given
    return f"{shown}: lacks {', '.join(sorted(missing))}" if missing else None


EVERYWHERE: dict[str, list[Signature | None]] = defaultdict(list)
for _path in CODE:
    for _name, _signature in defined(tree_of(_path))[0].items():
        EVERYWHERE[_name].append(_signature)


def mistakes_in(text: str, names: dict[str, Signature | None], methods: dict[str, list[Signature]]) -> Iterator[str]:
    for tree in code_in(text):
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call):
                continue
            signature = None
            if isinstance(call.func, ast.Name):
                own = names.get(call.func.id)
                others = EVERYWHERE.get(call.func.id, [])
                signature = own or (others[0] if len(others) == 1 else None)
            elif isinstance(call.func, ast.Attribute) and len(methods.get(call.func.attr, [])) == 1:
                signature = methods[call.func.attr][0]
            if signature is not None and (found := mistake(call, signature)):
                yield found


def test_usage_lines_match_their_signatures() -> None:
    wrong = []
    for path in CODE:
        names, methods = defined(tree_of(path))
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                wrong += [f"{name_of(path)}: {found}" for found in mistakes_in(text, names, methods)]
    assert list(dict.fromkeys(wrong)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("f(1, b=2)", []),
        ("x = f(1, ...)", []),
        ("Use `f(1, b=2)` twice.", []),
        ("with f(1, c=3) as x:", ["f(1, c=3): no argument c"]),
        ("f(1)", ["f(1): lacks b"]),
        ("f(1, 2, 3)", ["f(1, 2, 3): 1 arguments by position"]),
        ("x = f(1,\n      c=3)", ["f(1, c=3): no argument c"]),
        ("box.put(1)", ["box.put(1): lacks into"]),
    ],
)
def test_the_mistakes_are_found(text: str, found: list[str]) -> None:
    tree = ast.parse("def f(a, *, b, d=0): pass\nclass Box:\n    def put(self, what, into): pass\n")
    assert list(mistakes_in(text, *defined(tree))) == found
