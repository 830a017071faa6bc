"""Which photos of a source belong together before it is split: the same shots, and files of equal bytes."""

import io
from pathlib import Path

import numpy as np
import pytest

from data.shards import photo_links
from data.shards.photo_links import equal_files, hash_photos, near_duplicate_links
from data.sources import Record, Source
from data.sources.source import make_keys
from tests.photos import natural_photo


def photo(seed: int, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    natural_photo(seed, 120, 160).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def source_of(folder: Path, files: dict[str, bytes | None]) -> Source:
    """Files in the order given; None is listed, but not there."""
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    keys = make_keys(list(files))
    return Source({}, [Record(key, (), "", str(folder / name)) for key, name in zip(keys, files, strict=True)])


def links_of(source: Source) -> list[list[int]]:
    return sorted(equal_files(source, source.records).tolist())


def test_files_of_equal_bytes_are_linked_to_the_first_of_them(tmp_path):
    large = bytes(range(256)) * 100
    changed = bytearray(large)
    changed[5000] ^= 1  # where none of the three samples lies
    source = source_of(
        tmp_path,
        {
            "a.jpg": b"one",
            "b.jpg": b"two",
            "c.jpg": b"one",
            "d.jpg": large,
            "e.jpg": bytes(changed),
            "f.jpg": large,
            "g.jpg": None,
            "h.jpg": b"one",
            "i.jpg": b"longer",
            "j.jpg": None,
        },
    )
    assert links_of(source) == [[0, 2], [0, 7], [3, 5]]
    assert equal_files(source, []).shape == (0, 2)


def test_only_files_whose_size_and_samples_are_equal_are_read_in_full(tmp_path, monkeypatch):
    read: list[str] = []
    whole = photo_links._bytes
    monkeypatch.setattr(photo_links, "_bytes", lambda path: read.append(Path(path).name) or whole(path))
    start, end = bytes(20_000), bytes(19_999)
    files = {"a": start, "b": start, "c": b"x" + end, "d": bytes(30_000), "e": end + b"x"}
    assert links_of(source_of(tmp_path, files)) == [[0, 1]]
    assert sorted(read) == ["a", "b"]


def test_equal_rows_of_an_array_are_linked():
    arrays = np.zeros((4, 8, 8), np.uint8)
    arrays[1] = 3
    arrays[3] = 3
    source = Source({}, [Record(str(row), (), "", row) for row in range(4)], arrays=arrays)
    assert links_of(source) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("workers", [1, 2])
def test_photos_are_hashed_in_order_and_bad_ones_have_no_structure(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_links, "_JOB", 2)
    files = {"a.jpg": photo(1), "b.jpg": b"broken", "c.jpg": photo(2), "d.jpg": photo(1, quality=60), "e.jpg": None}
    source = source_of(tmp_path, files)
    hashes = hash_photos(source, source.records, workers=workers)
    assert hashes.structured.tolist() == [True, False, True, True, False]
    assert np.bitwise_count(hashes.hash[0] ^ hashes.hash[3]) <= 4 < np.bitwise_count(hashes.hash[0] ^ hashes.hash[2])


def test_links_join_the_same_shots_and_equal_bytes_even_of_what_does_not_decode(tmp_path):
    files = {
        "a.jpg": photo(1),
        "b.jpg": b"broken",
        "c.jpg": photo(2),
        "d.jpg": photo(1, quality=60),
        "e.jpg": b"broken",
    }
    source = source_of(tmp_path, files)
    assert near_duplicate_links(source, source.records, workers=1).tolist() == [[0, 3], [1, 4]]


def test_rows_of_arrays_are_hashed_as_they_are():
    arrays = np.stack([np.asarray(natural_photo(seed, 32, 32)) for seed in (1, 2, 1)])
    source = Source({}, [Record(str(row), (), "", row) for row in (2, 1, 0)], arrays=arrays)
    assert near_duplicate_links(source, source.records, workers=1).tolist() == [[0, 2], [0, 2]]
