"""The samples of a tar as other tools write them: members grouped by key, images checked, labels parsed.

Use: `raw = read_tar_samples(Path("000.tar"), rule=LabelRule()); print(raw.keys, raw.labels, raw.bad, raw.notes)`
"""

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from data.errors import BadSample
from data.images import MAX_PIXELS
from data.images.decode import decode_image
from data.index.label_rule import LabelRule
from data.index.labels import NoClass, RawLabel, parse_json_labels, parse_text_label
from data.names import as_text
from data.shards.tar_groups import Group, Notes, group_members
from data.shards.tar_scan import TarMember, scan_tar

_LARGEST_IMAGE = 2**31 - 1
_LARGEST_LABEL = 1 << 20


@dataclass
class TarSamples:
    """What one tar holds, by sample in order of first appearance. `labels` are as written; `bad` maps the number of an
    unusable sample to the reason; `notes` maps a note for the user to the names it is about. `needs_first_dot` and
    `suffixes` are those of GroupedMembers."""

    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    crc32c: list[int] = field(default_factory=list)
    labels: list[dict[str, RawLabel]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)
    needs_first_dot: bool = False
    suffixes: Counter[str] = field(default_factory=Counter)

    def note(self, text: str, name: str) -> None:
        self.notes.setdefault(text, []).append(as_text(name))


def read_tar_samples(path: Path, *, rule: LabelRule, decode: bool = True) -> TarSamples:
    """Read a whole tar by `rule`; `decode` also decodes every image.

    Raises DataError when the tar itself is broken (see scan_tar); a broken sample lands in `bad`.
    """
    with path.open("rb") as file:
        grouped = group_members(follow_links(list(scan_tar(file, name=str(path)))), rule=rule)
        samples = TarSamples(notes=grouped.notes, needs_first_dot=grouped.needs_first_dot, suffixes=grouped.suffixes)
        for key, group in grouped.groups.items():
            number = len(samples.keys)
            samples.keys.append(as_text(key))
            reasons = _read_image(file, group, samples, decode=decode, max_pixels=rule.max_pixels or MAX_PIXELS)
            try:
                samples.labels.append(_read_labels(file, group, rule.cls_task))
            except BadSample as error:
                samples.labels.append({})
                reasons.append(error.reason)
            if not group.labels:
                samples.note("samples have no label member (every task missing)", key)
            if reasons:
                samples.bad[number] = "; ".join(reasons)
    return samples


def _read_image(file: BinaryIO, group: Group, samples: TarSamples, *, decode: bool, max_pixels: int) -> list[str]:
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


def _read_labels(file: BinaryIO, group: Group, cls_task: str) -> dict[str, RawLabel]:
    data = {kind: _read_label_file(file, kind, found) for kind, found in group.labels.items()}
    labels: dict[str, RawLabel] = {}
    if "json" in data:
        labels = parse_json_labels(data["json"])
    if "cls" in data:
        value = _parse_cls(data["cls"])
        other = labels.get(cls_task, value)
        if isinstance(other, NoClass):
            value = other
        elif other != value and not isinstance(value, NoClass):
            value = NoClass(f"task {cls_task!r}: .cls says {value!r}, .json says {other!r}")
        labels[cls_task] = value
    return labels


def _read_label_file(file: BinaryIO, kind: str, found: Sequence[tuple[str, TarMember]]) -> bytes:
    suffix, member = found[0]
    if len(suffixes := sorted({suffix for suffix, _ in found})) > 1:
        raise BadSample(f"key has several .{kind} files: {', '.join(suffixes)}; say --label {suffixes[0]}, or another")
    if len(found) > 1:
        raise BadSample(f"key is used for {len(found)} .{suffix} files")
    if member.link:
        raise BadSample(_dead_link(f".{suffix} file", member))
    if member.size > _LARGEST_LABEL:
        raise BadSample(f".{suffix} file of {member.size} bytes is not a label")
    return _read_member(file, member)


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
