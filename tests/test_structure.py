"""The shape of the repository: who may import whom, what is never used, and what every file must carry."""

import ast
import functools
import re
import runpy
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
# A package imports itself and those to its left.
PACKAGES = ("launch", "data", "models", "train", "prune")
# The same inside a package; modules that are not in a folder stand for themselves, "*" for those that are not named.
FOLDERS = {
    "launch": ("*", "horovod", "coordinator", "agent", "preflight", "horovod_build", "worker"),
    "data": (
        "*",
        "images",
        "index",
        "sampling",
        "tables",
        "sources",
        "shards",
        "teacher_logits",
        "loading",
        "build_options",
    ),
    "models": ("errors", "heads", "preprocessing", "backbones", "channel_groups", "*", "formats", "export"),
    "train": (
        *("errors", "config", "distributed", "optim", "losses", "evaluation", "checkpoint", "tracking", "distillation"),
        *("loop", "setup", "cli", "report_page", "*"),
    ),
    "prune": ("*",),
}
# Folders whose inside nobody else imports; they may import any package.
COMMAND_PACKAGES = ("launch/worker", "models/export", "prune", "train/pipeline")
MOST_LINES = 300
# Files below FEW_LINES that one other file imports, each with the reason why it stands alone.
FEW_LINES = 60
SMALL_ON_PURPOSE = {
    "data/index/matching.py": "the index hands it on, for everybody",
    "data/sources/elpv.py": "a file for each kind of data set",
    "launch/worker/training_config.py": "the one place in launch/ that knows of train/",
    "prune/bn_recalibration.py": "an algorithm with its paper",
    "train/checkpoint/model_saver.py": "what an artifact of a run is, apart from how one is set up",
    "train/evaluation/model_inputs.py": "what prune/ takes from evaluation",
    "train/evaluation/paired_bootstrap.py": "statistics without models",
    "train/losses/classification.py": "pure functions, a file for each kind of loss",
    "train/optim/optimizer.py": "takes values; train/setup/optimizer.py reads the config",
    "train/report_page/exports_section.py": "a file for each section of the page",
    "train/setup/optimizer.py": "a file of train/setup for each folder that it sets up",
    "train/setup/sparsity.py": "a file of train/setup for each folder that it sets up",
}
# Third-party module -> the one place that may import it.
KEPT_IN = {"horovod.torch": "train/distributed/comm.py", "horovod.runner": "launch/", "webdataset": "data/"}

TOP_LEVEL = {
    *("data", "docs", "launch", "models", "prune", "tests", "train"),
    *("Makefile", "README.md", "pyproject.toml", "requirements.lock", "requirements-dev.lock", "setup.py", "LICENSE"),
    "slimheads.py",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


CODE = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
MODULES = {module_of(path): path for path in CODE}
CONFIGS = sorted((REPOSITORY / "train" / "configs").rglob("*.yaml"))


def is_command(path: Path) -> bool:
    """Command files are those that can be started: they carry the `__main__` test."""
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in tree_of(path).body
    )


def command_package_of(path: Path) -> str | None:
    return next((folder for folder in COMMAND_PACKAGES if name_of(path).startswith(f"{folder}/")), None)


@functools.cache
def imported_modules(path: Path) -> tuple[str, ...]:
    """Dotted names of everything imported anywhere in the file; `from a import b` gives both `a` and `a.b`."""
    found: list[str] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import; write the full name"
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


def our_imports(path: Path) -> Iterator[Path]:
    """Our files that a file imports; a package stands for its __init__."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found = MODULES.get(f"{node.module}.{alias.name}") or MODULES.get(node.module or "")
                if found is not None and found != path:
                    yield found
        elif isinstance(node, ast.Import):
            yield from (MODULES[alias.name] for alias in node.names if alias.name in MODULES)


def tracked_files() -> list[Path]:
    """What git holds; files that were deleted but not yet committed are left out."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / line for line in listed.splitlines() if (REPOSITORY / line).is_file()]


def place_in_package(path: Path) -> int:
    """Where the file stands in the order of its package; commands come last."""
    package, inside, *_ = (*path.relative_to(REPOSITORY).parts, "")
    order = FOLDERS[package]
    name = inside.removesuffix(".py")
    if path.name == "__main__.py" or (is_command(path) and name not in order):
        return len(order)
    return order.index(name if name in order else "*")


def test_packages_import_only_those_to_their_left() -> None:
    wrong = [
        f"{name_of(path)} imports {name_of(other)}"
        for path in CODE
        if command_package_of(path) is None
        for other in our_imports(path)
        if PACKAGES.index(other.relative_to(REPOSITORY).parts[0]) > PACKAGES.index(name_of(path).split("/")[0])
    ]
    assert wrong == []


