"""Splits by data.build: groups, copies and near-duplicates stay on one side, folds, and what is said of them."""

import csv
from pathlib import Path

import pytest

from data.build import main
from data.index import load_index
from launch.exit_codes import ExitCode
from tests.photos import class_folders, jpeg, natural_photo


def build(source: Path, out: Path, *more: object) -> int:
    return main(["--source", str(source), "--out", str(out), "--workers", "1", *map(str, more)])


def keys_of(out: Path) -> dict[str, set[str]]:
    """split -> keys."""
    found: dict[str, set[str]] = {}
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        index = load_index(folder)
        rows = [index.load_shard(number) for number in range(len(index.shards))]
        found[folder.name] = {shard.key(sample) for shard in rows for sample in range(len(shard))}
    return found


@pytest.fixture
def bursts(tmp_path):
    """30 scenes of two photos, the second one brighter and cropped; classes of ten scenes each."""
    for scene in range(30):
        folder = tmp_path / "photos" / f"class{scene % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        photo = natural_photo(scene, 96, 96)
        photo.save(folder / f"{scene:02}-a.jpg", quality=92)
        photo.crop((3, 3, 94, 94)).point(lambda value: min(255, int(value * 1.1))).save(folder / f"{scene:02}-b.jpg")
    return tmp_path / "photos"


def scenes(keys: set[str]) -> set[str]:
    return {key.partition("/")[2][:2] for key in keys}


