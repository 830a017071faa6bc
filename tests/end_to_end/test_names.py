"""Names of files, folders and classes may be any bytes: every command takes them, and what it writes is text."""

import csv
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import build, preview, verify
from data.errors import DataError
from data.index import load_index
from data.names import as_text, class_name, on_disk, print_any_name
from data.walk import walk
from models.export import __main__ as export
from tests.photos import class_folders, jpeg
from tests.small_run import train_small
from tests.tiny_models import save_tiny_model
from train import predict, report
from train.evaluation.prediction import bare

pytestmark = pytest.mark.usefixtures("one_thread")

ODD_CLASSES = [
    *(b"caf\xe9", b"caf\xe8", b"=1+1", b"-dash", b" lead", b"tail ", b"new\nline", b"a,b\"c'", b"NA", b"nan", b"1.0"),
    *(b"do.ts.", b"[red]x[bold]", b"<b>&amp;", b"100%", b"$HOME", b"~", b"\x1b[31m", b"\\x41", "ü\u2028".encode()),
    *("é".encode(), b"x" * 255, b"10", b"9"),
]
ODD_STEMS = [b"p\xff\xfe", b"=2", b"q r", b"line\nbreak", b"y" * 251, "e\u0301".encode(), b"\\x9f", b"a.b.c", b"-o"]


# -- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("caf\udce9", r"caf\xe9"),
        ("a\nb\x7f", r"a\x0ab\x7f"),
        ("\ud800", r"\ud800"),
        (r"caf\xe9", r"caf\xe9"),
        ("grün 1,2", "grün 1,2"),
    ],
)
def test_what_is_no_text_is_written_as_bytes(name, text):
    assert as_text(name) == text
    assert as_text(text) == text


@given(st.binary(min_size=1, max_size=12).filter(lambda raw: b"\\" not in raw))
def test_every_name_is_text_and_leads_back(raw):
    name = os.fsdecode(raw)
    as_text(name).encode()
    assert as_text(name).isprintable() or any(ord(letter) > 0x7F for letter in as_text(name))
    assert on_disk(as_text(name)) == name


def test_names_of_classes_have_one_unicode_form():
    assert class_name(unicodedata.normalize("NFD", "Äpfel")) == class_name("Äpfel") == "Äpfel"


