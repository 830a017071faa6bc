"""Index tars that other tools wrote, so that they can be trained on as they are.

Use: `python -m data.index DIR_OR_TARS... [--classes FILE.json] [--task NAME]`

A sample is an image member (.jpg, .jpeg, .png, .webp) with a .cls member (class number or name) or a .json member
(flat object: task -> class name, class number or null); a missing label is legal. Writes NAME.idx beside each tar,
index.json, and bad_samples.jsonl when samples cannot be used.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.decode import MAX_PIXELS
from data.errors import DataError, LoaderLost
from data.index import INDEX_NAME
from data.index.foreign import find_tars, index_tars, read_classes
from data.pool import default_workers
from train.exit_codes import ExitCode


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        tars = find_tars([Path(path) for path in options.paths])
        tasks = read_classes(Path(options.classes)) if options.classes else None
        index_tars(tars, tasks=tasks, cls_task=options.task, max_pixels=options.max_pixels, workers=options.workers)
    except LoaderLost as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.RANK_LOST
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_DATA
    return ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.index", description=__doc__.split("\n\nA sample")[0])
    parser.add_argument("paths", nargs="+", metavar="DIR_OR_TARS", help="a folder of .tar files, or the files")
    parser.add_argument(
        "--classes", metavar="FILE.json", help="task -> class names in label order; also another split's " + INDEX_NAME
    )
    parser.add_argument("--task", default="class", help="the task that .cls members label (default: class)")
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help="larger images are bad (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
