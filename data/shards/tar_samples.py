"""The samples of a tar as other tools write them: members grouped by key, images checked, labels parsed.

Use: `raw = read_tar_samples(Path("000.tar"), cls_task="class"); print(raw.keys, raw.labels, raw.bad, raw.notes)`

Keys are split as webdataset does, at the first dot of the base name, but for files such as `img.0.jpg, img.1.jpg`,
which that would merge into one sample: those are split at the last dot, and a note says so.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from data.errors import BadSample
from data.images import MAX_PIXELS
from data.images.decode import decode_image
from data.index.labels import NoClass, RawLabel, parse_json_labels, parse_text_label
from data.names import as_text
from data.shards.tar_scan import TarMember, scan_tar

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
LABEL_SUFFIXES = ("cls", "json")
_LARGEST_IMAGE = 2**31 - 1
_LARGEST_LABEL = 1 << 20

Notes = dict[str, list[str]]  # note -> the names it is about


@dataclass
class TarSamples:
    """What one tar holds, by sample in order of first appearance. `labels` are as written; `bad` maps the number of an
    unusable sample to the reason; `notes` maps a note for the user to the names it is about."""

    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    crc32c: list[int] = field(default_factory=list)
    labels: list[dict[str, RawLabel]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)

    def note(self, text: str, name: str) -> None:
        self.notes.setdefault(text, []).append(as_text(name))


@dataclass
class _Group:
    images: list[TarMember] = field(default_factory=list)
    labels: dict[str, list[TarMember]] = field(default_factory=dict)


def read_tar_samples(path: Path, *, cls_task: str, decode: bool = True, max_pixels: int = MAX_PIXELS) -> TarSamples:
    """Read a whole tar. `cls_task` is the task that `.cls` members label; `decode` also decodes every image.

    Raises DataError when the tar itself is broken (see scan_tar); a broken sample lands in `bad`.
    """
    samples = TarSamples()
    with path.open("rb") as file:
        for key, group in _group_members(follow_links(list(scan_tar(file, name=str(path)))), samples).items():
            number = len(samples.keys)
            samples.keys.append(as_text(key))
            reasons = _read_image(file, group, samples, decode=decode, max_pixels=max_pixels)
            try:
                samples.labels.append(_read_labels(file, group, cls_task))
            except BadSample as error:
                samples.labels.append({})
                reasons.append(error.reason)
            if not group.labels:
                samples.note("samples have no label member (every task missing)", key)
            if reasons:
                samples.bad[number] = "; ".join(reasons)
    return samples


def _group_members(members: list[TarMember], samples: TarSamples) -> dict[str, _Group]:
    last_dot = _keys_to_split_at_last_dot(members, samples)
    groups: dict[str, _Group] = {}
    previous = ""
    scattered: dict[str, None] = {}
    for member in members:
        folder, base = posixpath.split(member.name)
        if "." not in base:
            samples.note("files without an extension were skipped", member.name)
            continue
        if base.startswith("."):
            samples.note("hidden files were skipped", member.name)
            continue
        key, suffix = base.split(".", 1)
        if posixpath.join(folder, key) in last_dot:
            key, suffix = base.rsplit(".", 1)
        key, suffix = posixpath.join(folder, key), suffix.lower()
        if suffix not in IMAGE_SUFFIXES and suffix not in LABEL_SUFFIXES:
            samples.note(f".{suffix} files were ignored", member.name)
            continue
        if key in groups and key != previous:
            scattered[key] = None
        previous = key
        group = groups.setdefault(key, _Group())
        if suffix in IMAGE_SUFFIXES:
            group.images.append(member)
        else:
            group.labels.setdefault(suffix, []).append(member)
    for key in scattered:
        samples.note("samples whose members are not neighbours were joined", key)
    return groups


def _keys_to_split_at_last_dot(members: list[TarMember], samples: TarSamples) -> set[str]:
    """First-dot keys that hold images only behind a longer suffix (`img.0.jpg`)."""
    plain: set[str] = set()
    longer: dict[str, int] = {}
    for member in members:
        folder, base = posixpath.split(member.name)
        key, _, suffix = base.partition(".")
        key, suffix = posixpath.join(folder, key), suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            plain.add(key)
        elif suffix.rpartition(".")[2] in IMAGE_SUFFIXES:
            longer[key] = longer.get(key, 0) + 1
    keys = {key for key in longer if key not in plain}
    for key in sorted(keys):
        if longer[key] > 1:
            text = "keys would merge several images when split at the first dot, and were split at the last one"
            samples.note(text, key)
    return keys


def _read_image(file: BinaryIO, group: _Group, samples: TarSamples, *, decode: bool, max_pixels: int) -> list[str]:
    """Append the sample's byte range and checksum; returns what is wrong with it."""
    member = group.images[0] if group.images else None
    if member is None or member.link or member.size > _LARGEST_IMAGE:
        samples.offsets.append(0)
        samples.sizes.append(0)
        samples.crc32c.append(0)
        if member is None:
            return ["there is a label but no image"]
        return [_dead_link("image", member) if member.link else f"image of {member.size} bytes is too large"]
    data = _read_member(file, member)
    samples.offsets.append(member.offset)
    samples.sizes.append(member.size)
    samples.crc32c.append(google_crc32c.value(data))
    reasons = []
    if len(group.images) > 1:
        names = ", ".join(as_text(image.name) for image in group.images)
        reasons.append(f"key is used for {len(group.images)} images ({names})")
    if decode:
        try:
            decode_image(data, max_pixels=max_pixels)
        except BadSample as error:
            reasons.append(error.reason)
    return reasons