def test_any_name_can_be_printed(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    print_any_name()
    print("shards/caf\udce9, grün, \U0001f600", flush=True)
    assert screen.buffer.getvalue() == rb"shards/caf\xe9, gr\xfcn, \U0001f600" + b"\n"


# -- the walker ------------------------------------------------------------------------------------------------------


def test_links_are_followed_once_and_what_is_passed_over_is_said(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for name in ("z/real.jpg", "z/notes.txt", ".hidden/h.jpg", "z/.h.jpg", "__MACOSX/m.jpg", "z/@eaDir/thumb.jpg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    outside.mkdir()
    (outside / "far.jpg").write_bytes(b"")
    (outside / "back").symlink_to(root)
    (root / "a").symlink_to(root / "z")
    (root / "loop").symlink_to(root)
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to(tmp_path)
    (root / "nowhere.jpg").symlink_to(root / "gone.jpg")
    (root / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(root / "pipe.jpg")
    found = walk(root)
    assert found.images == ["nowhere.jpg", "out/far.jpg", "self.jpg", "z/real.jpg"]
    assert found.others == ["pipe.jpg", "z/notes.txt"]
    assert found.hidden == [".hidden", "__MACOSX", "z/.h.jpg", "z/@eaDir"]
    assert found.again == ["a", "loop", "out/back", "up"]
    assert found.notes() == [
        "2 passed over that are no images by their names: pipe.jpg, z/notes.txt",
        "4 passed over that are hidden: .hidden, __MACOSX, z/.h.jpg and 1 more",
        "4 passed over that lead to a folder that is read already: a, loop, out/back and 1 more",
    ]


def test_a_folder_that_cannot_be_read_stops_the_walk(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"closed: cannot be read \(Permission denied\)"):
        walk(tmp_path)


# -- through every command -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "a", seed=1, tasks={"class": ("caf\\xe9", "=1+1")})


def make_photos(root: bytes, names: list[tuple[bytes, bytes]]) -> None:
    """A photo for every (class, stem)."""
    for number, (name, stem) in enumerate(names):
        folder = os.path.join(root, name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, stem + b".jpg"), "wb") as file:
            file.write(jpeg(number))


def texts_of(folder: Path) -> None:
    """Every text file below is UTF-8, and so are the names in tars."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".csv", ".html", ".yaml"):
            path.read_bytes().decode()
        elif path.suffix == ".tar":
            with tarfile.open(path, errors="strict") as tar:
                tar.getnames()


letters = st.binary(min_size=1, max_size=8).filter(lambda raw: not raw.startswith(b".") and not set(raw) & set(b"/\0"))
classes = st.one_of(st.sampled_from(ODD_CLASSES), letters)
stems = st.one_of(st.sampled_from(ODD_STEMS), letters)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.tuples(classes, stems), min_size=3, max_size=6, unique=True))
def test_odd_names_are_built_verified_shown_and_predicted(names, model):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, os.fsdecode(b"photos\xf6"))
        make_photos(os.fsencode(root), names)
        arguments = ["--source", f"folder:{root}", "--out", f"{place}/out", "--workers", "1"]
        assert build.main(arguments) == 0
        assert verify.main([f"{place}/out", "--jobs", "1"]) == 0
        assert preview.main([f"{place}/out/train", "--out", f"{place}/page.png", "--samples", "2", "--views", "1"]) == 0
        index = load_index(Path(place, "out", "train"))
        rows = index.load_shard(0)
        assert index.num_samples == len({rows.key(number) for number in range(len(rows))}) == len(names)
        labels = [index.tasks["class"][label] for label in rows.labels[:, 0]]
        assert sorted(labels) == sorted(class_name(os.fsdecode(name)) for name, _ in names)
        table = f"{place}/out/predictions.csv"
        assert predict.main(["--model", str(model), "--data", str(root), "--out", table, "--workers", "0"]) == 0
        texts_of(Path(place, "out"))
        with open(table, newline="", encoding="utf-8") as file:
            keys = [bare(row["key"]) for row in csv.DictReader(file)]
        assert len(keys) == len(names)
        there = {os.fsdecode(name + b"/" + stem + b".jpg") for name, stem in names}
        assert {on_disk(key) for key in keys if "\\x" not in key or on_disk(key) in there} <= there


def test_odd_names_are_trained_exported_and_reported(tmp_path, capfd):
    root = tmp_path / os.fsdecode(b"work\xf6")
    make_photos(os.fsencode(root / "photos"), [(name, stem) for name in ODD_CLASSES for stem in ODD_STEMS[:2]])
    shards = root / "shards"
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "data.build", "--source", f"folder:{root / 'photos'}", "--out", str(shards)]
    built = subprocess.run(command, env=strict, capture_output=True)
    assert built.returncode == 0, built.stderr
    assert rb"work\xf6/shards/train: 48 samples" in built.stdout
    (shards / "val").symlink_to("train")
    outcome = train_small(shards, root, "schedule.epochs=1", "tracking.log_every=9")
    assert outcome.exit_code == 0, outcome.stderr
    keys = {key.partition("/")[2] for _, key in outcome.trained()}
    assert len(keys) == 2 * len(ODD_CLASSES)
    assert {key for key in keys if key.startswith(r"caf\xe9/")} == {r"caf\xe9/p\xff\xfe", r"caf\xe9/=2"}
    exported = ["--model", str(outcome.run / "best"), "--out", str(root / "exported"), "--format", "onnx"]
    assert export.main(exported) == 0
    page = root / "page.html"
    assert report.main([str(outcome.run), str(root / "exported"), "--out", str(page), "--photos", "4"]) == 0
    photo = os.fsencode(root / "photos") + b"/caf\xe9/p\xff\xfe.jpg"
    said = subprocess.run(
        [sys.executable, os.fsencode(root / "exported" / "predict.py"), photo], env=strict, capture_output=True
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.decode().splitlines()[0].endswith(r"photos/caf\xe9/p\xff\xfe.jpg")
    texts_of(root)
    capfd.readouterr()


def test_thousands_of_classes_are_told_in_a_few_lines(tmp_path, capsys):
    names = [f"{number}" for number in range(3000)]
    for name in names:
        (tmp_path / "photos" / name).mkdir(parents=True)
    class_folders(tmp_path / "photos", classes=1, per_class=3)
    assert (
        build.main(["--source", f"folder:{tmp_path / 'photos'}", "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    )
    assert load_index(tmp_path / "out" / "train").tasks["class"] == tuple(sorted([*names, "class0"]))
    assert len(capsys.readouterr().out) < 3000