def test_folders_inside_a_package_import_only_those_to_their_left() -> None:
    wrong = [
        f"{name_of(path)} imports {name_of(other)}"
        for path in CODE
        for other in our_imports(path)
        if name_of(path).split("/")[0] == name_of(other).split("/")[0]
        and command_package_of(path) is None
        and place_in_package(other) > place_in_package(path)
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    # Every import of a module runs the __init__ of its package, but ours say what is there or hand on names.
    waiting = {path: set(our_imports(path)) for path in CODE}
    while free := [path for path, needed in waiting.items() if not needed]:
        for path in free:
            del waiting[path]
        for needed in waiting.values():
            needed.difference_update(free)
    assert {name_of(path): sorted(map(name_of, needed)) for path, needed in waiting.items()} == {}


def test_nobody_imports_a_command_or_the_inside_of_a_command_package() -> None:
    wrong = [
        f"{name_of(path)} imports {name_of(other)}"
        for path in CODE
        for other in our_imports(path)
        if (
            (folder := command_package_of(other)) is not None
            and command_package_of(path) != folder
            and name_of(other) != f"{folder}/__init__.py"
        )
        or (is_command(other) and other != path)
    ]
    assert wrong == []


def test_nothing_of_ours_imports_the_tests() -> None:
    assert [
        name_of(path) for path in CODE if any(name.split(".")[0] == "tests" for name in imported_modules(path))
    ] == []


def test_only_the_setup_reads_a_config() -> None:
    """Others take values. Commands may load one and hand it on, and describe it."""
    handed_on = {"train/main.py", "launch/worker"}
    wrong = [
        f"{name_of(path)}: {node.module}.{alias.name}"
        for path in CODE
        if not name_of(path).startswith(("train/config/", "train/setup/", *handed_on))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("train.config")
        for alias in node.names
        if alias.name.endswith("Config")
    ]
    assert wrong == []


def test_no_parsed_arguments_leave_the_function_that_parsed_them() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in CODE
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Attribute) and node.attr == "Namespace")
        or (isinstance(node, ast.Call) and ast.unparse(node).startswith("getattr(options,"))
    ]
    assert wrong == []


def test_files_are_of_a_size_to_be_read() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in CODE}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_a_small_file_for_one_other_has_a_reason() -> None:
    importers = Counter(other for path in CODE for other in set(our_imports(path)))
    small = {
        name_of(path)
        for path in CODE
        if path.name not in ("__init__.py", "__main__.py")
        and importers[path] <= 1
        and not is_command(path)
        and len(path.read_text().splitlines()) < FEW_LINES
    }
    assert small - SMALL_ON_PURPOSE.keys() == set(), "merge it with its importer, or say here why not"
    assert SMALL_ON_PURPOSE.keys() - small == set(), "no longer small: no reason is needed"


@pytest.mark.parametrize("module", sorted(KEPT_IN))
def test_a_library_with_one_home_is_imported_nowhere_else(module: str) -> None:
    importers = {
        name_of(path)
        for path in CODE
        for imported in imported_modules(path)
        if imported == module or imported.startswith(f"{module}.")
    }
    assert {name for name in importers if not name.startswith(KEPT_IN[module])} == set()


def test_nothing_from_a_file_is_ever_executed() -> None:
    wrong = []
    for path in CODE:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if keywords.get("weights_only") != "True":
                    wrong.append(f"{name_of(path)}:{node.lineno}: torch.load without weights_only=True")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                wrong.append(f"{name_of(path)}:{node.lineno}: numpy may not unpickle")
    assert wrong == []


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


def test_every_module_says_what_it_is() -> None:
    assert [name_of(path) for path in CODE if not ast.get_docstring(tree_of(path))] == []


def test_the_tests_have_the_folders_of_the_code() -> None:
    """Beside what crosses packages: tests/end_to_end, tests/benchmarks, and what all tests share."""
    apart = {"end_to_end", "benchmarks", "fixtures"}
    folders = {
        path.parent.relative_to(REPOSITORY / "tests")
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        if path.parent != REPOSITORY / "tests"
    }
    assert {
        str(folder) for folder in folders if not (REPOSITORY / folder).is_dir() and folder.parts[0] not in apart
    } == set()


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


def test_every_config_opens_with_the_command_that_runs_it() -> None:
    wrong = []
    for path in CONFIGS:
        lines = path.read_text().splitlines()
        opening = lines[: next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))]
        if not re.search(rf"python \S+.* --config {re.escape(name_of(path))}\b", "\n".join(opening)):
            wrong.append(name_of(path))
        assert isinstance(yaml.safe_load(path.read_text()), dict)
    assert wrong == []


def test_setup_lists_every_package_and_never_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", given.update)
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    folders_with_code = {module_of(path.parent / "__init__.py") for path in CODE}
    assert folders_with_code == set(given["packages"]), "a folder with code lacks its __init__.py"
    assert not any(requirement.startswith("horovod") for requirement in given["install_requires"])
