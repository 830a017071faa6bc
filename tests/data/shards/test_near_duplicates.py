"""Near-duplicates across splits are counted, listed and said; what a build remembers of its photos is kept."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from data.build import main as build
from data.errors import DataError
from data.images.photo_hash import thumbnail_of_pixels
from data.index import load_index
from data.shards.near_duplicates import SplitPhotos, across_splits, built_photos
from data.shards.photo_records import digest_of, photos_path, read_photos
from data.shards.writer import ShardJob, WriterSettings, write_shard
from data.sources import Record, Source
from tests.photos import class_folders, natural_photo

TASKS = {"class": ("cat", "dog"), "tone": ("dark", "light")}


def split(name: str, shown: list[int], *, labels: list[tuple[int, int]] | None = None, tasks=TASKS) -> SplitPhotos:
    """Photos of the scenes `shown`; a scene below 0 is blank."""
    thumbnails = [
        thumbnail_of_pixels(np.asarray(natural_photo(scene, 60, 80))) if scene >= 0 else np.full((16, 16), 9, np.uint8)
        for scene in shown
    ]
    keys = [f"{name}/{number}" for number in range(len(shown))]
    digests = [scene if scene in (7, -1) else 1000 * sum(map(ord, name)) + n for n, scene in enumerate(shown)]
    found = np.array(labels if labels is not None else [(0, 0)] * len(shown))
    return SplitPhotos(name, keys, np.stack(thumbnails), np.array(digests).view(np.uint64), found, tasks)


def test_pairs_across_splits_are_counted_and_listed_by_the_later_split(tmp_path):
    train = split("train", [1, 2, 3, 7], labels=[(0, 0), (1, 1), (0, -1), (0, 0)])
    other_order = {"tone": ("light", "dark"), "class": ("dog", "cat")}
    val = split("val", [2, 7, 9, 3, 2], labels=[(1, 0), (1, 1), (0, 0), (0, 0), (0, 1)], tasks=other_order)
    found = across_splits([val, train])
    table = tmp_path / "near_duplicates.csv"
    assert found.sentences(table) == [
        "4 of 5 val photos have a near-duplicate in train (1 of them equal bytes, 3 with other labels), "
        f"listed in {table}"
    ]
    found.write(table)
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert sorted(tuple(row.values()) for row in rows) == [
        ("val", "val/0", "train", "train/1", "0", "tone"),
        ("val", "val/1", "train", "train/3", "0", ""),
        ("val", "val/3", "train", "train/2", "0", "class"),
        ("val", "val/4", "train", "train/1", "0", "class"),
    ]


def test_equal_bytes_count_even_where_photos_are_blank():
    found = across_splits([split("train", [-1, 1]), split("val", [2, -1, -1])])
    assert found.pairs.tolist() == [[3, 0], [4, 0]]
    assert found.equal.all()


def test_every_two_splits_that_share_something_have_a_sentence():
    found = across_splits([split("test", [1, 2]), split("train", [1]), split("extra", [5]), split("val", [2, 1, 6])])
    assert found.sentences(None) == [
        "1 of 3 val photos has a near-duplicate in train (0 of them equal bytes, 0 with other labels)",
        "1 of 2 test photos has a near-duplicate in train (0 of them equal bytes, 0 with other labels)",
        "2 of 2 test photos have a near-duplicate in val (0 of them equal bytes, 0 with other labels)",
    ]


def test_without_any_that_is_said_and_an_older_table_goes(tmp_path):
    found = across_splits([split("train", [1, 2, 2]), split("val", [3])])
    assert found.sentences(None) == ["no photo has a near-duplicate in another split (train, val)"]
    (tmp_path / "table.csv").write_text("old")
    found.write(tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


@pytest.fixture
def photos(tmp_path: Path) -> Source:
    root = class_folders(tmp_path / "photos", classes=2, per_class=3)
    files = sorted(root.rglob("*.jpg"))
    records = [Record(f"{file.parent.name}/{file.stem}", (0,), "", str(file)) for file in files]
    return Source({"class": ("a",)}, records)


def settings_of(folder: Path, source: Source, *, near_duplicates: bool = True) -> WriterSettings:
    (folder / ".build").mkdir(parents=True, exist_ok=True)
    return WriterSettings(folder, source, None, None, 90, 10**6, near_duplicates)


def test_a_shard_remembers_its_photos_and_the_files_they_came_from(tmp_path, photos):
    write_shard(settings_of(tmp_path / "out", photos), ShardJob(4, photos.records[1:5]))
    kept = read_photos(tmp_path / "out", 4)
    assert kept is not None
    assert kept.keys == tuple(record.key for record in photos.records[1:5])
    files = [Path(str(record.image)).read_bytes() for record in photos.records[1:5]]
    assert kept.size.tolist() == [len(data) for data in files]
    assert kept.digest.tolist() == [digest_of(data) for data in files]
    assert len(kept.hashes()) == 4
    assert read_photos(tmp_path / "out", 5) is None


def test_a_shard_whose_photos_are_not_remembered_is_written_again_with_the_same_bytes(tmp_path, photos):
    folder, job = tmp_path / "out", ShardJob(0, photos.records)
    without = write_shard(settings_of(folder, photos, near_duplicates=False), job)
    kept = read_photos(folder, 0)
    assert kept is not None
    assert not kept.has_thumbnails
    assert write_shard(settings_of(folder, photos), job) == without
    kept = read_photos(folder, 0)
    assert kept is not None
    assert kept.has_thumbnails
    written = photos_path(folder, 0).stat().st_mtime_ns
    assert write_shard(settings_of(folder, photos, near_duplicates=False), job) == without
    assert photos_path(folder, 0).stat().st_mtime_ns == written, "it was there and is enough"
    photos_path(folder, 0).unlink()
    assert write_shard(settings_of(folder, photos), job) == without
    assert photos_path(folder, 0).is_file()


def test_a_broken_record_is_named(tmp_path, photos):
    write_shard(settings_of(tmp_path / "out", photos), ShardJob(0, photos.records))
    path = photos_path(tmp_path / "out", 0)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"000000\.photos: does not list photos .*build again"):
        read_photos(tmp_path / "out", 0)


def test_built_splits_are_searched_by_what_was_remembered(tmp_path):
    root = class_folders(tmp_path / "photos" / "train")
    for file in sorted(root.rglob("*.jpg"))[:5]:
        copy = tmp_path / "photos" / "val" / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    arguments = ["--source", f"folder:{tmp_path / 'photos'}", "--out", str(tmp_path / "out"), "--workers", "1"]
    assert build([*arguments, "--samples-per-shard", "7"]) == 0
    splits = [built_photos(name, load_index(tmp_path / "out" / name)) for name in ("train", "val")]
    found = across_splits(splits)
    assert found.sentences(None)[0].startswith("5 of 5 val photos have a near-duplicate in train (5 of them equal")
    assert not found.differing.any()
    photos_path(tmp_path / "out" / "val", 0).unlink()
    with pytest.raises(DataError, match="no hashes of its photos are kept"):
        built_photos("val", load_index(tmp_path / "out" / "val"))
