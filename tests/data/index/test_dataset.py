"""The index refuses what is broken in words, and indexing foreign tars loses no sample in silence."""

import io
import json
import tarfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import build, verify
from data.errors import DataError
from data.index import (
    Index,
    LabelRule,
    Shard,
    ShardIndex,
    idx_name,
    load_index,
    pack_keys,
    shard_index_from_bytes,
    write_index,
)
from data.index.__main__ import main
from launch.exit_codes import ExitCode
from tests.edited_json import edit_json
from tests.photos import class_folders, jpeg, write_tar

TASKS = {"age": ["young", "old"], "sex": ["f", "m", "x"]}


def shard(name: str = "000.tar", count: int = 3) -> Shard:
    return Shard(name, count, 10_240, "ab" * 32, 7)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """(exit code, everything printed) of `python -m data.index`, where any number of samples may be bad."""
    code = main([*map(str, arguments), "--workers", "1", "--max-bad", "1"])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def index_members(folder: Path, members: list[tuple[str, bytes]], capsys: pytest.CaptureFixture[str], *more: str):
    """Index one tar of `members`; returns (index, {key: labels by class name}, {key: reason}, output)."""
    write_tar(folder / "000.tar", members)
    code, output = run(capsys, folder, *more)
    assert code == ExitCode.DONE, output
    index = load_index(folder)
    rows = index.load_shard(0)
    labels = {
        rows.key(number): {
            task: names[label] if label >= 0 else None
            for (task, names), label in zip(index.tasks.items(), rows.labels[number], strict=True)
        }
        for number in range(len(rows))
    }
    return index, labels, {rows.key(number): reason for number, reason in rows.bad.items()}, output


# -- index.json and .idx ---------------------------------------------------------------------------------------------


def test_index_comes_back_as_written_with_shards_sorted(tmp_path):
    write_index(tmp_path, tasks=TASKS, shards=[shard("b.tar", 2), shard("a.tar", 5)])
    index = load_index(f"file://{tmp_path}/")
    assert [part.name for part in index.shards] == ["a.tar", "b.tar"]
    assert index.tasks == {"age": ("young", "old"), "sex": ("f", "m", "x")}
    assert (index.num_samples, index.counts.tolist(), index.counts.dtype) == (7, [5, 2], "int64")
    assert index.shard_url(1) == f"{tmp_path}/b.tar"
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"], "temporary files were left"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "slimheads-index/2"}, "this version reads 'slimheads-index/1'; update"),
        ({"tasks": []}, "has no list of tasks"),
        ({"tasks": {"age": ["old", "old"]}}, "task 'age' lists the class 'old' more than once"),
        ({"tasks": {"age": []}}, "task 'age' needs a list of class names"),
        ({"shards": {"name": ["a"]}}, "exactly the columns"),
    ],
)
def test_a_wrong_index_is_refused_in_words(change, message, tmp_path):
    path = write_index(tmp_path, tasks=TASKS, shards=[shard()])
    edit_json(path, **change)
    with pytest.raises(DataError, match=message):
        load_index(tmp_path)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "is empty, it lists no shards"),
        ([shard(), shard()], "lists the shard '000.tar' more than once"),
        ([shard(count=0)], "'000.tar' holds no samples"),
    ],
)
def test_wrong_shard_lists_are_refused_when_written(shards, message, tmp_path):
    with pytest.raises(DataError, match=message):
        write_index(tmp_path, tasks=TASKS, shards=shards)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("root", ["nowhere", "pipe:cat x", "gs://bucket/x"])
def test_unreadable_roots_are_named(root):
    with pytest.raises(DataError, match=root.split(" ")[0]):
        load_index(root)


def test_half_an_index_is_not_json(tmp_path):
    path = write_index(tmp_path, tasks=TASKS, shards=[shard()])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="is not JSON"):
        load_index(tmp_path)


