"""Index tars that other tools wrote, so that they can be trained on as they are.

Use: `python -m data.index DIR_OR_TARS... [--classes FILE.json] [--task NAME]`

A sample is an image member (.jpg, .jpeg, .png, .webp) with a .cls member (class number or name) or a .json member
(flat object: task -> class name, class number or null); a missing label is legal. Writes NAME.idx beside each tar,
index.json, and bad_samples.jsonl when samples cannot be used. Of a .json member only the fields of the tasks count:
those of --classes, else every field that holds classes. index.json remembers --classes, --task and --max-pixels for the
next call and for data.verify.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError, LoaderLost
from data.images import MAX_PIXELS
from data.index import INDEX_NAME
from data.names import print_any_name
from data.shards.process_pool import default_workers
from launch.exit_codes import ExitCode


@dataclass(frozen=True)
class IndexOptions:
    """What the command was asked for; see its --help."""

    paths: tuple[Path, ...]
    classes: str | None
    task: str | None
    max_pixels: int | None
    workers: int


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    print_any_name()
    try:
        _index(options)
    except LoaderLost as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.RANK_LOST
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_DATA
    return ExitCode.DONE


def _index(options: IndexOptions) -> None:
    # OpenCV, which --help need not wait for
    from data.shards.external_tars import find_tars, index_tars, read_classes, remembered_rule

    tars = find_tars(options.paths)
    rule, tasks = remembered_rule(tars[0].parent)
    if options.classes:
        tasks = read_classes(Path(options.classes))
    elif tasks:
        print(
            f"note: the classes are those of the {INDEX_NAME} that is there; --classes gives others, and without "
            f"{INDEX_NAME} they are found anew"
        )
    task = options.task or rule.cls_task
    max_pixels = options.max_pixels or rule.max_pixels or MAX_PIXELS
    index_tars(tars, tasks=tasks, cls_task=task, max_pixels=max_pixels, workers=options.workers)


def parse_options(arguments: Sequence[str] | None) -> IndexOptions:
    about, sample = __doc__.split("\n\nA sample")
    parser = argparse.ArgumentParser(prog="python -m data.index", description=about, epilog=f"A sample{sample}")
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="DIR_OR_TARS", help="a folder of .tar files, or the files"
    )
    parser.add_argument(
        "--classes",
        metavar="FILE.json",
        help="task -> class names in label order; also another split's " + INDEX_NAME,
    )
    parser.add_argument("--task", help="the task that .cls members label (default: class)")
    parser.add_argument("--max-pixels", type=int, help=f"larger images are bad (default: {MAX_PIXELS})")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes (default: %(default)s)")
    given = vars(parser.parse_args(arguments))
    return IndexOptions(**{**given, "paths": tuple(given["paths"])})


if __name__ == "__main__":
    sys.exit(main())
