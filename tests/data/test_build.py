"""Building shards: the same input gives the same bytes, stopping loses nothing, bad images are named."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from data.build import main
from data.images.decode import decode_image
from data.index import Index, load_index
from data.index.class_counts import describe_counts
from data.shards.shard_reader import ShardReader
from data.shards.writer import recode_image
from launch.exit_codes import ExitCode
from tests.photos import class_folders, jpeg, pixels

REPOSITORY = Path(__file__).resolve().parents[2]


def build(source: Path | str, out: Path, *more: object, workers: int = 1) -> int:
    text = source if isinstance(source, str) else f"folder:{source}"
    return main(["--source", text, "--out", str(out), "--workers", str(workers), *map(str, more)])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that belongs to the data set, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".build" not in path.parts
    }


def samples(index: Index) -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """key -> (image bytes, labels), read as training reads them."""
    reader, found = ShardReader(index), {}
    for shard in range(len(index.shards)):
        rows = reader.info(shard)
        for number in range(len(rows)):
            found[rows.key(number)] = (reader.read(shard, number), tuple(rows.labels[number].tolist()))
    return found


def test_every_photo_is_kept_byte_for_byte_with_its_label(tmp_path):
    photos = class_folders(tmp_path / "photos")
    assert build(photos, tmp_path / "out", "--samples-per-shard", 5) == ExitCode.DONE
    index = load_index(tmp_path / "out" / "train")
    assert index.counts.tolist() == [5, 5, 5, 5, 4]
    expected = {
        f"{file.parent.name}/{file.stem}": (file.read_bytes(), (int(file.parent.name[-1]),))
        for file in photos.rglob("*.jpg")
    }
    assert samples(index) == expected
    order = [key.split("/")[0] for key in samples(index)]
    assert order != sorted(order), "samples were not shuffled"


def test_webdataset_reads_the_shards(tmp_path):
    build(class_folders(tmp_path / "photos", per_class=3), tmp_path / "out")
    tar = tmp_path / "out" / "train" / "000000.tar"
    found = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert len(found) == 9
    assert all(json.loads(sample["json"]) == {"class": sample["__key__"].split("/")[0]} for sample in found)


def test_bytes_do_not_depend_on_the_number_of_workers_or_on_file_times(tmp_path):
    photos = class_folders(tmp_path / "photos")
    build(photos, tmp_path / "one", "--samples-per-shard", 4, "--resize", 16)
    for file in photos.rglob("*.jpg"):
        os.utime(file, (1, 1))
    build(photos, tmp_path / "three", "--samples-per-shard", 4, "--resize", 16, workers=3)
    one = contents(tmp_path / "one")
    assert len(one) > 10
    assert one == contents(tmp_path / "three")


def test_seed_decides_order_and_holdout(tmp_path):
    photos = class_folders(tmp_path / "photos")
    for seed in (0, 1):
        build(photos, tmp_path / str(seed), "--holdout", 0.25, "--seed", seed)
    keys = [list(samples(load_index(tmp_path / str(seed) / "val"))) for seed in (0, 1)]
    assert set(keys[0]) != set(keys[1])


def test_killed_in_the_middle_and_continued_gives_the_same_bytes(tmp_path):
    photos = class_folders(tmp_path / "photos", per_class=120)
    build(photos, tmp_path / "whole", "--samples-per-shard", 3)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "data.build", "--source", f"folder:{photos}", "--out", str(out)]
    command += ["--samples-per-shard", "3", "--workers", "2"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = out / "train" / ".build"
    deadline = time.monotonic() + 60
    while len(list(records.glob("0*.json"))) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "train" / "index.json").exists(), "the build was over before it was killed"
    finished = {path: path.stat().st_mtime_ns for path in sorted((out / "train").glob("0*.tar"))[:5]}
    (out / "train" / ".000009.tar.1.tmp").write_bytes(b"left over")
    assert build(photos, out, "--samples-per-shard", 3) == ExitCode.DONE
    assert contents(out) == contents(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished shards were written again"


def test_a_finished_shard_that_was_damaged_is_written_again(tmp_path):
    photos = class_folders(tmp_path / "photos")
    build(photos, tmp_path / "out", "--samples-per-shard", 5)
    before = contents(tmp_path / "out")
    tar = tmp_path / "out" / "train" / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:-2000] + bytes([1]) + tar.read_bytes()[-1999:])
    (tmp_path / "out" / "train" / "000002.idx").unlink()
    build(photos, tmp_path / "out", "--samples-per-shard", 5)
    assert contents(tmp_path / "out") == before


def test_another_build_in_the_same_place_is_refused(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos")
    out = tmp_path / "out"
    build(photos, out)
    assert build(photos, out, "--seed", 5) == ExitCode.BAD_DATA
    assert "seed was 0, is 5" in capsys.readouterr().err
    (photos / "class0" / "new.jpg").write_bytes(jpeg(77))
    assert build(photos, out) == ExitCode.BAD_DATA
    assert "the source's files or labels have changed" in capsys.readouterr().err
    assert build(photos, out, "--overwrite", "--samples-per-shard", 100) == ExitCode.DONE
    assert load_index(out / "train").num_samples == 25


def test_shards_of_unknown_origin_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "out" / "train").mkdir(parents=True)
    precious = tmp_path / "out" / "train" / "mine.tar"
    precious.write_bytes(b"x")
    assert build(class_folders(tmp_path / "photos"), tmp_path / "out") == ExitCode.BAD_DATA
    assert "already holds mine.tar, which no build wrote; choose another --out" in capsys.readouterr().err
    assert build(tmp_path / "photos", tmp_path / "out", "--overwrite") == ExitCode.BAD_DATA
    assert precious.exists()


def test_overwriting_removes_the_earlier_build_and_nothing_else(tmp_path):
    photos = class_folders(tmp_path / "photos")
    folder = tmp_path / "out" / "train"
    build(photos, tmp_path / "out", "--samples-per-shard", 5)
    kept = ["mine.tar", "mine.idx", ".notes.tmp", "notes.json"]
    for name in kept:
        (folder / name).write_bytes(b"x")
    (folder / "000004.tar").replace(folder / "000005.tar")  # of a shard that a kill left without its record
    (folder / ".000000.tar.1.tmp").write_bytes(b"x")
    assert build(photos, tmp_path / "out", "--overwrite", "--samples-per-shard", 12) == ExitCode.DONE
    names = [f"{number:06d}.{suffix}" for number in range(2) for suffix in ("idx", "tar")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, *kept, ".build", "index.json"])


def test_bad_pictures_are_left_out_and_listed(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos")
    (photos / "class1" / "cut.jpg").write_bytes(jpeg(1)[:300])
    (photos / "class2" / "text.png").write_bytes(b"hello")
    assert build(photos, tmp_path / "out", "--samples-per-shard", 5) == ExitCode.DONE
    assert "2 bad pictures left out" in capsys.readouterr().out.splitlines()[-1]
    folder = tmp_path / "out" / "train"
    lines = [json.loads(line) for line in (folder / "bad_samples.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines} == {"class1/cut", "class2/text"}
    assert all(line["reason"] and line["shard"].endswith(".tar") for line in lines)
    assert load_index(folder).num_samples == 24
    assert build(photos, tmp_path / "out", "--samples-per-shard", 5, "--max-bad", 0) == ExitCode.BAD_DATA


def test_too_many_bad_pictures_fail_the_build(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos")
    for number in range(11):
        (photos / "class0" / f"bad{number}.jpg").write_bytes(b"no picture")
    assert build(photos, tmp_path / "out") == ExitCode.BAD_DATA
    assert "more than 10 of 35 pictures are bad" in capsys.readouterr().err
    assert not (tmp_path / "out" / "train" / "index.json").exists()
    assert build(photos, tmp_path / "out", "--max-bad", 0.5) == ExitCode.DONE


def test_a_shard_of_bad_pictures_only_does_not_exist(tmp_path):
    photos = class_folders(tmp_path / "photos", classes=1, per_class=3)
    (photos / "class0" / "bad.jpg").write_bytes(b"x")
    assert build(photos, tmp_path / "out", "--samples-per-shard", 1) == ExitCode.DONE
    index = load_index(tmp_path / "out" / "train")
    assert index.counts.tolist() == [1, 1, 1]
    assert len(samples(index)) == 3
    assert build(photos, tmp_path / "out", "--samples-per-shard", 1) == ExitCode.DONE


def test_pixel_limit(tmp_path):
    photos = class_folders(tmp_path / "photos")
    (photos / "class0" / "bomb.jpg").write_bytes(jpeg(1, 200, 200))
    build(photos, tmp_path / "out", "--max-pixels", 10_000)
    assert "larger than the limit" in (tmp_path / "out" / "train" / "bad_samples.jsonl").read_text()


def test_published_splits_and_picking_one(tmp_path, capsys):
    for split, per_class in (("train", 6), ("val", 2), ("test", 3)):
        class_folders(tmp_path / "photos" / split, per_class=per_class)

    def sizes(out):
        return {path.name: load_index(path).num_samples for path in (tmp_path / out).iterdir() if path.is_dir()}

    build(tmp_path / "photos", tmp_path / "all")
    assert sizes("all") == {"train": 18, "val": 6, "test": 9}
    assert "as published" in capsys.readouterr().out
    build(tmp_path / "photos", tmp_path / "one", "--split", "test")
    assert sizes("one") == {"test": 9}
    build(tmp_path / "photos", tmp_path / "again", "--holdout", 0.5)
    assert sizes("again") == {"train": 12, "val": 12, "test": 9}
    assert build(tmp_path / "photos", tmp_path / "none", "--split", "dev") == ExitCode.BAD_CONFIG
    assert "the source publishes test, train, val" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "counts", "text"),
    [
        (("0", "1"), [0, 3], "0: 0, 1: 3"),
        (tuple(map(str, range(20))), [*range(4, 24)], "from 4 (class 0) to 23 (class 19)"),
        (tuple(map(str, range(20))), [0] * 20, "none"),
    ],
)
def test_class_names_that_are_numbers_stand_apart_from_their_counts(names, counts, text):
    assert describe_counts(names, np.array(counts)) == text


def test_empty_classes_and_tasks_are_said(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos")
    (photos / "ghost").mkdir()
    build(photos, tmp_path / "out")
    assert "task 'class': 1 class has no sample: ghost" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [["--holdout", "1.5"], ["--quality", "0"], ["--workers", "0"], ["--split", "../x"], ["--encode", "webp"]],
)
def test_wrong_arguments_exit_with_2(wrong, tmp_path):
    with pytest.raises(SystemExit) as stop:
        build(class_folders(tmp_path / "photos"), tmp_path / "out", *wrong)
    assert stop.value.code == ExitCode.BAD_CONFIG


# -- recode ----------------------------------------------------------------------------------------------------------


def test_resize_shrinks_the_short_side_and_never_enlarges():
    suffix, small = recode_image(jpeg(1, 90, 120), resize=30, encode=None, quality=90)
    assert (suffix, decode_image(small).shape) == ("jpg", (30, 40, 3))
    assert recode_image(jpeg(1), resize=100, encode=None, quality=90) == ("jpg", jpeg(1))


def test_png_is_kept_unless_jpeg_is_asked_and_bmp_becomes_png():
    image = pixels(1, 24, 32)
    files = {}
    for kind in ("PNG", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind)
        files[kind] = buffer.getvalue()
    assert recode_image(files["PNG"], resize=None, encode=None, quality=90) == ("png", files["PNG"])
    suffix, data = recode_image(files["BMP"], resize=None, encode=None, quality=90)
    assert suffix == "png"
    assert (decode_image(data) == image).all()
    suffix, data = recode_image(files["PNG"], resize=None, encode="jpeg", quality=90)
    assert suffix == "jpg"
    assert np.abs(decode_image(data).astype(int) - image).mean() < 5