def test_a_changed_idx_file_is_noticed(tmp_path, capsys):
    index, *_ = index_members(tmp_path, [("a.jpg", jpeg(1)), ("a.cls", b"0")], capsys)
    path = tmp_path / "000.idx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=r"000\.idx: has changed since index\.json was written"):
        index.load_shard(0)
    path.unlink()
    with pytest.raises(DataError, match=r"000\.idx: cannot be read"):
        index.load_shard(0)


def test_rows_must_match_the_index(tmp_path, capsys):
    index, *_ = index_members(tmp_path, [("a.jpg", jpeg(1)), ("a.cls", b"0")], capsys)
    (old,) = index.shards
    wrong = Index(index.root, index.tasks, (Shard(old.name, 2, old.bytes, old.sha256, old.idx_crc32c),))
    with pytest.raises(DataError, match=r"has 1 samples of 1 tasks, but index\.json says 2 of 1"):
        wrong.load_shard(0)


def test_other_bytes_are_not_an_idx_file():
    with pytest.raises(DataError, match=r"x\.idx: is not a shard index"):
        shard_index_from_bytes(b"\x05" + bytes(30), name="x.idx")


@given(st.lists(st.text(alphabet="a/._ä€", max_size=8)))
def test_keys_pack_and_unpack(keys):
    packed, ends = pack_keys(keys)
    starts = [0, *ends[:-1]]
    assert [packed[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=False)] == keys


def test_a_key_that_is_no_text_is_read_as_text():
    """Older indexes hold the bytes."""
    empty = np.zeros((2, 1), np.int32)
    data, ends = np.frombuffer(b"acaf\xe9", np.uint8), np.array([1, 5])
    rows = ShardIndex(*(np.zeros(2, kind) for kind in (np.int64, np.int32, np.uint32)), empty, data, ends)
    assert [rows.key(0), rows.key(1)] == ["a", r"caf\xe9"]


def test_idx_name():
    assert idx_name("a.b.tar") == "a.b.idx"


# -- tars of other tools ---------------------------------------------------------------------------------------------


def test_byte_ranges_lead_to_the_images(tmp_path, capsys):
    photos = {"a/1": jpeg(1), "a/2": jpeg(2), "b/" + "long" * 60: jpeg(3)}
    members = [part for key, data in photos.items() for part in ((f"{key}.jpg", data), (f"{key}.cls", b"cat"))]
    index, labels, bad, _ = index_members(tmp_path, members, capsys)
    tar, rows = (tmp_path / "000.tar").read_bytes(), index.load_shard(0)
    for number, data in enumerate(photos.values()):
        found = tar[rows.offset[number] : rows.offset[number] + rows.size[number]]
        assert found == data
        assert google_crc32c.value(data) == rows.crc32c[number]
    assert labels == {key: {"class": "cat"} for key in photos}
    assert not bad


def test_classes_are_inferred_or_given(tmp_path, capsys):
    members = [
        ("a.jpg", jpeg(1)),
        ("a.json", b'{"age": 3, "sex": "m"}'),
        ("b.png", jpeg(2)),
        ("b.json", b'{"sex": "f"}'),
    ]
    index, labels, _, _ = index_members(tmp_path, members, capsys)
    assert index.tasks == {"age": ("0", "1", "2", "3"), "sex": ("f", "m")}
    assert labels == {"a": {"age": "3", "sex": "m"}, "b": {"age": None, "sex": "f"}}
    classes = tmp_path / "classes.json"
    classes.write_text('{"sex": ["m", "f"]}')
    index, labels, _, output = index_members(tmp_path, members, capsys, "--classes", str(classes))
    assert index.tasks == {"sex": ("m", "f")}
    assert labels == {"a": {"sex": "m"}, "b": {"sex": "f"}}
    assert "label field 'age' is not a task and was ignored (for example a in 000.tar)" in output


