"""`data.verify` and training agree about a damaged shard folder, kind of damage by kind of damage."""

import io
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from data.bad_samples import ALLOWED_SHARE, most_allowed
from data.errors import DataError
from data.files import sha256_of
from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import Shard, ShardIndex, load_index, pack_keys, shard_index_to_bytes, write_index
from data.loading.loader import Loader
from data.sampling.sampler import EvalSampler
from data.shards.external_tars import index_tars
from data.verify import main as verify
from launch.exit_codes import ExitCode
from tests.photos import jpeg, write_tar
from train.config.schema import DataConfig

CLASSES = {"class": ("cat", "dog"), "tone": ("dark", "bright")}
COUNT = 6  # samples of a shard


def members(shard: int) -> list[tuple[str, bytes]]:
    return [
        part
        for number in range(COUNT)
        for part in (
            (f"{shard}-{number}.jpg", jpeg(10 * shard + number)),
            (f"{shard}-{number}.json", b'{"class": "%s", "tone": "dark"}' % (b"cat", b"dog")[number % 2]),
        )
    ]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "train"
    folder.mkdir()
    tars = [write_tar(folder / f"{shard}.tar", members(shard)) for shard in range(2)]
    index_tars(tars, tasks=CLASSES, cls_task="class")
    return folder


def training_refuses(folder: Path) -> bool:
    """Whether the index does not load, a sample is bad that the index does not know, or too many are that it does."""
    try:
        index = load_index(folder)
        known = sum(len(index.load_shard(number).bad) for number in range(len(index.shards)))
        order = EvalSampler(index.counts, batch_size=5, num_ranks=1)
        pixels = ImageTransform(
            size=24, operations=POLICIES["mild"], max_pixels=DataConfig.model_fields["max_pixels"].default
        )
        bad = [record for batch in Loader(index, order, pixels).batches() for record in batch.bad]
    except DataError:
        return True
    return len(bad) > known or len(bad) > most_allowed(index.num_samples, ALLOWED_SHARE)


def verify_refuses(folder: Path) -> bool:
    code = verify([str(folder), "--jobs", "1"])
    assert code in (ExitCode.DONE, ExitCode.BAD_DATA)
    return code == ExitCode.BAD_DATA


# -- damage ----------------------------------------------------------------------------------------------------------


