"""What a pipeline has to know of its photos before it packs them.

photos = look_at("photos.csv", options=()); photos.count, photos.side, photos.publishes_val
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.build_options import parse_options
from data.errors import BadSample
from data.images.decode import image_size
from data.index import INDEX_NAME, load_index
from data.shards.build_plan import content_of
from data.shards.shard_reader import ShardReader
from data.sources import Source, open_source

_LOOKED_AT = 64


@dataclass(frozen=True)
class Photos:
    """count: of all. side: median of the short sides, pixels. publishes_val: nothing has to be held out. fingerprint:
    changes when the photos or their labels do. are_shards: they are packed already."""

    count: int
    side: int
    publishes_val: bool
    fingerprint: str
    are_shards: bool


def look_at(text: str, *, options: Sequence[str]) -> Photos:
    """text, options: as data.build takes them; or a folder of shards. Raises DataError, BadArgument."""
    folder = Path(text)
    if (folder / "train" / INDEX_NAME).is_file():
        index = load_index(folder / "train")
        val = load_index(folder / "val")
        reader = ShardReader(index)
        sides = [min(image_size(reader.read(0, number))) for number in range(min(_LOOKED_AT, index.shards[0].count))]
        fingerprint = f"{index.fingerprint} {val.fingerprint}"
        count = index.num_samples + val.num_samples
        return Photos(count, round(statistics.median(sides)), True, fingerprint, are_shards=True)
    given = parse_options(["--source", text, "--out", ".", *options], about="")
    source = open_source(text, task=given.task, options=given.table)
    splits = {record.split for record in source.records}
    return Photos(len(source.records), _side(source), "val" in splits, content_of(source), are_shards=False)


def _side(source: Source) -> int:
    sides = []
    for record in source.records[:: max(1, len(source.records) // _LOOKED_AT)]:
        try:
            sides.append(min(image_size(source.image_bytes(record))))
        except BadSample:
            continue
    return round(statistics.median(sides)) if sides else 224