def test_only_the_fields_of_the_tasks_are_looked_at(tmp_path, capsys):
    """As img2dataset writes them: floats, null, nested objects and true beside what is a label."""
    fields = b'"similarity": 0.31, "NSFW": NaN, "exif": {"a": 1}, "clean": true, "boxes": [1], "error_message": null'
    members = [
        *(("a.jpg", jpeg(1)), ("a.json", b'{"item": "cup", "caption": "a", %s}' % fields), ("a.cls", b"0.5")),
        *(("b.jpg", jpeg(2)), ("b.json", b'{"item": "10", "caption": "b", %s}' % fields), ("b.cls", b"[2]")),
    ]
    index, labels, bad, output = index_members(tmp_path, members, capsys)
    assert index.tasks == {"item": ("10", "cup"), "caption": ("a", "b"), "clean": ("true",)}
    assert not bad
    assert "2 label field 'similarity' is not a task and was ignored" in output
    classes = tmp_path / "classes.json"
    classes.write_text('{"item": ["cup", "10"]}')
    _, labels, bad, _ = index_members(tmp_path, members, capsys, "--classes", str(classes))
    assert (labels, bad) == ({"a": {"item": "cup"}, "b": {"item": "10"}}, {})


def test_a_set_of_decimals_alone_is_no_set_of_classes(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(1)), ("a.json", b'{"score": 0.5}')])
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.BAD_DATA
    assert "no sample has a usable label" in output
    assert "'score': label 0.5 is a float: regression is not supported" in output


def test_names_that_are_numbers_are_in_their_order(tmp_path, capsys):
    members = [part for n in (10, 9, 1) for part in ((f"{n}.jpg", jpeg(n)), (f"{n}.json", b'{"n": "%d"}' % n))]
    assert index_members(tmp_path, members, capsys)[0].tasks == {"n": ("1", "9", "10")}


def test_labels_that_are_no_text_stay_apart(tmp_path, capsys):
    members = [("8.jpg", jpeg(8)), ("8.cls", b"caf\xe8"), ("9.jpg", jpeg(9)), ("9.cls", b"caf\xe9")]
    members += [("k\udcff.jpg", jpeg(1)), ("k\udcff.json", b'{"class": "\\ud800"}')]
    index, labels, bad, _ = index_members(tmp_path, members, capsys)
    assert index.tasks == {"class": (r"\ud800", r"caf\xe8", r"caf\xe9")}
    assert labels[r"k\xff"] == {"class": r"\ud800"}
    assert not bad
    assert verify.main([str(tmp_path), "--jobs", "1"]) == ExitCode.DONE


def test_classes_task_and_pixels_are_remembered(tmp_path, capsys):
    members = [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("b.jpg", jpeg(2)), ("b.cls", b"0")]
    members += [("big.jpg", jpeg(3, 100, 100)), ("big.cls", b"0")]
    (tmp_path / "c.json").write_text('{"item": ["cup", "10", "2"]}')
    given = ("--classes", str(tmp_path / "c.json"), "--task", "item", "--max-pixels", "5000")
    index, labels, bad, _ = index_members(tmp_path, members, capsys, *given)
    assert (index.tasks, list(bad)) == ({"item": ("cup", "10", "2")}, ["big"])
    assert labels["a"] == {"item": "10"}
    before = (tmp_path / "index.json").read_bytes()
    assert verify.main([str(tmp_path), "--jobs", "1"]) == ExitCode.DONE
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.DONE
    assert "the classes are those of the index.json that is there" in output
    assert (tmp_path / "index.json").read_bytes() == before
    (tmp_path / "c.json").write_text('{"class": ["x", "y"]}')
    index, labels, _, _ = index_members(
        tmp_path, members, capsys, "--classes", str(tmp_path / "c.json"), "--task", "class"
    )
    assert labels["a"] == {"class": "y"}


def test_a_built_split_keeps_its_classes_when_it_is_indexed_again(tmp_path, capsys):
    class_folders(tmp_path / "photos", classes=2, per_class=2)
    (tmp_path / "photos" / "empty").mkdir()
    assert build.main(["--source", f"folder:{tmp_path / 'photos'}", "--out", str(tmp_path), "--workers", "1"]) == 0
    classes = load_index(tmp_path / "train").tasks
    assert run(capsys, tmp_path / "train")[0] == ExitCode.DONE
    assert load_index(tmp_path / "train").tasks == classes == {"class": ("class0", "class1", "empty")}