def change_bytes(name: str, change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        change(data)
        (folder / name).write_bytes(data)

    return damage


def flip(position: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[position] ^= 1

    return change


def swap(one: str, other: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / one).replace(folder / "kept")
        (folder / other).replace(folder / one)
        (folder / "kept").replace(folder / other)

    return damage


def delete(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def rewrite_rows(change: Callable[[ShardIndex], ShardIndex]) -> Callable[[Path], None]:
    """Other rows of the first shard, with an index.json that was written for them."""

    def damage(folder: Path) -> None:
        index = load_index(folder)
        data = shard_index_to_bytes(change(index.load_shard(0)))
        (folder / "0.idx").write_bytes(data)
        write_shards(folder, idx_crc32c=google_crc32c.value(data))

    return damage


def write_shards(folder: Path, **changes: Any) -> None:
    """index.json with other values of the first shard."""
    index = load_index(folder)
    write_index(folder, tasks=index.tasks, shards=[replace(index.shards[0], **changes), *index.shards[1:]])


def other_counts(folder: Path) -> None:
    write_shards(folder, count=COUNT + 1)


def shorter(name: str) -> Callable[[ShardIndex], ShardIndex]:
    return lambda rows: replace(rows, **{name: getattr(rows, name)[:-1]})


def label(value: int) -> Callable[[ShardIndex], ShardIndex]:
    def change(rows: ShardIndex) -> ShardIndex:
        labels = rows.labels.copy()
        labels[3, 1] = value
        return replace(rows, labels=labels)

    return change


def far_away(rows: ShardIndex) -> ShardIndex:
    offset = rows.offset.copy()
    offset[2] = 10**9
    return replace(rows, offset=offset)


def wrong_dtype(folder: Path) -> None:
    tensors = safetensors.numpy.load((folder / "0.idx").read_bytes())
    tensors["labels"] = tensors["labels"].astype(np.float32)
    data = safetensors.numpy.save(tensors, metadata={"bad": "{}"})
    (folder / "0.idx").write_bytes(data)
    write_shards(folder, idx_crc32c=google_crc32c.value(data))


def stale(folder: Path) -> None:
    write_tar(folder / "0.tar", [(name, jpeg(99) if name.endswith("jpg") else data) for name, data in members(0)])


def index_as_it_is(folder: Path, images: Sequence[bytes]) -> None:
    """A tar whose index says nothing of what is wrong with its images, as one that never decoded them."""
    parts = [(f"{number}.jpg", data) for number, data in enumerate(images)]
    labelled = [part for name, data in parts for part in ((name, data), (name.replace("jpg", "cls"), b"cat"))]
    path = write_tar(folder / "0.tar", labelled)
    content = path.read_bytes()
    found = [content.index(data) for data in images]
    rows = ShardIndex(
        np.array(found, np.int64),
        np.array([len(data) for data in images], np.int32),
        np.array([google_crc32c.value(data) for data in images], np.uint32),
        np.array([[0, -1]] * len(images), np.int32),
        *pack_keys([name.removesuffix(".jpg") for name, _ in parts]),
    )
    data = shard_index_to_bytes(rows)
    (folder / "0.idx").write_bytes(data)
    shard = Shard("0.tar", len(images), len(content), sha256_of(path), google_crc32c.value(data))
    write_index(folder, tasks=CLASSES, shards=[shard, load_index(folder).shards[1]])


def undecodable(folder: Path) -> None:
    index_as_it_is(folder, [jpeg(1), jpeg(2)[:-40], jpeg(3)])


def too_large(folder: Path) -> None:
    """One that says so in its header."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", 8_100, 8_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    index_as_it_is(folder, [jpeg(1), bytes(data)])


def many_bad(folder: Path) -> None:
    """More than training allows, and the index knows them all."""
    bad = [(f"bad{number}.jpg", b"no picture %d" % number) for number in range(11)]
    path = write_tar(folder / "2.tar", bad + members(2))
    index_tars([folder / "0.tar", folder / "1.tar", path], tasks=CLASSES, cls_task="class")


def duplicate_keys(folder: Path) -> None:
    """The index is of before the second image came under the same key."""
    write_tar(folder / "0.tar", [(name, data) for name, data in [("0-0.png", jpeg(77)), *members(0)]])


def no_shards(folder: Path) -> None:
    (folder / "index.json").write_text(
        '{"format": "slimheads-index/1", "tasks": {"class": ["cat"]}, '
        '"shards": {"name": [], "count": [], "bytes": [], "sha256": [], "idx_crc32c": []}}'
    )


def rename_class(folder: Path) -> None:
    path = folder / "index.json"
    path.write_bytes(path.read_bytes().replace(b'"cat"', b'"cau"'))


BOTH = {
    "truncated shard": change_bytes("0.tar", lambda data: data.__delitem__(slice(3000, None))),
    "flipped byte in an image": change_bytes("0.tar", flip(700)),
    "missing shard": delete("0.tar"),
    "empty shard": change_bytes("0.tar", bytearray.clear),
    "swapped shards": swap("0.tar", "1.tar"),
    "index of another shard": lambda folder: shutil.copy(folder / "1.idx", folder / "0.idx"),
    "swapped indexes": swap("0.idx", "1.idx"),
    "truncated .idx": change_bytes("0.idx", lambda data: data.__delitem__(slice(-9, None))),
    "flipped byte in .idx": change_bytes("0.idx", flip(-3)),
    "missing .idx": delete("0.idx"),
    "truncated index.json": change_bytes("index.json", lambda data: data.__delitem__(slice(60, None))),
    "missing index.json": delete("index.json"),
    "no shards": no_shards,
    "class renamed by a flipped bit": rename_class,
    "counts are wrong": other_counts,
    "wrong checksum of .idx": lambda folder: write_shards(folder, idx_crc32c=7),
    "label out of range": rewrite_rows(label(2)),
    "label below missing": rewrite_rows(label(-2)),
    "offset beyond the end": rewrite_rows(far_away),
    "sizes of too few samples": rewrite_rows(shorter("size")),
    "keys of too few samples": rewrite_rows(shorter("key_bytes")),
    "bad sample that is none": rewrite_rows(lambda rows: replace(rows, bad={99: "x"})),
    "wrong dtype": wrong_dtype,
    "shard rewritten after it was indexed": stale,
    "undecodable image": undecodable,
    "image too large": too_large,
    "more bad samples than allowed": many_bad,
    "second image under a key": duplicate_keys,
}
# What training never reads, or what costs it nothing: the images lie where the index says, with their bytes.
VERIFY_ALONE = {
    "flipped byte in a header": change_bytes("0.tar", flip(3)),
    "flipped byte in a label member": change_bytes("0.tar", lambda data: flip(data.index(b'"dark"') + 1)(data)),
    "wrong hash of the shard": lambda folder: write_shards(folder, sha256="0" * 64),
    "shard that is not indexed": lambda folder: shutil.copy(folder / "0.tar", folder / "9.tar"),
    ".idx without a shard": lambda folder: shutil.copy(folder / "0.idx", folder / "9.idx"),
    "label that the tar does not have": rewrite_rows(label(1)),
    "key that the tar does not have": rewrite_rows(
        lambda rows: replace(rows, key_bytes=np.frombuffer(rows.key_bytes.tobytes().replace(b"0-3", b"0-7"), np.uint8))
    ),
}


def test_a_good_folder_is_good_to_both(good: Path) -> None:
    assert not training_refuses(good)
    assert not verify_refuses(good)


@pytest.mark.parametrize("kind", [*BOTH, *VERIFY_ALONE])
def test_what_training_calls_bad_verify_calls_bad(kind: str, good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "train"))
    {**BOTH, **VERIFY_ALONE}[kind](folder)
    assert training_refuses(folder) == (kind in BOTH)
    assert verify_refuses(folder)


def test_bad_samples_that_the_index_knows_are_good_to_both_while_they_are_few(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "train"))
    path = write_tar(folder / "2.tar", [("bad.jpg", b"no picture"), *members(2)])
    index_tars([folder / "0.tar", folder / "1.tar", path], tasks=CLASSES, cls_task="class")
    assert not training_refuses(folder)
    assert not verify_refuses(folder)
    assert "note: " in capsys.readouterr().out


def test_limits_are_those_of_the_run(good: Path, tmp_path: Path) -> None:
    assert DataConfig.model_fields["max_bad_share"].default == ALLOWED_SHARE
    folder = Path(shutil.copytree(good, tmp_path / "train"))
    many_bad(folder)
    assert verify([str(folder), "--jobs", "1", "--max-bad", "0.5"]) == ExitCode.DONE
    assert verify([str(good), "--jobs", "1", "--max-pixels", "767"]) == ExitCode.BAD_DATA  # photos of 24 x 32
    assert verify([str(good), "--jobs", "1", "--max-pixels", "768"]) == ExitCode.DONE


def test_splits_whose_classes_training_cannot_know_are_named(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        shutil.copytree(good, tmp_path / split)
    assert verify([str(tmp_path), "--jobs", "1"]) == ExitCode.DONE
    index = load_index(tmp_path / "val")
    write_index(tmp_path / "val", tasks={**index.tasks, "class": ("cat", "wolf")}, shards=index.shards)
    capsys.readouterr()
    assert verify([str(tmp_path), "--jobs", "1"]) == ExitCode.BAD_DATA
    assert "task 'class' has classes that" in capsys.readouterr().out
