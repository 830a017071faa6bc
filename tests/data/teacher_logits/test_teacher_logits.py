"""The teacher cache's files: what is written is read back, what is damaged or of something else is refused in words."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import DataError
from data.images.augment import POLICIES
from data.images.transform import PIXEL_VERSION
from data.index import Index, Shard
from data.sampling.sampler import Run, ShardSampler, WorkerInfo
from data.shards.range_cache import RangeCache
from data.teacher_logits import (
    MANIFEST_NAME,
    CachedShard,
    LogitManifest,
    LogitReader,
    SidecarWriter,
    TeacherSource,
    cached_shards,
    check_manifest,
    load_manifest,
    write_manifest,
)
from tests.range_server import serve

TASKS = {"colour": ("red", "green", "blue"), "tone": ("dark", "bright")}
COUNTS = {"0.tar": 7, "1.tar": 4, "2.tar": 9}
CLASSES, VIEWS, RECORD = 5, 3, 2 * 5 + 4
INDEX = Index(
    "shards/train",
    TASKS,
    tuple(Shard(name, count, 100 * count, f"hash of {name}", 0) for name, count in COUNTS.items()),
)
SOURCE = TeacherSource("runs/teacher/best", "ab" * 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MANIFEST = LogitManifest(
    tasks=TASKS,
    teachers={"colour": SOURCE, "tone": dataclasses.replace(SOURCE, path="runs/tone/best", sha256="cd" * 32)},
    precision="bf16",
    image_size=224,
    operations=POLICIES["strong"],
    augment_seed=0,
    max_pixels=64_000_000,
    shards=cached_shards(INDEX),
    views=VIEWS,
    non_finite=(0, 2, 0),
    non_finite_samples=(("0.tar", "photo 3", "the image does not decode"), ("2.tar", "ä", "no finite logits")),
)


def logits_of(shard: int, view: int) -> np.ndarray:
    """float16 [count, 5], another in every shard and view."""
    count = INDEX.shards[shard].count
    return np.random.default_rng([shard, view]).normal(size=(count, CLASSES)).astype(np.float16)


def writer_of(root: Path, shard: int) -> SidecarWriter:
    info = INDEX.shards[shard]
    return SidecarWriter(root, shard_name=info.name, num_samples=info.count, num_classes=CLASSES)


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """Three shards with three views each."""
    for shard in range(len(COUNTS)):
        writer = writer_of(tmp_path, shard)
        for view in range(VIEWS):
            writer.append(logits_of(shard, view))
    write_manifest(tmp_path, MANIFEST)
    return tmp_path


def every_entry(num_views: int = VIEWS) -> list[tuple[int, int, int]]:
    return [
        (shard, sample, view)
        for shard, count in enumerate(COUNTS.values())
        for sample in range(count)
        for view in range(num_views)
    ]


def test_every_logit_is_read_as_it_was_written(cached: Path) -> None:
    reader = LogitReader(str(cached), INDEX, num_views=VIEWS, cache=None)
    for shard, sample, view in every_entry():
        row = reader.read(shard, sample, view)
        assert row.dtype == np.float16
        np.testing.assert_array_equal(row, logits_of(shard, view)[sample])


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    logits = logits_of(0, 0)
    logits[2], logits[3, 1], logits[4, 0] = np.nan, np.inf, -np.inf
    writer_of(tmp_path, 0).append(logits)
    only_first = Index("shards/train", TASKS, INDEX.shards[:1])
    write_manifest(tmp_path, dataclasses.replace(MANIFEST, views=1))
    reader = LogitReader(str(tmp_path), only_first, num_views=1, cache=None)
    for sample in range(7):
        np.testing.assert_array_equal(reader.read(0, sample, 0), logits[sample])


def test_a_sample_and_view_costs_two_bytes_a_class_and_four_more(cached: Path) -> None:
    for name, count in COUNTS.items():
        size = (cached / name.replace(".tar", ".logits")).stat().st_size
        assert size == count * VIEWS * (2 * CLASSES + 4)


def test_fewer_views_than_cached_may_be_used(cached: Path) -> None:
    reader = LogitReader(str(cached), INDEX, num_views=2, cache=None)
    for shard, sample, view in every_entry(2):
        np.testing.assert_array_equal(reader.read(shard, sample, view), logits_of(shard, view)[sample])


@pytest.mark.parametrize("asked", [0, VIEWS + 1])
def test_more_views_than_cached_are_refused_with_both_numbers(asked: int, cached: Path) -> None:
    with pytest.raises(DataError, match=rf"{asked} views are asked for, {VIEWS} are cached.*train.cache_teacher"):
        LogitReader(str(cached), INDEX, num_views=asked, cache=None)


def test_a_view_that_is_being_added_does_not_disturb_readers(cached: Path) -> None:
    with (cached / "1.logits").open("ab") as file:
        file.write(b"the beginning of the next view")
    reader = LogitReader(str(cached), INDEX, num_views=VIEWS, cache=None)
    np.testing.assert_array_equal(reader.read(1, 3, 2), logits_of(1, 2)[3])


def test_a_truncated_or_missing_file_is_named_before_anything_is_read(cached: Path) -> None:
    path = cached / "1.logits"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"1\.logits: has 167 of 168 bytes \(truncated\?\); .*completes the cache"):
        LogitReader(str(cached), INDEX, num_views=VIEWS, cache=None)
    path.unlink()
    with pytest.raises(DataError, match=r"1\.logits: is missing; .*completes the cache"):
        LogitReader(str(cached), INDEX, num_views=VIEWS, cache=None)


def test_a_file_that_shrinks_after_the_start_is_named(cached: Path) -> None:
    reader = LogitReader(str(cached), INDEX, num_views=VIEWS, cache=None)
    (cached / "2.logits").write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.logits: has 0 of 378 bytes"):
        reader.read(2, 0, 0)


@pytest.mark.parametrize("byte", [0, 2 * CLASSES - 1, 2 * CLASSES, RECORD - 1], ids=str)
def test_one_wrong_byte_is_found_and_its_sample_and_view_named(byte: int, cached: Path) -> None:
    path = cached / "2.logits"
    damaged = bytearray(path.read_bytes())
    damaged[(1 * 9 + 5) * RECORD + byte] ^= 1  # view 1, sample 5
    path.write_bytes(damaged)
    reader = LogitReader(str(cached), INDEX, num_views=VIEWS, cache=None)
    with pytest.raises(DataError, match=r"2\.logits: the logits of sample 5, view 1, are damaged \(crc32c\)"):
        reader.read(2, 5, 1)
    for shard, sample, view in every_entry():
        if (shard, sample, view) != (2, 5, 1):
            np.testing.assert_array_equal(reader.read(shard, sample, view), logits_of(shard, view)[sample])


def test_data_that_was_written_anew_is_refused(cached: Path) -> None:
    for change in ({"sha256": "another"}, {"name": "3.tar"}, {"count": 10}):
        shards = (*INDEX.shards[:2], dataclasses.replace(INDEX.shards[2], **change))
        with pytest.raises(DataError, match=r"holds no logits of shard [23]\.tar as it is in shards/train"):
            LogitReader(str(cached), Index("shards/train", TASKS, shards), num_views=1, cache=None)


def test_a_shard_that_the_cache_knows_by_another_number_is_found_by_name(cached: Path) -> None:
    fewer = Index("shards/train", TASKS, INDEX.shards[1:])
    reader = LogitReader(str(cached), fewer, num_views=VIEWS, cache=None)
    np.testing.assert_array_equal(reader.read(1, 8, 2), logits_of(2, 2)[8])


@pytest.mark.parametrize("torn", [1, RECORD, 7 * RECORD - 1])
def test_a_torn_tail_is_cut_and_the_view_written_again(torn: int, tmp_path: Path) -> None:
    """A kill in the middle of a write leaves the beginning of a block."""
    writer = writer_of(tmp_path, 0)
    for view in range(VIEWS):
        writer.append(logits_of(0, view))
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[: 2 * 7 * RECORD + torn])
    again = writer_of(tmp_path, 0)
    assert (again.num_views, again.cut_bytes) == (2, torn)
    again.append(logits_of(0, 2))
    assert writer.path.read_bytes() == whole


def test_a_last_view_with_a_wrong_checksum_is_written_again(tmp_path: Path) -> None:
    """A crash of the machine may leave a file of the right length with bytes that were never written."""
    writer = writer_of(tmp_path, 0)
    for view in range(VIEWS):
        writer.append(logits_of(0, view))
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[: -3 * RECORD] + bytes(3 * RECORD))
    again = writer_of(tmp_path, 0)
    assert (again.num_views, again.cut_bytes) == (2, 7 * RECORD)
    again.append(logits_of(0, 2))
    assert writer.path.read_bytes() == whole


def test_an_undamaged_file_is_left_alone(tmp_path: Path) -> None:
    assert writer_of(tmp_path, 1).num_views == 0
    writer_of(tmp_path, 1).append(logits_of(1, 0))
    again = writer_of(tmp_path, 1)
    assert (again.num_views, again.cut_bytes) == (1, 0)
    np.testing.assert_array_equal(again.read(0), logits_of(1, 0))


@pytest.mark.parametrize("wrong", [logits_of(0, 0)[:6], logits_of(0, 0)[:, :4], logits_of(0, 0).astype(np.float32)])
def test_a_block_of_another_shape_or_type_is_not_written(wrong: np.ndarray, tmp_path: Path) -> None:
    writer = writer_of(tmp_path, 0)
    with pytest.raises(ValueError, match=r"0\.logits: a view is float16 \[7, 5\], not float"):
        writer.append(wrong)
    assert not writer.path.exists()


def test_the_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert load_manifest(str(tmp_path)) == MANIFEST
    check_manifest(load_manifest(str(tmp_path)), dataclasses.replace(MANIFEST, views=0, non_finite=()), root="x")
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


def test_a_manifest_that_names_no_pixels_is_of_the_first(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, MANIFEST)
    content = json.loads(path.read_text())
    assert content.pop("pixel_version") == PIXEL_VERSION
    del content["checksum"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"saw photos of pixel version 1, this Slimheads .* version 2; .*cache anew"):
        check_manifest(load_manifest(str(tmp_path)), MANIFEST, root="shards/teacher")


def test_another_path_of_the_same_weights_is_the_same_teacher(tmp_path: Path) -> None:
    moved = {task: dataclasses.replace(source, path="elsewhere") for task, source in MANIFEST.teachers.items()}
    check_manifest(MANIFEST, dataclasses.replace(MANIFEST, teachers=moved), root="x")


def teachers_with(**changes: Any) -> dict[str, TeacherSource]:
    return {**MANIFEST.teachers, "tone": dataclasses.replace(MANIFEST.teachers["tone"], **changes)}


def shards_with(**changes: Any) -> tuple[CachedShard, ...]:
    return (*MANIFEST.shards[:2], dataclasses.replace(MANIFEST.shards[2], **changes))


OTHER = {
    "tasks": ({"tasks": {"tone": TASKS["tone"]}}, ["tasks colour, tone", "the teacher's are tone"]),
    "order of tasks": ({"tasks": dict(reversed(TASKS.items()))}, ["tasks colour, tone", "are tone, colour"]),
    "classes": (
        {"tasks": {**TASKS, "tone": ("bright", "dark")}},
        ["task 'tone'", "classes dark, bright", "the teacher has bright, dark"],
    ),
    "weights": (
        {"teachers": teachers_with(sha256="ef" * 32)},
        ["task 'tone'", "another teacher", "cdcdcdcdcdcd (runs/tone/best)", "efefefefefef"],
    ),
    "mean": (
        {"teachers": teachers_with(mean=(0.5, 0.5, 0.5))},
        ["'tone'", "preprocessing", "0.456", "(0.5, 0.5, 0.5)"],
    ),
    "std": ({"teachers": teachers_with(std=(0.5, 0.5, 0.5))}, ["'tone'", "preprocessing", "0.224", "(0.5, 0.5, 0.5)"]),
    "image size": ({"image_size": 256}, ["image size", "224", "256"]),
    "precision": ({"precision": "fp32"}, ["precision", "bf16", "fp32"]),
    "seed": ({"augment_seed": 7}, ["augment.seed", "0", "7"]),
    "pixels": ({"pixel_version": 99}, ["pixel version", "2", "99"]),
    "max_pixels": ({"max_pixels": 5}, ["data.max_pixels", "64000000", "5"]),
    **{
        f"augment.{field.name}": (
            {"operations": dataclasses.replace(POLICIES["strong"], **{field.name: (0.7, 0.9)})},
            [f"augment.{field.name}", str(getattr(POLICIES["strong"], field.name)), "(0.7, 0.9)"],
        )
        for field in dataclasses.fields(POLICIES["strong"])
    },
    "hash of a shard": ({"shards": shards_with(sha256="new")}, ["2.tar", "another than the cached one", "new"]),
    "count of a shard": ({"shards": shards_with(count=10)}, ["2.tar", "had 9 samples", "now 10"]),
    "name of a shard": ({"shards": shards_with(name="3.tar")}, ["has shard 2.tar", "data has 3.tar"]),
    "fewer shards": ({"shards": MANIFEST.shards[:2]}, ["the cache has shard 2.tar, the data has not"]),
    "more shards": (
        {"shards": (*MANIFEST.shards, CachedShard("3.tar", 1, "x"))},
        ["3.tar is not in the cache", "3 of 4"],
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_cache_of_something_else_is_refused_with_the_reason_and_the_fix(name: str) -> None:
    changes, words = OTHER[name]
    with pytest.raises(DataError) as caught:
        check_manifest(MANIFEST, dataclasses.replace(MANIFEST, **changes), root="shards/teacher")
    message = str(caught.value)
    assert message.startswith("shards/teacher: ")
    assert message.endswith("set it back, or cache anew (python -m train.cache_teacher) into another folder")
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not the manifest of a teacher cache"),
        ("[]", "is not the manifest of a teacher cache"),
        ('{"format": "slimheads-index/1"}', "has format 'slimheads-index/1', this version reads 'slimheads-logits/1'"),
        ('{"format": "slimheads-logits/1", "tasks": {}}', "is not the manifest of a teacher cache"),
    ],
)
def test_a_manifest_that_is_none_is_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        load_manifest(str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / MANIFEST_NAME))


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*make one with python -m train\.cache_teacher"):
        load_manifest(str(tmp_path))


def test_remote_logits_come_through_the_cache_of_ranges(cached: Path, tmp_path: Path) -> None:
    with serve(cached) as server:
        ranges = RangeCache(tmp_path / "ranges", max_bytes=10**9)
        reader = LogitReader(server.url, INDEX, num_views=VIEWS, cache=ranges)
        for shard, sample, view in every_entry():
            np.testing.assert_array_equal(reader.read(shard, sample, view), logits_of(shard, view)[sample])
        num_requests = server.num_requests
        for shard, sample, view in every_entry():
            reader.read(shard, sample, view)
        assert server.num_requests == num_requests  # from disk
        ranges.close()


def test_announced_remote_logits_are_there_before_they_are_asked_for(cached: Path, tmp_path: Path) -> None:
    with serve(cached) as server:
        ranges = RangeCache(tmp_path / "ranges", max_bytes=10**9)
        reader = LogitReader(server.url, INDEX, num_views=VIEWS, cache=ranges)
        reader.prefetch([Run(0, 2, 5), Run(2, 0, 9)], view=1)
        deadline = time.monotonic() + 20
        while server.num_requests < 3 and time.monotonic() < deadline:  # the manifest and a page of either file
            time.sleep(0.01)
        for shard, sample in ((0, 2), (0, 4), (2, 0), (2, 8)):
            np.testing.assert_array_equal(reader.read(shard, sample, 1), logits_of(shard, 1)[sample])
        assert server.num_requests == 3
        ranges.close()


def test_remote_logits_that_were_cached_anew_are_not_taken_from_the_old_ranges(cached: Path, tmp_path: Path) -> None:
    with serve(cached) as server:
        ranges = RangeCache(tmp_path / "ranges", max_bytes=10**9)
        assert LogitReader(server.url, INDEX, num_views=VIEWS, cache=ranges).read(0, 0, 0) is not None
        (cached / "0.logits").unlink()
        for view in range(VIEWS):
            writer_of(cached, 0).append(logits_of(0, view) + np.float16(1))
        write_manifest(cached, dataclasses.replace(MANIFEST, augment_seed=1))
        row = LogitReader(server.url, INDEX, num_views=VIEWS, cache=ranges).read(0, 0, 0)
        np.testing.assert_array_equal(row, logits_of(0, 0)[0] + np.float16(1))
        ranges.close()


def test_a_damaged_copy_of_remote_logits_is_fetched_again_and_a_damaged_original_named(
    cached: Path, tmp_path: Path
) -> None:
    with serve(cached) as server:
        ranges = RangeCache(tmp_path / "ranges", max_bytes=10**9)
        reader = LogitReader(server.url, INDEX, num_views=VIEWS, cache=ranges)
        reader.read(0, 0, 0)
        (copy,) = (tmp_path / "ranges").glob("*.bin")
        with copy.open("r+b") as file:
            file.write(b"\xff" * RECORD)
        np.testing.assert_array_equal(reader.read(0, 0, 0), logits_of(0, 0)[0])
        (cached / "1.logits").write_bytes(bytes((cached / "1.logits").stat().st_size - 1) + b"\1")
        with pytest.raises(DataError, match=r"1\.logits: the logits of sample 3, view 2, are damaged"):
            reader.read(1, 3, 2)
        (cached / "2.logits").unlink()
        with pytest.raises(DataError, match=r"2\.logits is missing"):
            reader.read(2, 0, 0)
        ranges.close()


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_a_walk_has_every_sample_of_its_shards_once_and_no_batch_over_two_shards(num_workers: int) -> None:
    sampler = ShardSampler(INDEX.counts, shards=[2, 0], batch_size=4)
    met = []
    for step in range(sampler.steps_per_epoch):
        parts = [sampler.rows(1, step, WorkerInfo(0, 1, worker, num_workers)) for worker in range(num_workers)]
        rows = sorted(
            (row, s, n) for part in parts for row, s, n in zip(part.row, part.shard, part.sample, strict=True)
        )
        assert [row for row, _, _ in rows] == list(range(len(rows)))
        assert len({shard for _, shard, _ in rows}) == 1
        assert sampler.span(step) == (rows[0][1], rows[0][2], rows[-1][2] + 1)
        met += [(int(shard), int(sample)) for _, shard, sample in rows]
    assert met == [(shard, sample) for shard in (2, 0) for sample in range(INDEX.shards[shard].count)]


def test_a_shard_has_the_same_batches_whatever_else_is_walked() -> None:
    def batches(shards: list[int]) -> list[tuple[int, int, int]]:
        sampler = ShardSampler(INDEX.counts, shards=shards, batch_size=4)
        return [span for span in map(sampler.span, range(sampler.steps_per_epoch)) if span[0] == 2]

    assert batches([2]) == batches([0, 1, 2]) == batches([2, 1]) == [(2, 0, 4), (2, 4, 8), (2, 8, 9)]


def measured_microseconds(work: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / count * 1e6


def test_a_row_is_read_in_far_less_time_than_a_photo_is_decoded(cached: Path) -> None:
    reader = LogitReader(str(cached), INDEX, num_views=VIEWS, cache=None)
    entries = every_entry() * 100
    best = min(
        measured_microseconds(lambda: [reader.read(*entry) for entry in entries], len(entries)) for _ in range(5)
    )
    assert best < 20  # alone about 1; a photo takes 300 and more


# -- whose logits they are -------------------------------------------------------------------------------------------

OWNED = MANIFEST.with_identity()


def cache_of(root: Path, manifest: LogitManifest) -> Path:
    root.mkdir()
    write_manifest(root, manifest)  # before the first sidecar, as caching does
    for shard in range(len(COUNTS)):
        writer = writer_of(root, shard)
        for view in range(VIEWS):
            writer.append(logits_of(shard, view))
    return root


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    return cache_of(tmp_path / "owned", OWNED)


def same_counts(index: Index) -> Index:
    """Shards of as many samples each, so that the size of a file says nothing."""
    return Index(index.root, index.tasks, tuple(dataclasses.replace(shard, count=7) for shard in index.shards))


def test_logits_with_an_owner_are_read_as_they_were_written(owned: Path) -> None:
    reader = LogitReader(str(owned), INDEX, num_views=VIEWS, cache=None)
    for shard, sample, view in every_entry():
        np.testing.assert_array_equal(reader.read(shard, sample, view), logits_of(shard, view)[sample])
    again = writer_of(owned, 1)
    assert (again.num_views, again.cut_bytes) == (VIEWS, 0)


def test_a_sidecar_of_another_shard_or_cache_is_refused_at_the_start(tmp_path: Path) -> None:
    index = same_counts(INDEX)
    manifest = dataclasses.replace(MANIFEST, shards=cached_shards(index), non_finite=())
    caches = {}
    other_teacher = dataclasses.replace(manifest, teachers=teachers_with(sha256="ef" * 32))
    for name, one in {"a": manifest, "b": other_teacher}.items():
        (root := tmp_path / name).mkdir()
        write_manifest(root, one.with_identity())
        for shard in index.shards:
            SidecarWriter(root, shard_name=shard.name, num_samples=7, num_classes=CLASSES).append(logits_of(0, 0))
        write_manifest(root, dataclasses.replace(one.with_identity(), views=1))
        caches[name] = root
    kept = (caches["a"] / "1.logits").read_bytes()
    for source in (caches["a"] / "2.logits", caches["b"] / "1.logits"):
        (caches["a"] / "1.logits").write_bytes(source.read_bytes())
        with pytest.raises(
            DataError, match=r"1\.logits: .* damaged .*, or the file is another shard's or cache's; del"
        ):
            LogitReader(str(caches["a"]), index, num_views=1, cache=None)
        writer = SidecarWriter(caches["a"], shard_name="1.tar", num_samples=7, num_classes=CLASSES)
        assert (writer.num_views, writer.cut_bytes) == (0, len(kept)), "caching again must write it anew"
    (caches["a"] / "1.logits").write_bytes(kept)
    LogitReader(str(caches["a"]), index, num_views=1, cache=None)


def test_views_and_samples_that_changed_places_are_damaged(owned: Path) -> None:
    path = owned / "1.logits"
    data = path.read_bytes()
    block = 4 * RECORD
    path.write_bytes(data[:block] + data[2 * block :] + data[block : 2 * block])  # views 0, 2, 1
    reader = LogitReader(str(owned), INDEX, num_views=VIEWS, cache=None)
    reader.read(1, 0, 0)
    with pytest.raises(DataError, match=r"sample 3, view 1, are damaged"):
        reader.read(1, 3, 1)
    path.write_bytes(data[:RECORD] + data[2 * RECORD : 3 * RECORD] + data[RECORD : 2 * RECORD] + data[3 * RECORD :])
    reader = LogitReader(str(owned), INDEX, num_views=VIEWS, cache=None)
    with pytest.raises(DataError, match=r"sample 1, view 0, are damaged"):
        reader.read(1, 1, 0)


def test_a_remote_sidecar_of_another_shard_is_refused_when_it_is_read(owned: Path, tmp_path: Path) -> None:
    (owned / "0.logits").write_bytes((owned / "2.logits").read_bytes()[: 7 * VIEWS * RECORD])
    with serve(owned) as server:
        ranges = RangeCache(tmp_path / "ranges", max_bytes=10**9)
        reader = LogitReader(server.url, INDEX, num_views=VIEWS, cache=ranges)
        with pytest.raises(DataError, match=r"0\.logits: the logits of sample 3, view 2"):
            reader.read(0, 3, 2)
        ranges.close()


def test_the_identity_is_of_what_the_cache_is_made_with() -> None:
    moved = {task: dataclasses.replace(source, path="elsewhere") for task, source in MANIFEST.teachers.items()}
    assert dataclasses.replace(MANIFEST, teachers=moved).with_identity().identity == OWNED.identity
    for name, (changes, _) in OTHER.items():
        assert dataclasses.replace(MANIFEST, **changes).with_identity().identity != OWNED.identity, name


def test_a_damaged_manifest_is_refused(owned: Path) -> None:
    path = owned / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b'"dark"', b'"darj"'))
    with pytest.raises(DataError, match=r"manifest\.json: is damaged, or was changed"):
        load_manifest(str(owned))