def test_a_wrong_label_rule_is_refused(tmp_path):
    path = write_index(tmp_path, tasks=TASKS, shards=[shard()], label_rule=LabelRule("item", classes_given=True))
    assert load_index(tmp_path).label_rule == LabelRule("item", classes_given=True)
    content = json.loads(path.read_text())
    del content["checksum"]
    whole = content["label_rule"]
    for rule, message in (({"cls_task": "item"}, "needs exactly"), ({**whole, "cls_task": 3}, "the cls_task 3")):
        path.write_text(json.dumps({**content, "label_rule": rule}))
        with pytest.raises(DataError, match=message):
            load_index(tmp_path)


def test_hidden_tars_are_no_shards(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", MEMBERS)
    (tmp_path / "._0.tar").write_bytes(b"what another system left")
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.DONE, output
    assert "._0.tar" in output
    assert [one.name for one in load_index(tmp_path).shards] == ["0.tar"]


def test_a_shard_whose_name_is_no_text_is_refused(tmp_path, capsys):
    write_tar(tmp_path / "0\udcff.tar", MEMBERS)
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.BAD_DATA
    assert r"0\xff.tar: the name of a shard must be text" in output


def write_links(path: Path, kind: int) -> None:
    """c.jpg and c.cls by links to what comes before and behind them, and links that lead nowhere."""
    long = "long/" * 40
    with tarfile.open(path, "w", format=kind) as tar:

        def add(name: str, data: bytes = b"", *, link: str = "", type: bytes = tarfile.REGTYPE) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), type, link
            tar.addfile(member, io.BytesIO(data))

        add("a.jpg", jpeg(1))
        add("a.cls", b"1")
        add("links/c.jpg", link="a.jpg", type=tarfile.LNKTYPE)
        add("links/c.cls", link="../links/d.cls", type=tarfile.SYMTYPE)
        add("links/d.cls", link=f"../{long}e.cls", type=tarfile.SYMTYPE)
        add("links/d.jpg", link="../a.jpg", type=tarfile.SYMTYPE)
        add(f"{long}e.cls", b"0")
        add(f"{long}e.jpg", link="./a.jpg", type=tarfile.LNKTYPE)
        add("out.jpg", link="../elsewhere.jpg", type=tarfile.SYMTYPE)
        add("out.cls", b"1")
        add("circle.jpg", link="circle.jpg", type=tarfile.SYMTYPE)
        add("f.jpg", jpeg(2))
        add("f.cls", link="gone.cls", type=tarfile.LNKTYPE)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_in_tars_are_followed_or_named(kind, tmp_path, capsys):
    write_links(tmp_path / "0.tar", kind)
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.DONE, output
    index = load_index(tmp_path)
    rows, tar = index.load_shard(0), (tmp_path / "0.tar").read_bytes()
    found = {
        rows.key(number): (tar[offset : offset + size], int(rows.labels[number, 0]))
        for number, (offset, size) in enumerate(zip(rows.offset, rows.size, strict=True))
        if number not in rows.bad
    }
    assert {key: label for key, (_, label) in found.items()} == {
        "a": 1,
        "links/c": 0,
        "links/d": 0,
        "long/" * 40 + "e": 0,
    }
    assert {image for image, _ in found.values()} == {jpeg(1)}
    assert {rows.key(number): reason for number, reason in rows.bad.items()} == {
        "out": "image is a link to '../elsewhere.jpg', which is no file of this tar",
        "circle": "image is a link to 'circle.jpg', which is no file of this tar",
        "f": ".cls file is a link to 'gone.cls', which is no file of this tar",
    }
    assert verify.main([str(tmp_path), "--jobs", "1"]) == ExitCode.DONE


