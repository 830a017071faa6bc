"""When tars are no data set: hardly a sample can be used, or none has a label. The error says why and what to type.

Use: `refuse_unusable(tars, samples, rows, limits=Limits(0.2, unlabelled=False), rule=rule)`
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.index.label_rule import LabelRule
from data.index.labels import NoClass
from data.index.shard import ShardIndex
from data.names import as_text
from data.shards.tar_groups import IMAGE_SUFFIXES, LABEL_SUFFIXES
from data.shards.tar_samples import TarSamples

_SHOWN = 3
_TABLES = (".csv", ".tsv", ".jsonl")
# What holds no text, by the end of its name.
_BINARY = ("npy", "npz", "pth", "pt", "pkl", "pickle", "pyd", "ten", "bin", "zip", "tar", "gz", "tfrecord", "parquet")
_PACKED = ("tar", "zip", "gz", "tgz", "tfrecord", "parquet")


@dataclass(frozen=True)
class Limits:
    """max_bad: share of the samples that may be unusable. unlabelled: no sample needs a label."""

    max_bad: float
    unlabelled: bool


NO_LIMITS = Limits(max_bad=1.0, unlabelled=True)


def image_suffixes(samples: Sequence[TarSamples]) -> str:
    """The suffixes that images have, the most frequent ones first."""
    return _some(samples, IMAGE_SUFFIXES)


def refuse_no_samples(tars: Sequence[Path], samples: Sequence[TarSamples], rule: LabelRule) -> None:
    """DataError where a tar holds none."""
    for tar, one in zip(tars, samples, strict=True):
        if one.keys:
            continue
        wanted = f"images of .{rule.image}" if rule.image else "images of .jpg, .jpeg, .png or .webp"
        others = ", ".join(f".{suffix}" for suffix, _ in one.suffixes.most_common(_SHOWN))
        packed = any(_last(suffix) in _PACKED for suffix in one.suffixes)
        way_out = f"unpack it: tar -xf {as_text(tar.name)}, and go on with what was inside" if packed else ""
        way_out = way_out or ("take another --image" if rule.image else "delete it, or pack photos")
        raise DataError(
            f"{tar}: holds no samples ({wanted}){f'; it holds {others} files' if others else ''}; {way_out}"
        )


def refuse_unusable(
    tars: Sequence[Path],
    samples: Sequence[TarSamples],
    rows: Sequence[ShardIndex],
    *,
    limits: Limits,
    rule: LabelRule,
) -> None:
    """DataError where more than `limits.max_bad` of the samples are bad, all are, or none of them has a label."""
    bad = [(tar.name, one.key(n), reason) for tar, one in zip(tars, rows, strict=True) for n, reason in one.bad.items()]
    total = sum(map(len, rows))
    if len(bad) == total or len(bad) > limits.max_bad * total:
        raise DataError(_describe_bad(bad, total, samples, limits, rule))
    if not limits.unlabelled and not any((one.labels >= 0).any() for one in rows):
        raise DataError(_describe_unlabelled(tars[0].parent, samples, total, rule))


def _describe_bad(
    bad: Sequence[tuple[str, str, str]], total: int, samples: Sequence[TarSamples], limits: Limits, rule: LabelRule
) -> str:
    first: dict[str, tuple[str, str]] = {}
    for shard, key, reason in bad:
        first.setdefault(reason, (shard, key))
    counts = Counter(reason for _, _, reason in bad)
    listed = "; ".join(
        f"{count:,} x {reason} (as {first[reason][1]!r} in {first[reason][0]})"
        for reason, count in counts.most_common(_SHOWN)
    )
    ways_out = []
    if not rule.image and any("." in suffix for suffix in _found(samples, IMAGE_SUFFIXES)):
        ways_out.append(f"say which image is each sample's, --image SUFFIX ({image_suffixes(samples)})")
    elif rule.image and any("no image" in reason for _, _, reason in bad):
        ways_out.append(f"take another --image ({image_suffixes(samples)})")
    if len(bad) == total:
        ways_out.append("mend the tars, or the classes (--classes)")
        return f"none of the {total:,} samples can be used: {listed}. The way out: {'; or '.join(ways_out)}"
    share = math.ceil(100 * len(bad) / total) / 100
    ways_out.append(f"mend the tars, or index the others with --max-bad {share:g}")
    return (
        f"{len(bad):,} of {total:,} samples cannot be used, more than --max-bad {limits.max_bad:g} allows: {listed}. "
        f"The way out: {'; or '.join(ways_out)}"
    )


def _describe_unlabelled(folder: Path, samples: Sequence[TarSamples], total: int, rule: LabelRule) -> str:
    unfit = next(
        (v.reason for one in samples for raw in one.labels for v in raw.values() if isinstance(v, NoClass)), ""
    )
    said = f"; the first: {unfit}" if unfit else ""
    ways_out = ["--unlabelled indexes them for a teacher, without labels"]
    others = [suffix for one in samples for suffix in one.suffixes if _last(suffix) not in IMAGE_SUFFIXES]
    texts = [suffix for suffix in dict.fromkeys(others) if _last(suffix) not in (*_BINARY, *LABEL_SUFFIXES)]
    binary = [suffix for suffix in dict.fromkeys(others) if _last(suffix) in _BINARY]
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() in _TABLES and file.stem != "bad_samples")
    if tables:
        table = as_text(str(tables[0]))
        ways_out.insert(
            0, f"for the labels of {table}, unpack the tars beside it: python -m data.build --source manifest:{table}"
        )
    if rule.label:
        ways_out.insert(0, f"there may be no .{rule.label} files: --label takes one of {_some(samples, ())}")
    elif texts:
        ways_out.insert(0, f"where the .{texts[0]} files hold class names, say --label {texts[0]}")
    elif binary:
        ways_out.insert(0, f".{binary[0]} files are not read as labels: write each label as text into a .cls member")
    else:
        ways_out.insert(0, "give .cls or .json members beside the images")
    return f"no sample has a usable label, of {total:,}{said}. The way out: {'; or '.join(ways_out)}"


def _found(samples: Sequence[TarSamples], ends: Sequence[str]) -> Counter[str]:
    """Suffixes with one of these ends (none: all others than images') over all tars, and how often they are."""
    counts: Counter[str] = Counter()
    for one in samples:
        for suffix, count in one.suffixes.items():
            if _last(suffix) in ends or (not ends and _last(suffix) not in IMAGE_SUFFIXES):
                counts[suffix] += count
    return counts


def _some(samples: Sequence[TarSamples], ends: Sequence[str]) -> str:
    found = _found(samples, ends)
    more = ", ..." if len(found) > _SHOWN else ""
    return ", ".join(f"{suffix}" for suffix, _ in found.most_common(_SHOWN)) + more


def _last(suffix: str) -> str:
    """`input.jpg` -> `jpg`."""
    return suffix.rpartition(".")[2]
