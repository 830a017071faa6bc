"""A table's name for a photo leads to its sample, or to an error; never to another photo."""

from pathlib import Path

import pytest

from data.build import main as build
from data.errors import DataError
from data.index import Index, load_index
from data.shards.external_tars import index_tars
from data.shards.sample_names import FoundSamples, find_samples
from tests.photos import jpeg, write_tar


def built(root: Path, files: dict[str, bytes], *more: str) -> list[Index]:
    for name, data in files.items():
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    table = root / "photos" / "table.csv"
    table.write_text("image,kind\n" + "".join(f"{name},x\n" for name in files))
    assert build(["--source", f"manifest:{table}", "--out", str(root / "out"), "--workers", "1", *more]) == 0
    return [load_index(path.parent) for path in sorted((root / "out").glob("*/index.json"))]


def keys(names: list[str], indices: list[Index]) -> dict[str, str]:
    """name -> the key that it leads to."""
    found: FoundSamples = find_samples(names, indices)
    return {
        name: indices[place.split].load_shard(place.shard).key(place.sample) for name, place in found.places.items()
    }


def png() -> bytes:
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1])


def test_dots_backslashes_and_folders(tmp_path):
    indices = built(tmp_path, {"a/1.b.jpg": jpeg(1), "a/2.jpg": jpeg(2), "c/3": jpeg(3)})
    names = ["a/1.b.jpg", ".\\a\\2.jpg", "a/2.jpeg", "c/3", "a/1_b"]
    assert keys(names, indices) == dict(zip(names, ["a/1_b", "a/2", "a/2", "c/3", "a/1_b"], strict=True))


def test_a_folder_that_all_names_or_all_keys_share(tmp_path):
    indices = built(tmp_path, {"photos/a/1.jpg": jpeg(1), "photos/b/1.jpg": jpeg(2)})
    found = find_samples(["a/1.jpg", "b/1.jpg"], indices)
    assert len(set(found.places.values())) == 2
    assert found.note == "the photos' names are read within the folder 'photos'"
    assert keys(["/x/y/a/1.jpg", "/x/y/b/1.jpg"], indices)["/x/y/b/1.jpg"] == "photos/b/1"
    assert find_samples(["photos/a/1.jpg"], indices).note == ""


def test_two_photos_of_one_name_are_told_apart_or_refused(tmp_path):
    indices = built(tmp_path, {"x.jpg": jpeg(1), "x.png": png(), "y.jpg": jpeg(3), "y.jpeg": jpeg(4)})
    assert keys(["x.jpg", "x.png", "x_2"], indices) == {"x.jpg": "x", "x.png": "x_2", "x_2": "x_2"}
    with pytest.raises(DataError, match=r"'y\.jpg' may be 'y' \(.*000000\.tar\) or 'y_2' \(.*: write the sample's key"):
        find_samples(["y.jpg"], indices)
    assert keys(["y", "y_2"], indices) == {"y": "y", "y_2": "y_2"}


def test_one_key_in_two_splits_is_refused(tmp_path):
    indices = []
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        tar = write_tar(tmp_path / split / "0.tar", [("a.jpg", jpeg(1)), ("a.cls", b"0"), ("a_2.jpg", jpeg(2))])
        index_tars([tar], tasks=None, cls_task="class")
        indices.append(load_index(tmp_path / split))
    with pytest.raises(DataError, match=r"'a' may be 'a' \(.*/train/0\.tar\) or 'a' \(.*/val/0\.tar\)"):
        find_samples(["a"], indices)
    assert keys(["a.jpg"], indices[:1]) == {"a.jpg": "a"}, "other tools number photos as they like"


def test_a_photo_that_was_left_out_is_told_from_one_that_was_never_there(tmp_path):
    indices = built(tmp_path, {"a.jpg": jpeg(1), "b.c.jpg": b"no photo"})
    with pytest.raises(
        DataError, match=r"is called 'b\.c\.jpg' \(left out as bad: .*\), 'b\.jpg'; nothing was changed"
    ):
        find_samples(["a.jpg", "b.c.jpg", "b.jpg"], indices)


def test_a_dot_does_not_lead_to_another_photo(tmp_path):
    """`a.b.jpg` was left out; `a.jpg` is there."""
    indices = built(tmp_path, {"a.jpg": jpeg(1), "a.b.jpg": b"no photo"})
    with pytest.raises(DataError, match=r"is called 'a\.b\.jpg'"):
        find_samples(["a.b.jpg"], indices)
