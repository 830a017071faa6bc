"""Which members of a tar belong to one sample, and which of them is its image and which its label.

Use: `grouped = group_members(list(scan_tar(file, name="0.tar")), rule=LabelRule(first_dot=True)); grouped.groups["x"]`

The key ends at the first dot of the base name, as webdataset has it. Members `x.jpg` and `x.cls` are the image and the
label of `x`; where there are none, `x.input.jpg` and `x.output.cls` are. Several such images (`img.0.jpg, img.1.jpg`)
are samples of their own, split at the last dot, unless the rule names the one that counts.
"""

import posixpath
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from data.index.label_rule import LabelRule
from data.names import as_text
from data.shards.tar_scan import TarMember

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
LABEL_SUFFIXES = ("cls", "json")
SPLIT_AT_LAST_DOT = "keys would merge several images when split at the first dot, and were split at the last one"
_COUNTED_SUFFIXES = 50

Notes = dict[str, list[str]]  # note -> the names it is about


@dataclass
class Group:
    """The members of one sample: its images, of which there should be one, and its labels by kind (cls, json), with
    their suffixes."""

    images: list[TarMember] = field(default_factory=list)
    labels: dict[str, list[tuple[str, TarMember]]] = field(default_factory=dict)


@dataclass
class GroupedMembers:
    """groups: by key, in order of first appearance. needs_first_dot: a longer suffix was taken for an image or a label,
    which only `LabelRule.first_dot` does. suffixes: the most frequent ones of all members."""

    groups: dict[str, Group] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)
    needs_first_dot: bool = False
    suffixes: Counter[str] = field(default_factory=Counter)

    def note(self, text: str, name: str) -> None:
        self.notes.setdefault(text, []).append(as_text(name))


class _Part(NamedTuple):
    """A member, and its name split at the first dot."""

    member: TarMember
    key: str
    suffix: str


@dataclass
class _Choice:
    """What counts of the members that share a first-dot key."""

    at_last_dot: bool
    images: frozenset[str]
    labels: frozenset[str]


def group_members(members: list[TarMember], *, rule: LabelRule) -> GroupedMembers:
    """Members by sample; what is passed over is noted."""
    grouped = GroupedMembers()
    parts = _split_names(members, grouped)
    choices = _choose(parts, rule, grouped)
    previous = ""
    scattered: dict[str, None] = {}
    for part in parts:
        key, suffix, choice = part.key, part.suffix, choices[part.key]
        if choice.at_last_dot:
            folder, base = posixpath.split(part.member.name)
            stem, last = base.rsplit(".", 1)
            key, suffix = posixpath.join(folder, stem), last.lower()
        if suffix not in choice.images and suffix not in choice.labels:
            grouped.note(f".{suffix} files were ignored", part.member.name)
            continue
        if key in grouped.groups and key != previous:
            scattered[key] = None
        previous = key
        group = grouped.groups.setdefault(key, Group())
        if suffix in choice.images:
            group.images.append(part.member)
        else:
            kind = "json" if _last(suffix) == "json" else "cls"
            group.labels.setdefault(kind, []).append((suffix, part.member))
    for key in scattered:
        grouped.note("samples whose members are not neighbours were joined", key)
    grouped.suffixes = Counter(dict(Counter(part.suffix for part in parts).most_common(_COUNTED_SUFFIXES)))
    return grouped


def _split_names(members: list[TarMember], grouped: GroupedMembers) -> list[_Part]:
    parts = []
    for member in members:
        folder, base = posixpath.split(member.name)
        if "." not in base:
            grouped.note("files without an extension were skipped", member.name)
        elif base.startswith("."):
            grouped.note("hidden files were skipped", member.name)
        else:
            key, suffix = base.split(".", 1)
            parts.append(_Part(member, posixpath.join(folder, key), suffix.lower()))
    return parts


def _choose(parts: list[_Part], rule: LabelRule, grouped: GroupedMembers) -> dict[str, _Choice]:
    """First-dot key -> what counts of its members."""
    suffixes: dict[str, list[str]] = {}
    for part in parts:
        suffixes.setdefault(part.key, []).append(part.suffix)
    choices = {}
    for key, found in suffixes.items():
        longer = [suffix for suffix in found if suffix not in IMAGE_SUFFIXES and _last(suffix) in IMAGE_SUFFIXES]
        plain = any(suffix in IMAGE_SUFFIXES for suffix in found)
        is_one = rule.first_dot and len(longer) == 1
        at_last_dot = bool(longer) and not (plain or is_one or rule.image)
        if at_last_dot and len(longer) > 1:
            grouped.note(SPLIT_AT_LAST_DOT, key)
        images = [rule.image] if rule.image else longer if longer and not plain and is_one else IMAGE_SUFFIXES
        labels = [rule.label] if rule.label else LABEL_SUFFIXES
        has_image = any(suffix in images for suffix in found)
        if rule.first_dot and has_image and not rule.label and not at_last_dot and not set(labels) & set(found):
            labels = [suffix for suffix in found if _last(suffix) in LABEL_SUFFIXES]
            grouped.needs_first_dot |= bool(labels)
        grouped.needs_first_dot |= images is longer
        choices[key] = _Choice(at_last_dot, frozenset(images), frozenset(labels))
    return choices


def _last(suffix: str) -> str:
    """`input.jpg` -> `jpg`."""
    return suffix.rpartition(".")[2]
