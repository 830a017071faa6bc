"""Samples found by the names that tables give them: the key, or the photo's path in any of its spellings.

Use: `found = find_samples(["photos/a.b.jpg"], [load_index("shards/train")]); found.places["photos/a.b.jpg"]`

The key itself always counts. A path may have an extension, `./`, backslashes, and a leading folder that all names of
the table share and the keys do not have, or the other way round. A name that fits two samples is an error.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data.bad_samples import find_bad_sample
from data.errors import DataError
from data.index import Index
from data.names import as_text
from data.shards.build_plan import is_built
from data.sources.source import make_keys
from data.walk import IMAGE_SUFFIXES, JPEG_IN_SHARDS, PNG_IN_SHARDS

_SHOWN = 3
_MAGIC = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}
_STORED_AS = {"jpg": (".jpeg", ".jpe", ".jfif", *JPEG_IN_SHARDS), "png": PNG_IN_SHARDS}


class Place(NamedTuple):
    """Where a sample is: numbers of the split, of the shard in it, and of the sample in that."""

    split: int
    shard: int
    sample: int


@dataclass(frozen=True)
class FoundSamples:
    """places: by name. note: how the names were read, where that is not as they stand; else ""."""

    places: dict[str, Place]
    note: str = ""


@dataclass(frozen=True)
class _Reading:
    """One way to read all names: without their first `stripped` folders, within the folder `added`."""

    stripped: int = 0
    added: str = ""

    def path(self, name: str) -> str:
        return posixpath.join(self.added, *_path(name).split("/")[self.stripped :])

    def describe(self, name: str) -> str:
        without = "/".join(_path(name).split("/")[: self.stripped])
        parts = [f"without their folder {without!r}"] if without else []
        parts += [f"within the folder {self.added!r}"] if self.added else []
        return f"the photos' names are read {' and '.join(parts)}" if parts else ""


def find_samples(names: Sequence[str], indices: Sequence[Index]) -> FoundSamples:
    """The sample of each name in any of the splits. DataError names the first that fit none, or two."""
    built = [is_built(Path(index.shard_url(0))) for index in indices]
    unique = list(dict.fromkeys(names))
    best: dict[str, list[Place]] = {}
    best_reading = _Reading()
    for readings in _readings(unique, indices):
        places = _places_of(_possible_keys(unique, readings), indices)
        for reading in readings:
            found = {name: _candidates(name, reading.path(name), places, built) for name in unique}
            found = {name: candidates for name, candidates in found.items() if candidates}
            if len(found) > len(best):
                best, best_reading = found, reading
        if len(best) == len(unique):
            break
    _refuse_unknown([name for name in unique if name not in best], indices)
    return FoundSamples(
        {name: _only(name, candidates, indices) for name, candidates in best.items()}, best_reading.describe(names[0])
    )


def _readings(names: Sequence[str], indices: Sequence[Index]) -> Iterator[list[_Reading]]:
    """Ways to read the names, the plain ones first: the others need to know all keys."""
    shared = _shared_folder(map(_path, names))
    stripped = range(len(shared.split("/")) + 1 if shared else 1)
    yield [_Reading(number) for number in stripped]
    if in_keys := _shared_folder(key for _, key in _each_key(indices)):
        yield [_Reading(number, in_keys) for number in stripped]


def _possible_keys(names: Sequence[str], readings: Sequence[_Reading]) -> set[str]:
    keys = {as_text(name) for name in names}
    for path in {reading.path(name) for reading in readings for name in names}:
        keys.update(key for ours in (True, False) for key in _keys_of(path, is_built=ours))
    return keys | {_second(key) for key in keys}


def _places_of(wanted: set[str], indices: Sequence[Index]) -> dict[str, list[Place]]:
    places: dict[str, list[Place]] = {}
    for place, key in _each_key(indices):
        if key in wanted:
            places.setdefault(key, []).append(place)
    return places


def _candidates(name: str, path: str, places: dict[str, list[Place]], built: Sequence[bool]) -> list[Place]:
    """Of all samples that may be meant by a name. Its own key, if it is one, is meant."""
    if as_text(name) in places:
        return places[as_text(name)]
    found: dict[Place, None] = {}
    for ours in set(built):
        for key in _keys_of(path, is_built=ours):
            # Photos whose paths differ in the extension alone got the keys `x` and `x_2`.
            for candidate in (key, _second(key)) if ours and key in places else (key,):
                found.update(dict.fromkeys(p for p in places.get(candidate, []) if built[p.split] == ours))
    return list(found)


def _keys_of(path: str, *, is_built: bool) -> list[str]:
    """The keys that a photo of this path may have: as data.build makes them, or as they are found in a tar."""
    folder, base = posixpath.split(path)
    has_extension = base.lower().endswith(IMAGE_SUFFIXES)
    if is_built:
        return (
            make_keys([path]) if has_extension else [*make_keys([path]), posixpath.join(folder, base.replace(".", "_"))]
        )
    stems = [base.rpartition(".")[0] or base, base.partition(".")[0] or base]
    return [posixpath.join(folder, stem) for stem in dict.fromkeys(stems if has_extension else [base, *stems])]


def _second(key: str) -> str:
    """What `make_keys` calls a second photo that would have the same key."""
    return f"{key}_2"


def _only(name: str, candidates: Sequence[Place], indices: Sequence[Index]) -> Place:
    """The one candidate, or the one whose bytes are of the kind that the name's extension says. DataError: there are
    two."""
    if len(candidates) > 1:
        small = name.lower()
        kind = next((kind for kind, ends in _STORED_AS.items() if small.endswith(ends)), small.rpartition(".")[2])
        alike = [place for place in candidates if _kind(place, indices) == kind]
        if len(alike) != 1:
            first, second = (_describe(place, indices) for place in candidates[:2])
            raise DataError(
                f"{name!r} may be {first} or {second}: write the sample's key, which has no extension, and name the "
                "split's folder if both have one key"
            )
        return alike[0]
    return candidates[0]


def _kind(place: Place, indices: Sequence[Index]) -> str:
    index = indices[place.split]
    rows = index.load_shard(place.shard)
    with Path(index.shard_url(place.shard)).open("rb") as file:
        file.seek(int(rows.offset[place.sample]))
        return _MAGIC.get(file.read(2), "")


def _describe(place: Place, indices: Sequence[Index]) -> str:
    index = indices[place.split]
    return f"{index.load_shard(place.shard).key(place.sample)!r} ({index.shard_url(place.shard)})"


def _refuse_unknown(names: Sequence[str], indices: Sequence[Index]) -> None:
    if not names:
        return
    listed = []
    for name in names[:_SHOWN]:
        reasons = [find_bad_sample(Path(index.root), _keys_of(_path(name), is_built=True)) for index in indices]
        reason = next(filter(None, reasons), "")
        listed.append(f"{name!r} (left out as bad: {reason})" if reason else repr(name))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    folders = ", ".join(index.root for index in indices)
    raise DataError(
        f"no sample of {folders} is called {', '.join(listed)}{more}; nothing was changed. Keys are like "
        f"{indices[0].load_shard(0).key(0)!r}"
    )


def _each_key(indices: Sequence[Index]) -> Iterator[tuple[Place, str]]:
    for split, index in enumerate(indices):
        for shard in range(len(index.shards)):
            for sample, key in enumerate(index.load_shard(shard).keys()):
                yield Place(split, shard, sample), key


def _path(name: str) -> str:
    """As `make_keys` reads it: `/` between folders, none of them `.` or empty."""
    return posixpath.normpath(as_text(name.replace("\\", "/"))).lstrip("/")


def _shared_folder(paths: Iterator[str]) -> str:
    """The folder that all paths lie in; "" for none."""
    shared: list[str] | None = None
    for path in paths:
        folders = path.split("/")[:-1]
        if shared is None:
            shared = folders
        elif shared and folders[: len(shared)] != shared:
            same = [mine == other for mine, other in zip(shared, folders, strict=False)]
            shared = shared[: same.index(False) if False in same else len(same)]
    return "/".join(shared or [])
