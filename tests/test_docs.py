"""README and docs: the example that opens each page runs as it stands, and what they name is there."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, TINY_TASKS, end_process_tree, jpeg_bytes, rank_environment
from tests.prune.sparse_models import save, sparse_student

README = REPOSITORY / "README.md"
PACKAGES = ("data", "launch", "models", "prune", "train")
DOCUMENTS = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
MOST_README_LINES = 150
SECONDS = 150  # for a page, on a machine that does other things as well

# What turns the config of the pages into one of a second or two.
TINY: dict[str, Any] = {
    "data": {"image_size": 32, "eval_size": 32, "workers": 0},
    "schedule": {"epochs": 1, "warmup_epochs": 0},
    "batch_size": 11,
    "tracking": {"wandb": {"mode": "disabled"}},
}


def page(name: str) -> str:
    return (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a language; of all languages for ""."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [body for name, body in found if language in ("", name)]


def code_of(text: str) -> list[str]:
    """All code of a document: blocks, then what stands in backticks in a line."""
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*blocks(text), *re.findall(r"`([^`\n]+)`", rest)]


# The examples.


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], Mapping):
            both[key] = merged(base[key], over[key])
    return both


def write_photos(folder: Path, shards: Path) -> None:
    """photos/ and photos.csv; every seventh photo lacks the second label."""
    lines = [",".join(["image", *TINY_TASKS])]
    (folder / "photos").mkdir()
    for number in range(36):
        places = number % 3, number // 3 % 2
        name = f"photos/{number:04d}.jpg"
        (folder / name).write_bytes(jpeg_bytes(colour=places[0], tone=places[1], seed=number))
        labels = [names[place] for names, place in zip(TINY_TASKS.values(), places, strict=True)]
        lines.append(",".join([name, labels[0], labels[1] if number % 7 < 6 else ""]))
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")


def write_shards(folder: Path, shards: Path) -> None:
    """shards/mine, as docs/DATA.md leaves it."""
    (folder / "shards" / "mine").mkdir(parents=True)
    for split in ("train", "val"):
        (folder / "shards" / "mine" / split).symlink_to(shards / split)


def write_configs(folder: Path, shards: Path) -> None:
    """mine.yaml, as docs/TRAINING.md shows it, and distilled.yaml, with what docs/DISTILLATION.md adds; both small."""
    write_shards(folder, shards)
    mine = yaml.safe_load(blocks(page("TRAINING"), "yaml")[0])
    added = yaml.safe_load(blocks(page("DISTILLATION"), "yaml")[0])
    for name, config in {"mine": mine, "distilled": merged(mine, added)}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(merged(config, TINY)))


def write_models(*paths: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, shards: Path) -> None:
        for number, path in enumerate(paths):
            save(sparse_student(seed=number), folder / path)

    return write


# page -> what its example finds in the folder, and what it leaves there.
EXAMPLES: dict[str, tuple[list[Callable[[Path, Path], None]], list[str]]] = {
    "PIPELINE": ([write_photos], ["phone/shards/train/index.json", "phone/pipeline.yaml"]),
    "DATA": ([write_photos], ["shards/mine/train/index.json", "shards/mine/val/index.json", "page.png"]),
    "TRAINING": ([write_configs], ["runs/mine/best/model.json", "runs/mine/metrics.jsonl", "runs/mine/result.json"]),
    "DISTILLATION": (
        [write_configs, write_models("runs/teacher/best")],
        ["shards/mine/teacher/manifest.json", "runs/distilled/best/model.json"],
    ),
    "PRUNING": ([write_shards, write_models("runs/sparse/best")], ["runs/pruned/model.json", "runs/pruned/widths.svg"]),
    "LAUNCHING": ([write_configs], ["runs/mine/best/model.json", "runs/mine/logs/rank-1.log"]),
    "DEPLOYING": (
        [write_photos, write_shards, write_models("runs/mine/best")],
        ["exported/model.onnx", "exported/model.int8.onnx", "exported/predict.py"],
    ),
    "PYTHON": (
        [write_photos, write_shards, write_models("runs/mine/best")],
        ["runs/pruned/model.json", "exported/model.onnx"],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_that_opens_a_page_runs_as_it_stands(name: str, tiny_shards: Path, tmp_path: Path) -> None:
    language, example = first_example(page(name))
    opening = page(name).partition(f"```{language}\n")[0]
    assert len(opening.splitlines()) <= 8, "the example opens the page, after its title and a sentence or two"
    assert "```" not in opening
    for package in PACKAGES:  # the commands are typed in the repository
        (tmp_path / package).symlink_to(REPOSITORY / package)
    makers, products = EXAMPLES[name]
    for make in makers:
        make(tmp_path, tiny_shards)
    assert [product for product in products if (tmp_path / product).exists()] == []
    code, output = run_in_bash(example, tmp_path)
    assert code == 0, output[-4000:]
    assert [product for product in products if not (tmp_path / product).exists()] == [], output[-4000:]


def first_example(text: str) -> tuple[str, str]:
    """The language of the first block that is run, and the commands that run it."""
    found = re.search(r"^```(bash|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, "the page has no example"
    language, body = found.groups()
    return language, body if language == "bash" else f"python - <<'END'\n{body}END\n"


def run_in_bash(script: str, folder: Path) -> tuple[int, str]:
    """The exit code of the first command that fails, else 0, and all that was said."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=rank_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        end_process_tree(process)
        pytest.fail(f"not done after {SECONDS} s:\n{script}\n{process.communicate()[0][-4000:]}")
    return process.returncode, output