def test_several_images_of_one_key_are_split_at_the_last_dot_and_told(tmp_path, capsys):
    members = [(f"img.{number}.jpg", jpeg(number)) for number in range(3)] + [("img.1.cls", b"1")]
    _, labels, bad, output = index_members(tmp_path, members, capsys)
    assert labels == {"img.0": {"class": None}, "img.1": {"class": "1"}, "img.2": {"class": None}}
    assert not bad
    assert "merge several images when split at the first dot" in output


def test_a_mask_beside_the_image_is_not_a_second_image(tmp_path, capsys):
    members = [("a.jpg", jpeg(1)), ("a.seg.png", jpeg(2)), ("a.cls", b"0")]
    _, labels, bad, output = index_members(tmp_path, members, capsys)
    assert (list(labels), bad) == (["a"], {})
    assert ".seg.png files were ignored" in output


def test_scattered_members_and_odd_files_are_told(tmp_path, capsys):
    members = [
        ("a.jpg", jpeg(1)),
        ("b.jpg", jpeg(2)),
        ("a.cls", b"1"),
        ("b.cls", b"0"),
        ("README", b"x"),
        (".x.jpg", b""),
    ]
    _, labels, bad, output = index_members(tmp_path, members, capsys)
    assert labels == {"a": {"class": "1"}, "b": {"class": "0"}}
    assert not bad
    assert "2 samples whose members are not neighbours were joined" in output
    assert "1 files without an extension were skipped (for example README" in output
    assert "1 hidden files were skipped" in output


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("x.cls", b"0")], "there is a label but no image"),
        ([("x.jpg", jpeg(1)), ("x.jpg", jpeg(2))], "key is used for 2 images"),
        ([("x.jpg", jpeg(1)), ("x.png", jpeg(2))], "key is used for 2 images"),
        ([("x.jpg", jpeg(1)), ("x.cls", b"0"), ("x.cls", b"1")], "key is used for 2 .cls files"),
        ([("x.jpg", jpeg(1)[:200]), ("x.cls", b"0")], "does not decode"),
        ([("x.jpg", b""), ("x.cls", b"0")], "image is empty"),
        ([("x.jpg", jpeg(1)), ("x.cls", b"-1")], "label -1 is negative"),
        ([("x.jpg", jpeg(1)), ("x.cls", b"2")], "label 2 is out of range, there are 2 classes"),
        ([("x.jpg", jpeg(1)), ("x.cls", b"0.25")], "regression is not supported"),
        ([("x.jpg", jpeg(1)), ("x.cls", b"[0, 1]")], "several labels per task are not supported"),
        ([("x.jpg", jpeg(1)), ("x.cls", b"bird")], "unknown class 'bird'"),
        ([("x.jpg", jpeg(1)), ("x.json", b'{"class": 0.5}')], "label 0.5 is a float"),
        ([("x.jpg", jpeg(1)), ("x.json", b'{"class": [1]}')], "label is a list"),
        ([("x.jpg", jpeg(1)), ("x.json", b'{"class": {"a": 1}}')], "label is a nested object"),
        ([("x.jpg", jpeg(1)), ("x.json", b'{"class": true}')], "unknown class 'true'"),
        ([("x.jpg", jpeg(1)), ("x.json", b'["cat"]')], "must be a JSON object"),
        ([("x.jpg", jpeg(1)), ("x.json", b'{"class"')], "label file is not JSON"),
        ([("x.jpg", jpeg(1)), ("x.json", b'{"class": 0}'), ("x.cls", b"1")], ".cls says 1, .json says 0"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named_with_its_reason(members, reason, tmp_path, capsys):
    (tmp_path / "classes.json").write_text('{"class": ["cat", "dog"]}')
    members = [("good.jpg", jpeg(9)), ("good.cls", b"1"), *members]
    _, labels, bad, output = index_members(tmp_path, members, capsys, "--classes", str(tmp_path / "classes.json"))
    assert labels["good"] == {"class": "dog"}
    assert list(bad) == ["x"]
    assert reason in bad["x"]
    assert "1 of 2 samples cannot be used" in output
    (line,) = map(json.loads, (tmp_path / "bad_samples.jsonl").read_text().splitlines())
    assert line == {"shard": "000.tar", "key": "x", "reason": bad["x"]}


def test_numbers_mixed_with_names_need_a_class_list(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("b.jpg", jpeg(1)), ("b.cls", b"cat")])
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.BAD_DATA
    assert "task 'class' mixes class numbers (1) and class names ('cat')" in output


