"""A contact sheet of what training will see: samples, their augmented views, their labels, and the class counts.

Use: `python -m data.preview shards/birds/train --out page.png [--policy standard]`
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import BadArgument, BadSample, DataError
from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import Index, load_index
from data.index.class_counts import count_classes
from data.names import print_any_name
from data.shards.contact_sheet import Strip, draw_sheet
from data.shards.shard_reader import ShardReader
from data.storage import is_remote
from launch.exit_codes import ExitCode


@dataclass(frozen=True)
class PreviewOptions:
    """What the command was asked for; see its --help."""

    folder: str
    out: Path
    policy: str
    samples: int
    views: int
    size: int
    seed: int


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    print_any_name()
    try:
        if is_remote(options.folder):
            raise BadArgument(f"{options.folder}: a preview needs a local folder")
        index = load_index(options.folder)
        transform = ImageTransform(options.size, POLICIES[options.policy], seed=options.seed)
        strips = [
            make_strip(index, shard, sample, transform=transform, num_views=options.views)
            for shard, sample in choose_samples(index, options.samples)
        ]
        title = f"{index.root}: {index.num_samples:,} samples; first as it is, then {options.policy} views"
        page = draw_sheet(title, strips, count_classes(index), index.tasks)
        page.save(options.out, "PNG")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_CONFIG if isinstance(error, BadArgument) else ExitCode.BAD_DATA
    except OSError as error:
        print(f"error: {options.out}: {error.strerror}", file=sys.stderr)
        return ExitCode.BAD_CONFIG
    print(f"wrote {options.out} ({page.width}x{page.height})")
    return ExitCode.DONE


def choose_samples(index: Index, count: int) -> list[tuple[int, int]]:
    """(shard, sample) of `count` samples spread evenly over the split."""
    total = index.num_samples
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
    ends = index.counts.cumsum()
    shards = np.searchsorted(ends, chosen, side="right")
    starts = ends - index.counts
    return [(int(shard), int(number - starts[shard])) for shard, number in zip(shards, chosen, strict=True)]


def make_strip(index: Index, shard: int, sample: int, *, transform: ImageTransform, num_views: int) -> Strip:
    """The sample's centre square, then `num_views` augmented views; a bad sample shows its reason instead."""
    reader = ShardReader(index)
    rows = reader.info(shard)
    key = rows.key(sample)
    plain = ImageTransform(transform.size, POLICIES["none"])
    images = []
    try:
        data = reader.read(shard, sample)
        for one, view in [(plain, 0), *((transform, view) for view in range(num_views))]:
            image = np.empty((one.size, one.size, 3), np.uint8)
            one.make(data, shard=index.shards[shard].name, key=key, view=view, out=image)
            images.append(image)
    except BadSample as error:
        return Strip([], [f"{index.shards[shard].name} {key}", f"BAD: {error.reason}"])
    labels = zip(index.tasks.items(), rows.labels[sample], strict=True)
    named = [f"{task}: {names[label] if label >= 0 else '(missing)'}" for (task, names), label in labels]
    return Strip(images, [f"{index.shards[shard].name} {key}", ", ".join(named)])


def parse_options(arguments: Sequence[str] | None) -> PreviewOptions:
    """Exits with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m data.preview", description=(__doc__ or "").split("\n\nUse")[0])
    add = parser.add_argument
    add("folder", metavar="DIR", help="a shard folder (one split)")
    add("--out", required=True, type=Path, metavar="PAGE.png", help="the page to write")
    add("--policy", choices=list(POLICIES), default="standard", help="augmentation (default: %(default)s)")
    add("--samples", type=int, default=16, metavar="N", help="samples shown (default: %(default)s)")
    add("--views", type=int, default=3, metavar="N", help="augmented views of each (default: %(default)s)")
    add("--size", type=int, default=112, metavar="PIXELS", help="side of a picture (default: %(default)s)")
    add("--seed", type=int, default=0, help="augment.seed of the run (default: %(default)s)")
    options = PreviewOptions(**vars(parser.parse_args(arguments)))
    if min(options.samples, options.views, options.size) < 1:
        parser.error("--samples, --views and --size must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
