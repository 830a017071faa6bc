"""Index tars that other tools wrote, so that they can be trained on as they are.

Use: `python -m data.index DIR_OR_TARS... [--classes FILE.json] [--task NAME] [--image SUFFIX] [--label SUFFIX]`

A sample is an image member (.jpg, .jpeg, .png, .webp) with a .cls member (class number or name) or a .json member
(flat object: task -> class name, class number, true, false or null); a missing label is legal. Its key ends at the
first dot, so that `x.input.jpg` and `x.output.cls` are one sample, too. Writes NAME.idx beside each tar, index.json,
and bad_samples.jsonl when samples cannot be used. Of a .json member only the fields of the tasks count: those of
--classes, else every field that holds classes. index.json remembers --classes, --task, --image, --label and
--max-pixels for the next call and for data.verify.
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

DEFAULT_MAX_BAD = 0.2


@dataclass(frozen=True)
class IndexOptions:
    """What the command was asked for; see its --help."""

    paths: tuple[Path, ...]
    classes: str | None
    task: str | None
    image: str | None
    label: str | None
    max_pixels: int | None
    max_bad: float
    unlabelled: bool
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
    from data.shards.external_tars import Members, index_tars, read_classes, remembered_rule
    from data.shards.index_limits import Limits
    from data.shards.tar_files import find_tars

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
    index_tars(
        tars,
        tasks=tasks,
        cls_task=task,
        max_pixels=max_pixels,
        members=Members(
            rule.image if options.image is None else options.image,
            rule.label if options.label is None else options.label,
        ),
        limits=Limits(options.max_bad, options.unlabelled),
        workers=options.workers,
    )


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
    parser.add_argument(
        "--image", type=_suffix, metavar="SUFFIX", help="the image of each sample, as input.jpg ('': find it)"
    )
    parser.add_argument(
        "--label", type=_suffix, metavar="SUFFIX", help="the label of each sample, as output.cls or txt ('': find it)"
    )
    parser.add_argument("--max-pixels", type=int, help=f"larger images are bad (default: {MAX_PIXELS})")
    parser.add_argument(
        "--max-bad",
        type=float,
        default=DEFAULT_MAX_BAD,
        metavar="SHARE",
        help="of samples that cannot be used; more are an error (default: %(default)s)",
    )
    parser.add_argument("--unlabelled", action="store_true", help="no sample needs a label: a teacher will give them")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes (default: %(default)s)")
    given = vars(parser.parse_args(arguments))
    options = IndexOptions(**{**given, "paths": tuple(given["paths"])})
    if not 0 <= options.max_bad <= 1:
        parser.error(f"--max-bad {options.max_bad}: must lie between 0 and 1, as 0.2")
    return options


def _suffix(text: str) -> str:
    """`.Input.JPG` -> `input.jpg`: suffixes are compared in lower case."""
    return text.strip().lstrip(".").lower()


if __name__ == "__main__":
    sys.exit(main())