def _read_labels(file: BinaryIO, group: _Group, cls_task: str) -> dict[str, RawLabel]:
    for suffix, members in group.labels.items():
        if len(members) > 1:
            raise BadSample(f"key is used for {len(members)} .{suffix} files")
        if members[0].link:
            raise BadSample(_dead_link(f".{suffix} file", members[0]))
        if members[0].size > _LARGEST_LABEL:
            raise BadSample(f".{suffix} file of {members[0].size} bytes is not a label")
    labels: dict[str, RawLabel] = {}
    if "json" in group.labels:
        labels = parse_json_labels(_read_member(file, group.labels["json"][0]))
    if "cls" in group.labels:
        value = _parse_cls(_read_member(file, group.labels["cls"][0]))
        other = labels.get(cls_task, value)
        if isinstance(other, NoClass):
            value = other
        elif other != value and not isinstance(value, NoClass):
            value = NoClass(f"task {cls_task!r}: .cls says {value!r}, .json says {other!r}")
        labels[cls_task] = value
    return labels


def _parse_cls(data: bytes) -> RawLabel:
    try:
        return parse_text_label(data.decode("utf-8", "surrogateescape"))
    except BadSample as error:
        return NoClass(error.reason)


def _dead_link(what: str, member: TarMember) -> str:
    return f"{what} is a link to {as_text(member.link)!r}, which is no file of this tar"


def _read_member(file: BinaryIO, member: TarMember) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def follow_links(members: Sequence[TarMember]) -> list[TarMember]:
    """The members, links with the bytes of their files. One that leads out of the tar, to a folder or in a circle keeps
    its `link`. Of two members with one name the later counts, as when a tar is unpacked."""
    by_name = {posixpath.normpath(member.name): member for member in members}
    return [_follow(member, by_name) if member.link else member for member in members]


def _follow(link: TarMember, by_name: dict[str, TarMember]) -> TarMember:
    target: TarMember | None = link
    passed: set[str] = set()
    while target is not None and target.link:
        if target.link in passed:
            return link
        passed.add(target.link)
        target = by_name.get(target.link)
    return link if target is None else replace(link, offset=target.offset, size=target.size, link="")