def test_every_page_of_the_readme_s_table_has_an_example_that_is_run() -> None:
    table = re.findall(
        r"^\| .*\| \[\w+\]\(docs/(\w+)\.md\) \|$", README.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert table == list(EXAMPLES)


# What the words name.


def test_the_readme_can_be_read_to_the_end() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_README_LINES


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}


def broken_links(document: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue  # another site
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    assert list(broken_links(document)) == []


def is_command(module: str) -> bool:
    """Whether `python -m module` starts something of ours."""
    path = REPOSITORY / module.replace(".", "/")
    if path.is_dir():
        return (path / "__main__.py").is_file()
    file = path.with_suffix(".py")
    return file.is_file() and 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")


def test_every_command_that_is_named_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    unknown = []
    for document in DOCUMENTS:
        code = "\n".join(code_of(document.read_text(encoding="utf-8")))
        named = re.findall(r"python3? -m ([\w.]+\w)", code)
        unknown += [f"{document.name}: python -m {module}" for module in named if not is_command(module)]
        unknown += [
            f"{document.name}: make {target}"
            for target in re.findall(r"^(?:\$ )?make ([a-z]+)", code, flags=re.MULTILINE)
            if target not in targets
        ]
    assert unknown == []


def listed_in_tree(block: str) -> Iterator[str]:
    """The paths of a tree whose lines are `name   what it is`, two blanks deeper for what lies inside."""
    parents: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        parents[depth:] = [name]
        yield "".join(parents)


def named_paths(text: str) -> set[str]:
    """What looks like a path in the repository, in all code of a document."""
    top = sorted({path.name for path in REPOSITORY.iterdir() if path.is_dir() and not path.name.startswith(".")})
    inside = rf"(?<![\w./:-])(?:{'|'.join(top)})/[\w./-]*"
    tree, rest = "", text
    if found := re.search(r"^```\nlaunch/.*?^```$", text, flags=re.MULTILINE | re.DOTALL):
        tree, rest = blocks(found[0])[0], text.replace(found[0], "")
    code = code_of(rest)
    return {
        *listed_in_tree(tree),
        *(path.rstrip(".") for piece in code for path in re.findall(inside, piece)),
        *(piece for piece in code if re.fullmatch(r"[A-Z]\w+\.md|[\w-]+\.(py|toml|lock)", piece)),
    }


def missing_paths(text: str) -> list[str]:
    """Of named_paths, those that are not there; a single file name may also be one that a command writes."""
    written = {"predict.py"}
    return sorted(path for path in named_paths(text) - written if not (REPOSITORY / path).exists())


@pytest.mark.parametrize(
    "document", [README, *(REPOSITORY / "docs" / f"{name}.md" for name in EXAMPLES)], ids=lambda p: p.name
)
def test_every_path_that_is_named_exists(document: Path) -> None:
    assert missing_paths(document.read_text(encoding="utf-8")) == []


def test_the_readme_s_tree_shows_every_package() -> None:
    """Of the folders with code, but those that only hold another folder's inside."""
    named = {path.rstrip("/") for path in named_paths(README.read_text(encoding="utf-8"))}
    folders = {
        path.parent.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("__init__.py")
    }
    assert sorted(folder for folder in folders if folder.count("/") <= 1 and folder not in named) == []


# The checks themselves.


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`train/main.py` and `docs/`", []),
        ("```\npython train/mian.py\n```", ["train/mian.py"]),
        ("`nothing.py` beside `setup.py`", ["nothing.py"]),
        ("`shards/mine/train` and `runs/train/main`", []),
        ("```\nlaunch/      ranks\n  k8s/         manifests\n  moon/        far\n```", ["launch/moon/"]),
    ],
)
def test_a_path_that_is_not_there_is_found(text: str, missing: list[str]) -> None:
    assert missing_paths(text) == missing


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text(
        "# One `two`: three\n[a](#one-two-three) [b](#four) [c](a.md#five) [d](b.md) [e](https://f/g)\n"
    )
    assert list(broken_links(document)) == ["#four", "a.md#five", "b.md"]