def test_near_duplicates_across_splits_are_said_and_listed(bursts, tmp_path, capsys):
    assert build(bursts, tmp_path / "out", "--holdout", 0.3) == ExitCode.DONE
    out = capsys.readouterr().out
    keys = keys_of(tmp_path / "out")
    parted = scenes(keys["train"]) & scenes(keys["val"])
    assert parted, "a plain hold-out parts scenes"
    assert f"{len(parted)} of 18 val photos have a near-duplicate in train" in out
    with (tmp_path / "out" / "near_duplicates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["split_a"], row["split_b"]) for row in rows} == {("val", "train")}
    assert {row["image_a"].partition("/")[2][:2] for row in rows} == parted
    assert all(row["image_a"][:-1] == row["image_b"][:-1] for row in rows)


def test_near_duplicates_can_be_kept_together(bursts, tmp_path, capsys):
    assert build(bursts, tmp_path / "out", "--holdout", 0.3, "--group", "near-duplicates") == ExitCode.DONE
    keys = keys_of(tmp_path / "out")
    assert not scenes(keys["train"]) & scenes(keys["val"])
    assert len(keys["val"]) == 18
    out = capsys.readouterr().out
    assert "no photo has a near-duplicate in another split (train, val)" in out
    assert not (tmp_path / "out" / "near_duplicates.csv").exists()


def test_a_pattern_keeps_photos_of_one_name_together(bursts, tmp_path):
    assert build(bursts, tmp_path / "out", "--holdout", 0.3, "--group", "/([0-9]+)-", "--no-near-duplicates") == 0
    keys = keys_of(tmp_path / "out")
    assert not scenes(keys["train"]) & scenes(keys["val"])


def test_equal_bytes_are_never_parted(tmp_path):
    photos = class_folders(tmp_path / "photos", per_class=10)
    for file in list(photos.rglob("*.jpg")):
        (file.parent / f"again{file.name}").write_bytes(file.read_bytes())
    assert build(photos, tmp_path / "out", "--holdout", 0.3) == ExitCode.DONE
    val = keys_of(tmp_path / "out")["val"]
    assert len(val) == 18
    assert {key.replace("again", "") for key in val if "again" in key} == {key for key in val if "again" not in key}


def test_folds_are_disjoint_and_hold_everything(tmp_path):
    photos = class_folders(tmp_path / "photos", per_class=10)
    held = []
    for fold in range(5):
        assert build(photos, tmp_path / f"out{fold}", "--folds", 5, "--fold", fold) == ExitCode.DONE
        held.append(keys_of(tmp_path / f"out{fold}")["val"])
    assert [len(keys) for keys in held] == [6] * 5
    assert len(set.union(*held)) == 30


def test_the_share_wins_over_a_photo_of_each_class(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos", classes=9, per_class=3)
    assert build(photos, tmp_path / "out", "--holdout", 0.2) == ExitCode.DONE
    assert len(keys_of(tmp_path / "out")["val"]) == 5
    assert "task 'class': 4 classes have no held-out sample" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--holdout", 0.2, "--folds", 5), "--folds 5 with --holdout: both hold out DIR/val; say one of them"),
        (("--folds", 1), "--folds 1: must be at least 2"),
        (("--fold", 1), "--fold 1: which fold of how many? Add --folds K"),
        (("--folds", 5, "--fold", 5), "--fold 5: must lie between 0 and 4"),
        (("--group", "a", "--group", "b"), "--group b: one column or pattern is taken, and near-duplicates beside it"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        build(tmp_path, tmp_path / "out", *options)
    assert message in capsys.readouterr().err


def test_groups_with_published_splits_are_refused(tmp_path, capsys):
    for split in ("train", "val"):
        class_folders(tmp_path / "photos" / split)
    assert build(tmp_path / "photos", tmp_path / "out", "--group", "class([0-9])") == ExitCode.BAD_CONFIG
    assert "--group with published splits" in capsys.readouterr().err


def test_one_group_of_everything_is_refused_in_words(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos")
    assert build(photos, tmp_path / "out", "--holdout", 0.2, "--group", "(class)") == ExitCode.BAD_CONFIG
    assert "none of 24 photos can be held out, because each is the only one of a class" in capsys.readouterr().err


def test_a_share_that_groups_do_not_allow_is_refused_with_the_nearest(tmp_path, capsys):
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    rows = "".join(f"{number}.jpg,{number % 2},{'big' if number < 12 else 'small'}\n" for number in range(20))
    (tmp_path / "t.csv").write_text(f"image,n,shop\n{rows}")
    assert build(tmp_path / "t.csv", tmp_path / "out", "--holdout", 0.1, "--group", "shop") == ExitCode.BAD_CONFIG
    error = capsys.readouterr().err
    assert "0.4" in error
    assert "big" in error


def test_a_split_beside_it_without_hashes_is_said(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos")
    assert build(photos, tmp_path / "out", "--split", "test", "--no-near-duplicates") == ExitCode.DONE
    assert build(photos, tmp_path / "out", "--split", "train") == ExitCode.DONE
    assert "near-duplicates across splits are not counted" in capsys.readouterr().out


def test_a_photo_in_two_published_splits_is_said_with_its_labels(tmp_path, capsys):
    for photo, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        (tmp_path / f"{photo}.jpg").write_bytes(jpeg(seed))
    (tmp_path / "t.csv").write_text("image,n,split\na.jpg,x,train\nb.jpg,y,val\nc.jpg,y,train\nd.jpg,x,val\n")
    assert build(tmp_path / "t.csv", tmp_path / "out") == ExitCode.DONE
    said = "1 of 2 val photos has a near-duplicate in train (1 of them equal bytes, 1 with other labels)"
    assert said in capsys.readouterr().out


def test_other_published_splits_are_another_build(tmp_path, capsys):
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "t.csv").write_text("image,n,split\n0.jpg,x,train\n1.jpg,y,train\n2.jpg,x,val\n3.jpg,y,val\n")
    assert build(tmp_path / "t.csv", tmp_path / "out") == ExitCode.DONE
    (tmp_path / "t.csv").write_text("image,n,split\n0.jpg,x,val\n1.jpg,y,train\n2.jpg,x,train\n3.jpg,y,val\n")
    assert build(tmp_path / "t.csv", tmp_path / "out") == ExitCode.BAD_DATA
    assert "holds another build" in capsys.readouterr().err
    assert keys_of(tmp_path / "out") == {"train": {"0", "1"}, "val": {"2", "3"}}
