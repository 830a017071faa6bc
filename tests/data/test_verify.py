"""`data.verify` passes a good shard folder and names everything that is wrong with a broken one."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data.build import main as build
from data.index.__main__ import main as index
from data.preview import main as preview
from data.verify import main
from launch.exit_codes import ExitCode
from tests.edited_json import edit_json, read_json
from tests.photos import class_folders, jpeg, natural_photo, write_tar

KINDS = ("jpg", "cls")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    photos = class_folders(root / "photos")
    build(["--source", f"folder:{photos}", "--out", str(root / "out"), "--samples-per-shard", "8", "--workers", "1"])
    return root / "out"


def verify(folder: Path, capsys: pytest.CaptureFixture[str], jobs: int = 1) -> tuple[int, str]:
    capsys.readouterr()
    code = main([str(folder), "--jobs", str(jobs)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_built_folder_is_good_with_one_or_two_jobs(good, capsys):
    for jobs in (1, 2):
        code, output = verify(good, capsys, jobs)
        assert code == ExitCode.DONE
        assert "3 shards, 24 samples: all good" in output


def test_a_foreign_folder_with_bad_samples_is_good(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), ("a.cls", b"1"), ("c.cls", b"0")])
    index([str(tmp_path), "--workers", "1", "--max-bad", "0.5"])
    assert verify(tmp_path, capsys)[0] == ExitCode.DONE


def flip_image_byte(folder: Path) -> None:
    tar = folder / "000001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)


def truncate(folder: Path) -> None:
    tar = folder / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:3000])


def change_label(folder: Path) -> None:
    tar = folder / "000001.tar"
    tar.write_bytes(tar.read_bytes().replace(b'"class0"', b'"class2"', 1))


def compress(folder: Path) -> None:
    (folder / "000001.tar").write_bytes(b"\x1f\x8b" + bytes(600))


def rewrite(folder: Path) -> None:
    write_tar(folder / "000001.tar", [("x.jpg", jpeg(5)), ("x.json", b'{"class": "class1"}')])


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (flip_image_byte, ["content differs from index.json (sha256)", "differ from the indexed ones (crc32c)"]),
        (truncate, ["has 3000 bytes, index.json says", "is truncated"]),
        (change_label, ["(sha256)", "label of 'class' is class2, its index says class0"]),
        (compress, ["is compressed (gzip)"]),
        (rewrite, ["(sha256)", "holds 1 samples, its index says 8"]),
        (lambda folder: (folder / "000001.tar").unlink(), ["000001.tar: is missing"]),
        (lambda folder: (folder / "000001.idx").unlink(), ["000001.idx: cannot be read"]),
        (lambda folder: (folder / "000001.idx").write_bytes(b"x"), ["000001.idx: has changed since"]),
        (lambda folder: shutil.copy(folder / "000001.tar", folder / "9.tar"), ["9.tar: is not in index.json"]),
    ],
)
def test_damage_is_named_and_exits_65(
    damage: Callable[[Path], object],
    messages: list[str],
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    folder = Path(shutil.copytree(good / "train", tmp_path / "train"))
    damage(folder)
    code, output = verify(folder, capsys)
    assert code == ExitCode.BAD_DATA
    for message in messages:
        assert message in output
    assert "000001" in output or "9.tar" in output
    assert "000000.tar" not in output, "a good shard was blamed"


def test_the_same_content_under_two_names_is_named(good, tmp_path, capsys):
    folder = Path(shutil.copytree(good / "train", tmp_path / "train"))
    for suffix in ("tar", "idx"):
        shutil.copy(folder / f"000001.{suffix}", folder / f"000009.{suffix}")
    shards = read_json(folder / "index.json")["shards"]
    for column, values in shards.items():
        values.append("000009.tar" if column == "name" else values[1])
    edit_json(folder / "index.json", shards=shards)
    assert "000009.tar: has the same content as 000001.tar" in verify(folder, capsys)[1]


def test_near_duplicates_across_splits_are_noted_and_listed_unless_that_is_left_out(tmp_path, capsys):
    def small(seed: int, quality: int) -> bytes:
        buffer = io.BytesIO()
        natural_photo(seed, 60, 80).save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()

    for split, seeds, quality in (("train", (1, 2, 3), 90), ("val", (4, 2, 1), 60)):
        members = [
            (f"{seed}.{kind}", small(seed, quality) if kind == "jpg" else b"0") for seed in seeds for kind in KINDS
        ]
        (tmp_path / split).mkdir()
        write_tar(tmp_path / split / "0.tar", members)
        index([str(tmp_path / split), "--workers", "1"])
    table = tmp_path / "near_duplicates.csv"
    for jobs in (1, 2):
        code, output = verify(tmp_path, capsys, jobs)
        assert code == ExitCode.DONE
        assert "note: 2 of 3 val photos have a near-duplicate in train (0 of them equal bytes, 0 with other" in output
        assert table.read_text().splitlines()[1:] == ["val,2,train,2,0,", "val,1,train,1,0,"]
    table.unlink()
    assert main([str(tmp_path), "--jobs", "1", "--no-near-duplicates"]) == ExitCode.DONE
    assert main([str(tmp_path / "val"), "--jobs", "1"]) == ExitCode.DONE
    assert "near-duplicate" not in capsys.readouterr().out
    assert not table.exists()


def test_no_index_and_no_folder(tmp_path, capsys):
    assert verify(tmp_path, capsys)[0] == ExitCode.BAD_DATA
    assert verify(tmp_path / "nowhere", capsys)[0] == ExitCode.BAD_CONFIG
    assert verify("s3://bucket/x", capsys)[0] == ExitCode.BAD_CONFIG


def test_preview_draws_good_and_bad_samples(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("c.cls", b"0")])
    index([str(tmp_path), "--workers", "1", "--max-bad", "0.5"])
    assert preview([str(tmp_path), "--out", str(tmp_path / "page.png"), "--size", "32"]) == ExitCode.DONE
    assert (tmp_path / "page.png").stat().st_size > 1000
    assert preview([str(tmp_path), "--out", str(tmp_path / "no" / "page.png")]) == ExitCode.BAD_CONFIG
    assert "No such file" in capsys.readouterr().err
