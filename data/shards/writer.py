"""Writes one shard: the tar, its .idx, and a small record that says it is finished.

Use: `done = write_shard(settings, ShardJob(number=0, records=source.records[:1000]))`

The record is written last, behind what is remembered of the photos (data.shards.photo_records), so a shard either has
one and is whole, or is written again. Whoever only reads what a build
was asked for need not import this file: webdataset brings torch in, which takes seconds.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import google_crc32c
import numpy as np
import simplejpeg
from PIL import Image
from webdataset.writer import TarWriter

from data.errors import BadSample, DataError
from data.files import publish, temporary_beside, write_atomically
from data.images import MAX_PIXELS
from data.images.decode import decode_image, image_size
from data.images.photo_hash import thumbnail_of_pixels
from data.images.pillow_image import could_be_read_now, kind_of
from data.images.transform import resize_image
from data.index import Shard, ShardIndex, idx_name, pack_keys, shard_index_from_bytes, shard_index_to_bytes
from data.shards.build_plan import OWNER, RECORDS_FOLDER, shard_name
from data.shards.photo_records import digest_of, read_photos, shard_photos, write_photos
from data.shards.tar_scan import scan_tar
from data.sources import Record, Source

# Formats whose bytes are kept as they are. Photographs in others that lose detail (HEIC, AVIF) become JPEG, because a
# decoder for them is slow or not there where the shards are read; all others (TIFF, BMP, GIF) become PNG.
_KEPT = {"jpg": b"\xff\xd8", "png": b"\x89PNG", "webp": b"RIFF"}
_TO_JPEG = ("HEIF", "AVIF")


@dataclass(frozen=True)
class WriterSettings:
    """What all shards of a split share. `source.records` may be empty: each job brings its own."""

    folder: Path
    source: Source
    resize: int | None
    encode: str | None
    quality: int
    max_pixels: int
    near_duplicates: bool = True  # keep what finds them


@dataclass(frozen=True)
class ShardJob:
    """One shard to write."""

    number: int
    records: Sequence[Record]


@dataclass(frozen=True)
class FinishedShard:
    """`shard` is None when every image was bad and there is no tar; `bad` lists (key, reason)."""

    shard: Shard | None
    bad: tuple[tuple[str, str], ...]


def write_shard(settings: WriterSettings, job: ShardJob) -> FinishedShard:
    """Write shard `job.number`, or find it finished by an earlier call with the same bytes still in place."""
    finished = _read_finished(settings, job.number)
    if finished is None:
        finished = _write(settings, job)
        text = json.dumps({"shard": finished.shard and asdict(finished.shard), "bad": finished.bad})
        write_atomically(_record_path(settings.folder, job.number), text.encode())
        if finished.shard:
            idx = (settings.folder / idx_name(finished.shard.name)).read_bytes()
            finished = replace(finished, shard=_take_corrections(finished.shard, idx)[0])
    return finished


def _write(settings: WriterSettings, job: ShardJob) -> FinishedShard:
    path = settings.folder / shard_name(job.number)
    temporary = temporary_beside(path)
    kept: list[tuple[Record, int]] = []  # record, crc32c
    bad = []
    sources: list[tuple[int, int]] = []  # bytes of the source's file, digest
    thumbnails = []
    # The same bytes on every machine: no time, owner or mode of this one.
    with temporary.open("wb") as file, TarWriter(file, OWNER, OWNER, encoder=False, mtime=0) as tar:
        for record in job.records:
            try:
                found = settings.source.image_bytes(record)
                suffix, data, pixels = _recode(
                    found,
                    resize=settings.resize,
                    encode=settings.encode,
                    quality=settings.quality,
                    max_pixels=settings.max_pixels,
                )
            except BadSample as error:
                bad.append((record.key, error.reason))
                continue
            tar.write({"__key__": record.key, suffix: data, "json": _label_file(settings.source, record)})
            kept.append((record, google_crc32c.value(data)))
            sources.append((len(found), digest_of(found)))
            if settings.near_duplicates:
                thumbnails.append(thumbnail_of_pixels(pixels))
    if not kept:
        temporary.unlink()
        return FinishedShard(None, tuple(bad))
    with temporary.open("rb") as written:
        images = [member for member in scan_tar(written, name=str(temporary)) if not member.name.endswith(".json")]
        written.seek(0)
        sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    rows = ShardIndex(
        np.array([member.offset for member in images], np.int64),
        np.array([member.size for member in images], np.int32),
        np.array([crc32c for _, crc32c in kept], np.uint32),
        np.array([record.labels for record, _ in kept], np.int32),
        *pack_keys([record.key for record, _ in kept]),
    )
    idx = shard_index_to_bytes(rows)
    shard = Shard(path.name, len(kept), temporary.stat().st_size, sha256, google_crc32c.value(idx))
    idx_path = path.with_name(idx_name(path.name))
    # A damaged tar is written again, with the bytes it had: its index keeps the labels that were corrected since.
    if not (idx_path.is_file() and _take_corrections(shard, idx_path.read_bytes())[1]):
        write_atomically(idx_path, idx)
    publish(temporary, path)
    keys, groups = [record.key for record, _ in kept], [record.group for record, _ in kept]
    write_photos(settings.folder, job.number, shard_photos(keys, sources, thumbnails, groups))
    return FinishedShard(shard, tuple(bad))


def _label_file(source: Source, record: Record) -> bytes:
    """{task: class name}; a missing label is left out."""
    named = zip(source.tasks.items(), record.labels, strict=True)
    labels = {task: names[label] for (task, names), label in named if label >= 0}
    return json.dumps(labels, ensure_ascii=False).encode()


def _record_path(folder: Path, number: int) -> Path:
    return folder / RECORDS_FOLDER / f"{number:06d}.json"


def _read_finished(settings: WriterSettings, number: int) -> FinishedShard | None:
    """The finished shard, if its record is there, tar and .idx still have the recorded bytes, what is asked for is
    known of its photos, and none was bad for lack of a decoder that is there now."""
    folder = settings.folder
    try:
        content = json.loads(_record_path(folder, number).read_bytes())
        bad = tuple((key, reason) for key, reason in content["bad"])
        if any(could_be_read_now(reason) for _, reason in bad):
            return None
        if content["shard"] is None:
            return FinishedShard(None, bad)
        shard = Shard(**content["shard"])
        idx = (folder / idx_name(shard.name)).read_bytes()
        shard, idx_is_ours = _take_corrections(shard, idx)
        with (folder / shard.name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    if not idx_is_ours or sha256 != shard.sha256:
        return None
    photos = read_photos(folder, number)
    if photos is None or len(photos.keys) != shard.count or (settings.near_duplicates and not photos.has_thumbnails):
        return None
    return FinishedShard(shard, bad)


def _take_corrections(shard: Shard, idx: bytes) -> tuple[Shard, bool]:
    """The shard with the hash of its .idx file, and whether that is the written one, but for labels that were corrected
    since."""
    found = google_crc32c.value(idx)
    if found == shard.idx_crc32c:
        return shard, True
    try:
        rows = shard_index_from_bytes(idx, name=shard.name)
        written = google_crc32c.value(shard_index_to_bytes(rows.uncorrected()))
    except (DataError, IndexError):  # an index that was damaged may say anything
        return shard, False
    return replace(shard, idx_crc32c=found), bool(rows.corrected) and written == shard.idx_crc32c


def recode_image(
    data: bytes, *, resize: int | None, encode: str | None, quality: int, max_pixels: int = MAX_PIXELS
) -> tuple[str, bytes]:
    """(member suffix, bytes) to store. Every image is decoded once, so that what is stored is known to be good.

    `resize` shrinks the short side to that many pixels and never enlarges; `encode="jpeg"` stores every image as
    JPEG of `quality` with 4:2:0 chroma. A JPEG, PNG or WebP that needs neither keeps its bytes; HEIC and AVIF become
    such a JPEG in any case. Raises BadSample.
    """
    suffix, stored, _ = _recode(data, resize=resize, encode=encode, quality=quality, max_pixels=max_pixels)
    return suffix, stored


def _recode(
    data: bytes, *, resize: int | None, encode: str | None, quality: int, max_pixels: int
) -> tuple[str, bytes, np.ndarray]:
    """As recode_image, and the pixels, uint8 [H, W, 3]."""
    height, width = image_size(data)
    shrink = resize is not None and min(height, width) > resize
    suffix = next((suffix for suffix, magic in _KEPT.items() if data.startswith(magic)), None)
    if resize is None or not shrink:
        pixels = decode_image(data, max_pixels=max_pixels)
        if encode is None and suffix is not None:
            return suffix, data, pixels
    else:
        scale = resize / min(height, width)
        new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = resize_image(data, height=new_height, width=new_width, max_pixels=max_pixels)
    if encode == "jpeg" or suffix == "jpg" or kind_of(data) in _TO_JPEG:
        return "jpg", _to_jpeg(pixels, quality), pixels
    return "png", _to_png(pixels), pixels


def _to_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorsubsampling="420")


def _to_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
