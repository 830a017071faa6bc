"""Files that belong together are the old set or the new one at every moment, and nothing but what was ours is swept."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.index import load_index
from data.sealed_json import BrokenSeal, open_sealed, seal
from data.shards.external_tars import index_tars
from data.staging import COMMITTED, settle, staged, sweep, write_result
from models.artifact import artifact_files, load_artifact, save_artifact
from models.prune_record import PRUNE_NAME, plan_error
from models.student import Student, build_student
from prune.plan import require_replaceable, save_pruned
from tests.conftest import rank_environment
from tests.crashes import every_crash
from tests.photos import jpeg, write_tar

CLASSES = {"tone": ("dark", "bright")}
NO_PROCESS = 2**22 + 1  # above the largest number that Linux gives


# -- at every moment -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """write: a set whose contents say the version. read: the version, from everything that belongs to the set."""

    write: Callable[[Path, int], object]
    read: Callable[[Path], int]
    names: list[str]


def student(version: int) -> Student:
    model = build_student(backbone="food11_student", head={"kind": "multi-fc"}, tasks={"tone": 2}).eval()
    next(model.parameters()).data.fill_(version)
    return model


STUDENTS = {version: student(version) for version in (1, 2)}
ABOUT: dict[str, Any] = {
    "tasks": CLASSES,
    "preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3, "train_size": 32, "eval_size": 32},
    "metrics": {},
    "ema": False,
}


def write_model(folder: Path, version: int) -> None:
    save_artifact(STUDENTS[version], folder, provenance={"version": version}, **ABOUT)


def read_model(folder: Path) -> int:
    model, meta = load_artifact(folder)
    assert next(model.parameters()).flatten()[0].item() == meta.provenance["version"]
    return meta.provenance["version"]


def plan(version: int) -> dict[str, Any]:
    counts = {"before": 10, "after": version}
    facts = {"source": version, "goal": {}, "rule": "threshold", "score": "gamma"}
    return {**facts, "parameters": counts, "macs": counts, "layers": [{"name": "stem", "before": 8, "after": 4}]}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("before")
    write_model(folder, 1)
    return load_artifact(folder)[1]


def read_prune(folder: Path) -> int:
    require_replaceable(folder)
    _, meta = load_artifact(folder)
    content = open_sealed((folder / PRUNE_NAME).read_bytes(), name="plan")
    assert plan_error(content, meta) is None
    assert f"{10 * content['source']:.1f} %" in (folder / "widths.svg").read_text()
    assert meta.provenance["pruned"]["source"] == content["source"]
    return content["source"]


def write_set(folder: Path, version: int) -> None:
    with staged(folder) as stage:
        for name in ("a.onnx", "b.json", "c.py"):
            (stage / name).write_text(str(version))


def read_set(folder: Path) -> int:
    settle(folder)
    (version,) = {int((folder / name).read_text()) for name in ("a.onnx", "b.json", "c.py")}
    return version


def write_one(folder: Path, version: int) -> None:
    folder.mkdir(exist_ok=True)
    write_result(folder / "page.html", str(version).encode())


def write_index(folder: Path, version: int) -> None:
    names = {1: "cat", 2: "dog"}
    index_tars(sorted(folder.glob("*.tar")), tasks={"class": (names[version], "x")}, cls_task="class")


def read_index(folder: Path) -> int:
    index = load_index(folder)
    for number in range(2):
        assert len(index.load_shard(number)) == 1
    assert len((folder / "bad_samples.jsonl").read_text().splitlines()) == 1
    return {"cat": 1, "dog": 2}[index.tasks["class"][0]]


KINDS = {
    "set": Kind(write_set, read_set, ["a.onnx", "b.json", "c.py"]),
    "file": Kind(write_one, lambda folder: int((folder / "page.html").read_text()), ["page.html"]),
    "model": Kind(write_model, read_model, ["model.json", "model.safetensors"]),
}


def survives(kind: Kind, folder: Path, *, beside: list[str] | None = None) -> set[int]:
    """Kill the writing of version 2 over version 1 everywhere; the versions that were found."""
    found = set()
    kind.write(folder, 1)
    for place in every_crash(lambda: kind.write(folder, 2)):
        version = kind.read(folder)
        assert version in (1, 2), place
        found.add(version)
        kind.write(folder, 1)
        assert kind.read(folder) == 1
        assert sorted(os.listdir(folder)) == sorted([*kind.names, *(beside or [])]), f"left by a kill before {place}"
    assert kind.read(folder) == 2
    return found


@pytest.mark.parametrize("name", KINDS)
def test_killed_anywhere_the_old_set_or_the_new_one_is_whole_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    assert survives(KINDS[name], tmp_path / "folder") == {1, 2}


def test_a_pruning_killed_anywhere_is_one_pruning_and_can_be_repeated(before: Any, tmp_path: Path) -> None:
    kind = Kind(
        lambda folder, version: save_pruned(STUDENTS[version], before, folder, plan(version)),
        read_prune,
        ["model.json", "model.safetensors", "prune.json", "widths.svg"],
    )
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert survives(kind, tmp_path / "out", beside=["run", "notes.txt"]) == {1, 2}


def test_an_index_killed_anywhere_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    for number in range(2):
        labels = [("a.jpg", jpeg(number)), ("a.cls", b"0")] if number else [("a.jpg", b"bad"), ("a.cls", b"0")]
        write_tar(tmp_path / f"{number}.tar", labels)
    names = ["0.idx", "0.tar", "1.idx", "1.tar", "bad_samples.jsonl", "index.json"]
    kind = Kind(write_index, read_index, names)
    # bad_samples.jsonl is for people and of its own.
    assert survives(kind, tmp_path) == {1, 2}


def test_a_process_that_is_killed_leaves_a_whole_set(tmp_path: Path) -> None:
    """The same with real kills."""
    code = (
        "import sys; from pathlib import Path; from data.staging import staged\n"
        "for version in range(1, 10**9):\n"
        "    with staged(Path(sys.argv[1])) as stage:\n"
        "        for name in ('a.onnx', 'b.json', 'c.py'): (stage / name).write_text(str(version))\n"
        "    print(version, flush=True)\n"
    )
    last = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], env=rank_environment(), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in itertools.islice(process.stdout, 4):
            last = int(line)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert read_set(tmp_path) >= last
    write_set(tmp_path, 1)
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.json", "c.py"]


def test_a_reader_who_may_not_write_is_told_of_a_mixed_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path, 1)
    stage = tmp_path / COMMITTED
    stage.mkdir()
    files = artifact_files(STUDENTS[2], provenance={"version": 2}, **ABOUT)
    (tmp_path / "model.json").write_bytes(files["model.json"])  # what had been moved
    (stage / "model.safetensors").write_bytes(files["model.safetensors"])

    def refused(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refused)
        with pytest.raises(ValueError, match=r"model\.safetensors: .* not the ones that model\.json"):
            load_artifact(tmp_path)
    assert read_model(tmp_path) == 2


def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_moved(tmp_path: Path) -> None:
    write_set(tmp_path, 1)
    (tmp_path / "c.py").unlink()
    (tmp_path / "c.py").mkdir()
    with pytest.raises(IsADirectoryError, match=r"c\.py: is a folder"):
        write_set(tmp_path, 2)
    assert (tmp_path / "a.onnx").read_text() == "1"
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.json", "c.py"]


def test_a_failed_block_leaves_no_folder_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        with staged(folder) as stage:
            (stage / "a").write_text("1")
            raise RuntimeError

    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(RuntimeError):
            fail(folder)
    assert os.listdir(tmp_path) == []


# -- what is swept ---------------------------------------------------------------------------------------------------


def test_only_what_killed_processes_of_ours_left_is_swept(tmp_path: Path) -> None:
    parent = os.getppid()
    kept = [
        ".notes.tmp",
        ".page.html.tmp",
        ".page.html.x.tmp",
        "page.html.7.tmp",
        f".page.html.{parent}.tmp",
        f".slimheads-staged-{parent}-abcd",
        ".slimheads-staged-mine",
        ".export-mine",
    ]
    gone = [
        f".page.html.{NO_PROCESS}.tmp",
        f".preds.csv.{NO_PROCESS}.part",
        f".page.html.{os.getpid()}.tmp",
        f".slimheads-staged-{NO_PROCESS}-abcd",
    ]
    for name in (*kept, *gone):
        if "staged" in name or "export" in name:
            (tmp_path / name).mkdir()
            (tmp_path / name / "x").write_text("x")
        else:
            (tmp_path / name).write_text("x")
    sweep(tmp_path, of="page.html")
    assert (tmp_path / gone[1]).exists(), "another file's"
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    sweep(tmp_path, alone=True)
    assert not any(str(parent) in name for name in os.listdir(tmp_path))


# -- sealed JSON -----------------------------------------------------------------------------------------------------

CONTENT = {"format": "x/1", "classes": ["cat", "dög", "\udc80"], "mean": [0.485, 1e-7], "weights": {"sha256": "ab"}}


@pytest.mark.parametrize("indent", [None, 2])
def test_no_flipped_bit_changes_what_is_read(indent: int | None) -> None:
    data = seal(CONTENT, indent=indent)
    assert open_sealed(data, name="x") == CONTENT
    refused = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = open_sealed(bytes(damaged), name="x")
        except ValueError:
            refused += 1
        else:  # white space, or the checksum's own name
            assert {key: found[key] for key in CONTENT} == CONTENT
    assert refused > 6 * len(data)


def test_a_changed_value_is_named_with_the_way_out(tmp_path: Path) -> None:
    data = seal(CONTENT).replace(b'"cat"', b'"cau"')
    with pytest.raises(BrokenSeal, match=r"^x\.json: is damaged, or was changed .* delete its key 'checksum'"):
        open_sealed(data, name="x.json")
    plain = json.loads(data)
    del plain["checksum"]
    assert open_sealed(json.dumps(plain).encode(), name="x.json")["classes"][0] == "cau"


def test_a_key_that_is_checked_otherwise_may_change() -> None:
    data = seal(CONTENT, apart="weights").replace(b'"ab"', b'"cd"')
    assert open_sealed(data, name="x", apart="weights")["weights"] == {"sha256": "cd"}
    with pytest.raises(BrokenSeal):
        open_sealed(data, name="x")


def test_a_damaged_class_name_of_an_index_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(0)), ("a.cls", b"cat")])
    index_tars([tmp_path / "0.tar"], tasks=None, cls_task="class")
    path = tmp_path / "index.json"
    path.write_bytes(path.read_bytes().replace(b'"cat"', b'"cau"'))
    with pytest.raises(DataError, match=r"index\.json: is damaged, or was changed"):
        load_index(tmp_path)
