"""Tars as people have them: each kind is indexed with all its labels, or ends in a line that says what to type."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data import verify
from data.index import Index, LabelRule, load_index
from data.index.__main__ import main
from launch.exit_codes import ExitCode
from tests.edited_json import edit_json, read_json
from tests.photos import jpeg, write_tar

Members = list[tuple[str, bytes]]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """(exit code, everything printed) of `python -m data.index`."""
    capsys.readouterr()
    code = main([*map(str, arguments), "--workers", "1"])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def refused(folder: Path, members: Members, capsys: pytest.CaptureFixture[str], *more: object) -> str:
    """The one line with which an index of the members ends."""
    write_tar(folder / "000.tar", members)
    code, output = run(capsys, folder, *more)
    assert code == ExitCode.BAD_DATA, output
    assert not (folder / "index.json").exists()
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    return line


def indexed(folder: Path, members: Members, capsys: pytest.CaptureFixture[str], *more: object) -> tuple[Index, str]:
    """The index, which verify finds good, and what was printed."""
    write_tar(folder / "000.tar", members)
    code, output = run(capsys, folder, *more)
    assert code == ExitCode.DONE, output
    assert verify.main([str(folder), "--jobs", "1"]) == ExitCode.DONE, capsys.readouterr().out
    return load_index(folder), output


def labels(index: Index) -> dict[str, list[str | None]]:
    """key -> class names, of all samples that can be used."""
    rows = index.load_shard(0)
    named = list(index.tasks.values())
    return {
        rows.key(number): [names[label] if label >= 0 else None for names, label in zip(named, row, strict=True)]
        for number, row in enumerate(rows.labels.tolist())
        if number not in rows.bad
    }


def pairs(image: str, label: str, texts: list[bytes]) -> Members:
    return [part for n, text in enumerate(texts) for part in ((f"s{n}.{image}", jpeg(n)), (f"s{n}.{label}", text))]


# -- the key ends at the first dot -----------------------------------------------------------------------------------


def test_an_image_and_a_label_with_longer_suffixes_are_one_sample(tmp_path, capsys):
    index, _ = indexed(tmp_path, pairs("input.jpg", "output.cls", [b"cat", b"dog"]), capsys)
    assert labels(index) == {"s0": ["cat"], "s1": ["dog"]}
    assert index.label_rule.first_dot
    theirs = webdataset.WebDataset(str(tmp_path / "000.tar"), shardshuffle=False)
    assert [sample["__key__"] for sample in theirs] == list(labels(index))
    index, _ = indexed(tmp_path, pairs("Image.PNG", "labels.json", [b'{"age": 1}', b'{"age": 0}']), capsys)
    assert (index.tasks, labels(index)) == ({"age": ("0", "1")}, {"s0": ["1"], "s1": ["0"]})


def test_a_short_suffix_goes_before_a_longer_one(tmp_path, capsys):
    members = pairs("jpg", "cls", [b"cat", b"dog"])
    members += [("s0.mask.png", jpeg(7)), ("s0.meta.json", b'{"width": 3}'), ("s1.extra.cls", b"bird")]
    index, output = indexed(tmp_path, members, capsys)
    assert (index.tasks, labels(index)) == ({"class": ("cat", "dog")}, {"s0": ["cat"], "s1": ["dog"]})
    assert ".mask.png files were ignored" in output
    assert ".meta.json files were ignored" in output
    assert index.label_rule == LabelRule(max_pixels=index.label_rule.max_pixels)
    assert set(read_json(tmp_path / "index.json")["label_rule"]) == {"cls_task", "classes_given", "max_pixels"}


def test_of_several_images_one_is_named_and_remembered(tmp_path, capsys):
    members = pairs("input.jpg", "output.cls", [b"cat", b"dog"])
    members += [("s0.target.jpg", jpeg(8)), ("s1.target.jpg", jpeg(9))]
    line = refused(tmp_path, members, capsys)
    assert "--image SUFFIX (input.jpg, target.jpg)" in line
    index, output = indexed(tmp_path, members, capsys, "--image", ".input.JPG")
    assert labels(index) == {"s0": ["cat"], "s1": ["dog"]}
    assert ".target.jpg files were ignored" in output
    tar, rows = (tmp_path / "000.tar").read_bytes(), index.load_shard(0)
    assert tar[rows.offset[1] : rows.offset[1] + rows.size[1]] == jpeg(1)
    before = (tmp_path / "index.json").read_bytes()
    assert run(capsys, tmp_path)[0] == ExitCode.DONE
    assert (tmp_path / "index.json").read_bytes() == before
    code, output = run(capsys, tmp_path, "--image", "inputs.jpg")
    assert code == ExitCode.BAD_DATA
    assert "it holds .input.jpg, .output.cls, .target.jpg files; take another --image" in output


def test_several_images_of_one_key_are_samples_and_the_way_out_is_told(tmp_path, capsys):
    members = [(f"img.{number}.jpg", jpeg(number)) for number in range(3)] + [("img.1.cls", b"cat")]
    index, output = indexed(tmp_path, members, capsys)
    assert labels(index) == {"img.0": [None], "img.1": ["cat"], "img.2": [None]}
    assert "--image SUFFIX takes one of each key: 0.jpg, 1.jpg, 2.jpg" in output


def test_of_several_labels_one_is_named_and_remembered(tmp_path, capsys):
    members = [*pairs("jpg", "age.cls", [b"0", b"1"]), ("s0.sex.cls", b"f"), ("s1.sex.cls", b"m")]
    line = refused(tmp_path, members, capsys)
    assert "several .cls files: age.cls, sex.cls; say --label age.cls, or another" in line
    index, _ = indexed(tmp_path, members, capsys, "--label", "sex.cls", "--task", "sex")
    assert labels(index) == {"s0": ["f"], "s1": ["m"]}
    before = (tmp_path / "index.json").read_bytes()
    assert run(capsys, tmp_path)[0] == ExitCode.DONE
    assert (tmp_path / "index.json").read_bytes() == before


def test_an_index_of_before_is_verified_by_its_own_rule(tmp_path, capsys):
    """`x.v1.jpg` was the sample `x.v1`."""
    members = [("x.v1.jpg", jpeg(1)), ("x.v1.cls", b"cat"), ("y.v1.jpg", jpeg(2)), ("y.v1.cls", b"dog")]
    index, _ = indexed(tmp_path, members, capsys)
    assert list(labels(index)) == ["x", "y"]
    assert read_json(tmp_path / "index.json")["label_rule"]["first_dot"] is True
    rule = {"cls_task": "class", "classes_given": False, "max_pixels": None}
    edit_json(tmp_path / "index.json", label_rule=rule)
    assert load_index(tmp_path).label_rule == LabelRule()
    assert verify.main([str(tmp_path), "--jobs", "1"]) == ExitCode.BAD_DATA
    assert "sample 0 is 'x.v1', its index says 'x'" in capsys.readouterr().out


# -- kinds of tars that are indexed ----------------------------------------------------------------------------------


def test_upper_case_mixed_suffixes_and_folders(tmp_path, capsys):
    members = [("a/b/0.JPG", jpeg(0)), ("a/b/0.CLS", b"x\n"), ("a/b/1.jpeg", jpeg(1)), ("a/b/1.cls", b"y")]
    members += [("./c/0.png", jpeg(2)), ("./c/0.json", b'{"class": "y"}')]
    index, _ = indexed(tmp_path, members, capsys)
    assert labels(index) == {"a/b/0": ["x"], "a/b/1": ["y"], "c/0": ["y"]}


@pytest.mark.parametrize("suffix", ["txt", "class", "label.txt"])
def test_class_names_in_other_text_files(suffix, tmp_path, capsys):
    members = pairs("jpg", suffix, [b"cat\n", b"dog\n"])
    line = refused(tmp_path, members, capsys)
    assert f"where the .{suffix} files hold class names, say --label {suffix}" in line
    index, _ = indexed(tmp_path, members, capsys, "--label", suffix)
    assert labels(index) == {"s0": ["cat"], "s1": ["dog"]}


def test_captions_are_asked_about(tmp_path, capsys):
    members = pairs("jpg", "txt", [b"a photo of number %d" % n for n in range(21)])
    _, output = indexed(tmp_path, members, capsys, "--label", "txt")
    assert "task 'class' has 21 classes for 21 samples; is it a label?" in output


def test_true_and_false_are_two_classes(tmp_path, capsys):
    index, _ = indexed(tmp_path, pairs("jpg", "json", [b'{"smiles": true}', b'{"smiles": false}', b"{}"]), capsys)
    assert index.tasks == {"smiles": ("false", "true")}
    assert labels(index) == {"s0": ["true"], "s1": ["false"], "s2": [None]}


def test_minus_one_and_one_are_two_classes(tmp_path, capsys):
    index, output = indexed(tmp_path, pairs("jpg", "json", [b'{"male": -1}', b'{"male": 1}', b"{}"]), capsys)
    assert index.tasks == {"male": ("-1", "1")}
    assert labels(index) == {"s0": ["-1"], "s1": ["1"], "s2": [None]}
    assert "task 'male' is labelled -1 and 1: these are its two classes" in output
    members = pairs("jpg", "json", [b'{"male": -1}', b'{"male": 1}', b'{"male": 0}'])
    (tmp_path / "classes.json").write_text('{"male": ["-1", "1"]}')
    classes = ("--classes", tmp_path / "classes.json", "--max-bad", 1)
    index, _ = indexed(tmp_path, members, capsys, *classes)
    assert index.load_shard(0).bad == {2: "task 'male': label 0 is neither -1 nor 1"}


def test_a_minus_one_among_other_numbers_is_no_class(tmp_path, capsys):
    line = refused(tmp_path, pairs("jpg", "cls", [b"-1", b"1", b"0", b"2"]), capsys)
    assert "1 x task 'class': label -1 is negative; leave a missing label out instead (as 's0' in 000.tar)" in line


# -- kinds that are not, and what to type ----------------------------------------------------------------------------


def npy(value: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.int64(value), allow_pickle=False)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        ("npy", npy(1), ".npy files are not read as labels: write each label as text into a .cls member"),
        ("pth", b"\x80\x02", ".pth files are not read as labels: write each label as text into a .cls member"),
        ("json", b'{"label": {"name": "cat"}}', "'label': label is a nested object"),
        ("json", b'{"label": ["cat", "dog"]}', "'label': label is a list"),
        ("json", b'{"label": null}', "give .cls or .json members"),
        ("cls", b"0.5", "label 0.5 is a decimal number: regression is not supported"),
    ],
)
def test_tars_without_a_usable_label(suffix, data, message, tmp_path, capsys):
    members = pairs("jpg", suffix, [data, data])
    line = refused(tmp_path, members, capsys)
    assert "no sample has a usable label, of 2" in line
    assert message in line
    assert "--unlabelled indexes them for a teacher" in line
    index, _ = indexed(tmp_path, members, capsys, "--unlabelled")
    assert (index.num_samples, index.tasks) == (2, {})


def test_no_label_is_no_index_with_given_classes_either(tmp_path, capsys):
    (tmp_path / "classes.json").write_text('{"class": ["cat", "dog"]}')
    line = refused(tmp_path, [("a.jpg", jpeg(1))], capsys, "--classes", tmp_path / "classes.json")
    assert "no sample has a usable label, of 1" in line


def test_a_table_beside_the_tars_is_named(tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("image,class\ns0.jpg,cat\n")
    line = refused(tmp_path, [("s0.jpg", jpeg(0)), ("s1.jpg", jpeg(1))], capsys)
    assert f"python -m data.build --source manifest:{tmp_path}/labels.csv" in line


def test_a_share_that_cannot_be_used_is_an_error_with_the_first_reasons(tmp_path, capsys):
    members = [*pairs("jpg", "cls", [b"cat"] * 6), ("x.jpg", b"no photo"), ("y.cls", b"cat")]
    line = refused(tmp_path, members, capsys)
    assert "2 of 8 samples cannot be used, more than --max-bad 0.2 allows" in line
    assert "there is a label but no image (as 'y' in 000.tar)" in line
    assert "(as 'x' in 000.tar)" in line
    assert "index the others with --max-bad 0.25" in line
    assert run(capsys, tmp_path, "--max-bad", "0.25")[0] == ExitCode.DONE
    with pytest.raises(SystemExit, match="2"):
        run(capsys, tmp_path, "--max-bad", "25")
    (tmp_path / "index.json").unlink()
    assert "none of the 1 samples can be used" in refused(tmp_path, [("y.cls", b"cat")], capsys, "--max-bad", 1)


def as_zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.jpg", data)
    return buffer.getvalue()


def as_tar(members: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("inner.tar", as_tar([("a.jpg", jpeg(1))]))], "it holds .tar files; unpack it: tar -xf 000.tar"),
        ([("photos.zip", as_zip(jpeg(1)))], "it holds .zip files; unpack it: tar -xf 000.tar"),
        ([("a.tfrecord", b"x")], "it holds .tfrecord files; unpack it"),
        ([("a.bmp", b"BM"), ("a.txt", b"cat")], "it holds .bmp, .txt files; delete it, or pack photos"),
        ([], "holds no samples (images of .jpg, .jpeg, .png or .webp); delete it"),
    ],
)
def test_tars_without_photos(members, message, tmp_path, capsys):
    assert message in refused(tmp_path, members, capsys)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("photos.zip", "unpack it and build shards: python -m data.build"),
        ("train.tfrecord", "take the photos out of it and build shards"),
        ("train.tfrecord-00000-of-00010", "take the photos out of it and build shards"),
        ("data.parquet", "take the photos out of it and build shards"),
    ],
)
def test_folders_and_files_of_other_kinds(name, way_out, tmp_path, capsys):
    (tmp_path / name).write_bytes(as_zip(b"x"))
    for path in (tmp_path, tmp_path / name):
        code, output = run(capsys, path)
        assert code == ExitCode.BAD_DATA
        assert way_out in output
        assert "error: " in output.splitlines()[-1]


def test_a_zip_that_is_called_a_tar(tmp_path, capsys):
    (tmp_path / "0.tar").write_bytes(as_zip(jpeg(1)))
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.BAD_DATA
    assert "0.tar: is compressed (zip)" in output


def test_a_folder_of_splits_is_indexed_split_by_split(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    write_tar(tmp_path / "train" / "0.tar", pairs("jpg", "cls", [b"0", b"1"]))
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.BAD_DATA
    assert f"each split is indexed on its own: python -m data.index {tmp_path}/train" in output


def test_the_bytes_of_an_index_are_those_of_before(tmp_path, capsys):
    """What indexes said before there were longer suffixes and corrections."""
    indexed(tmp_path, pairs("jpg", "cls", [b"0", b"1"]), capsys)
    content = json.loads((tmp_path / "index.json").read_bytes())
    assert list(content) == ["format", "tasks", "label_rule", "shards", "checksum"]
    header = (tmp_path / "000.idx").read_bytes()
    assert b'"__metadata__":{"bad":"{}"}' in header[: int.from_bytes(header[:8], "little") + 8]