# -- broken tars -----------------------------------------------------------------------------------------------------

MEMBERS = [part for n in range(4) for part in ((f"{n}.jpg", jpeg(n)), (f"{n}.cls", b"0"))]


def end_of_member(tar: bytes, number: int) -> int:
    """Byte position after the padded data of the member `number`."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        member = file.getmembers()[number]
    return member.offset_data + -(-member.size // 512) * 512


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tar: tar[: end_of_member(tar, 3)], "truncated, it ends without the end-of-archive mark at byte"),
        (lambda tar: tar[: end_of_member(tar, 3) + 200], "truncated, it ends inside a header"),
        (lambda tar: tar[: end_of_member(tar, 3) + 600], "truncated, '2.jpg' needs bytes"),
        (lambda tar: tar[: end_of_member(tar, 7) + 512], "is truncated at byte"),
        (
            lambda tar: tar[: end_of_member(tar, 3)] + b"\xaa" * 512 + tar[end_of_member(tar, 3) + 512 :],
            "corrupt header",
        ),
        (lambda tar: tar + tar, "data follows the end-of-archive mark"),
        (lambda tar: b"", "is empty"),
        (lambda tar: b"\x1f\x8b" + tar, "is compressed (gzip)"),
        (lambda tar: b"\x28\xb5\x2f\xfd" + tar, "is compressed (zstd)"),
        (lambda tar: tar[end_of_member(tar, 7) :], "holds no samples"),
    ],
)
def test_a_broken_tar_stops_with_its_name_and_place(damage, message, tmp_path, capsys):
    path = write_tar(tmp_path / "007.tar", MEMBERS)
    path.write_bytes(damage(path.read_bytes()))
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.BAD_DATA
    assert "007.tar" in output
    assert message in output
    assert not (tmp_path / "index.json").exists(), "half a data set was indexed"


def test_how_many_files_were_read_is_said(tmp_path, capsys):
    path = write_tar(tmp_path / "007.tar", MEMBERS)
    path.write_bytes(path.read_bytes()[: end_of_member(path.read_bytes(), 4)])
    assert "after 5 files were read" in run(capsys, tmp_path)[1]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_compressed_names_are_refused(name, tmp_path, capsys):
    write_tar(tmp_path / "b.tar", MEMBERS)
    (tmp_path / name).write_bytes(b"x")
    code, output = run(capsys, tmp_path)
    assert code == ExitCode.BAD_DATA
    assert f"{name}: is compressed" in output


def test_two_shards_of_one_name_are_refused(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "000.tar", MEMBERS)
    code, output = run(capsys, tmp_path / "a", tmp_path / "b")
    assert code == ExitCode.BAD_DATA
    assert "two shards are named 000.tar" in output


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_dialects_long_names_folders_and_links(kind, tmp_path, capsys):
    long_name = "deep/" * 30 + "ä" * 40
    name = "x" * 90 if kind == tarfile.USTAR_FORMAT else long_name
    with tarfile.open(tmp_path / "0.tar", "w", format=kind) as tar:
        folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link.jpg")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "x" * 95
        tar.addfile(folder)
        for suffix, data in ((".jpg", jpeg(1)), (".cls", b"0")):
            member = tarfile.TarInfo(name + suffix)
            member.size, member.mtime = len(data), 1.5 if kind == tarfile.PAX_FORMAT else 1
            tar.addfile(member, io.BytesIO(data))
        tar.addfile(link)
    assert run(capsys, tmp_path)[0] == ExitCode.DONE
    rows = load_index(tmp_path).load_shard(0)
    assert [rows.key(0), rows.key(1)] == [name, "link"]
    assert rows.bad == {1: f"image is a link to {'x' * 95!r}, which is no file of this tar"}
