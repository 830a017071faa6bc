"""The shape of the repository: who may import whom, what is never used, and what every file must carry."""

import ast
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "models", "prune", "train", "launch")

# Library modules of a package import from these packages of ours and no others.
MAY_IMPORT = {
    "data": {"data", "launch"},
    "models": {"models", "data"},
    "prune": {"prune", "models", "data"},
    "train": {"train", "data", "models", "prune", "launch"},
    "launch": {"launch"},
}

# Third-party module -> the one place that may import it.
KEPT_IN = {"horovod.torch": "train/distributed/comm.py", "horovod.runner": "launch/", "webdataset": "data/"}

TOP_LEVEL = {
    *("data", "docs", "launch", "models", "prune", "tests", "train"),
    *("Makefile", "README.md", "pyproject.toml", "requirements.lock", "setup.py", "LICENSE"),
}
CODE = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def is_command(path: Path) -> bool:
    """Command files are those that can be started: they carry the `__main__` test."""
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in tree_of(path).body
    )


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of everything imported anywhere in the file; `from a import b` gives both `a` and `a.b`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import; write the full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tracked_files() -> list[Path]:
    """What git holds; files that were deleted but not yet committed are left out."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / line for line in listed.splitlines() if (REPOSITORY / line).is_file()]


@pytest.mark.parametrize("path", [path for path in CODE if not is_command(path)], ids=name_of)
def test_library_modules_import_only_what_the_table_allows(path: Path) -> None:
    allowed = MAY_IMPORT[path.relative_to(REPOSITORY).parts[0]]
    ours = {module for module in imported_modules(path) if module.split(".")[0] in (*PACKAGES, "tests")}
    assert {module for module in ours if module.split(".")[0] not in allowed} == set()


def test_nothing_imports_a_command_file() -> None:
    commands = {module_of(path) for path in CODE if is_command(path)}
    importers = [(name_of(path), module) for path in CODE for module in imported_modules(path) if module in commands]
    assert importers == []


@pytest.mark.parametrize("module", sorted(KEPT_IN))
def test_a_library_with_one_home_is_imported_nowhere_else(module: str) -> None:
    importers = {
        name_of(path)
        for path in CODE
        for imported in imported_modules(path)
        if imported == module or imported.startswith(f"{module}.")
    }
    assert {name for name in importers if not name.startswith(KEPT_IN[module])} == set()


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_nothing_from_a_file_is_ever_executed(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("weights_only") == "True", f"line {node.lineno}: torch.load without weights_only=True"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", "numpy may not unpickle"


def test_pickle_is_only_imported_to_be_restricted() -> None:
    importers = [path for path in CODE if {"pickle", "cloudpickle", "dill"} & set(imported_modules(path))]
    assert len(importers) <= 1, f"one file may read the CIFAR-10 batches; these import pickle: {importers}"
    for path in importers:
        classes = [node for node in tree_of(path).body if isinstance(node, ast.ClassDef)]
        restricted = [node for node in classes if "pickle.Unpickler" in map(ast.unparse, node.bases)]
        assert restricted, f"{name_of(path)} imports pickle without a restricted Unpickler"
        assert "find_class" in {item.name for item in restricted[0].body if isinstance(item, ast.FunctionDef)}
        used = {ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}
        assert not used & {"pickle.load", "pickle.loads"}, f"{name_of(path)} unpickles without restriction"


def test_every_file_is_named_by_a_noun_of_its_own() -> None:
    assert [name_of(path) for path in CODE if path.stem in ("utils", "util", "common", "helpers", "misc")] == []


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


def test_the_top_level_holds_only_the_agreed_names() -> None:
    names = {path.relative_to(REPOSITORY).parts[0] for path in tracked_files()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_file_names_a_folder_of_one_machine() -> None:
    elsewhere = re.compile(r"(?<![\w.$}/-])/(?:work|root|home|Users|mnt|opt)/\w")
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in tracked_files()
        if path.suffix in {"", ".py", ".yaml", ".yml", ".toml", ".md", ".lock", ".sh", ".sbatch"}
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if elsewhere.search(line)
    ]
    assert found == []


def test_the_lock_pins_everything_exactly_and_names_no_index() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+(\[[\w,.-]+\])?==[\w.+!]+( ;.*)?", line)] == []
    assert {"torch==2.14.1", "torchvision==0.29.1"} <= set(pins)


CONFIGS = sorted((REPOSITORY / "train" / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_config_opens_with_the_command_that_runs_it(path: Path) -> None:
    opening = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        opening.append(line)
    assert re.search(rf"python \S+.* --config {re.escape(name_of(path))}\b", "\n".join(opening))
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_setup_lists_every_package_and_never_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", given.update)
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    folders_with_code = {module_of(path.parent / "__init__.py") for path in CODE}
    assert folders_with_code == set(given["packages"]), "a folder with code lacks its __init__.py"
    assert not any(requirement.startswith("horovod") for requirement in given["install_requires"])
