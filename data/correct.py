"""Put labels of finished shards right, without packing the photos again.

Use: `python -m data.correct shards/mine fixes.csv [--dry-run]`

fixes.csv has the columns image, task and label: the photo's key or path, the task, and the class that is right (empty:
none is known). All rows are done, or none is. The tars stay as they are; their .idx files and index.json change.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import BadArgument, DataError
from data.index import find_splits, load_index
from data.index.class_counts import print_summary
from data.names import print_any_name
from data.shards.corrections import SplitPlan, plan_corrections, read_fixes, write_corrections
from launch.exit_codes import ExitCode

_SHOWN = 10


@dataclass(frozen=True)
class CorrectOptions:
    """What the command was asked for; see its --help."""

    folder: str
    fixes: Path
    dry_run: bool


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    print_any_name()
    try:
        _correct(options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_CONFIG if isinstance(error, BadArgument) else ExitCode.BAD_DATA
    except OSError as error:
        place = error.filename or options.folder
        print(f"error: {place}: {error.strerror}; put it right, and the same command goes on", file=sys.stderr)
        return ExitCode.BAD_CONFIG
    return ExitCode.DONE


def _correct(options: CorrectOptions) -> None:
    indices = [load_index(folder) for folder in find_splits(options.folder)]
    fixes, notes = read_fixes(options.fixes)
    try:
        plans, more = plan_corrections(indices, fixes)
    except DataError as error:
        raise DataError(f"{options.fixes}: {error}") from error
    for note in notes + more:
        print(f"note: {note}")
    if not options.dry_run:
        write_corrections(plans)
    for plan in plans:
        if plan.num_changed:
            print_summary(plan.index)
    for line in describe_changes(plans):
        print(line)
    num_changed, num_equal = (sum(getattr(plan, name) for plan in plans) for name in ("num_changed", "num_equal"))
    verb = "would change" if options.dry_run else "changed"
    print(f"{options.folder}: {num_changed:,} labels {verb}, {num_equal:,} were so already")


def describe_changes(plans: Sequence[SplitPlan]) -> list[str]:
    """A line per task: how many labels changed, and the most frequent changes."""
    changes: dict[str, Counter[tuple[str | None, str | None]]] = {}
    for plan in plans:
        for task, counts in plan.changes.items():
            changes.setdefault(task, Counter()).update(counts)
    lines = []
    for task, counts in changes.items():
        some = [
            f"{before or '(missing)'} -> {after or '(missing)'} {count:,}"
            for (before, after), count in counts.most_common(_SHOWN)
        ]
        more = f", and {len(counts) - _SHOWN} other changes" if len(counts) > _SHOWN else ""
        lines.append(f"{task}: {counts.total():,} labels: {', '.join(some)}{more}")
    return lines


def parse_options(arguments: Sequence[str] | None) -> CorrectOptions:
    """Exits with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m data.correct", description=(__doc__ or "").replace("Use: ", ""))
    parser.add_argument("folder", metavar="DIR", help="a shard folder, or the folder of several splits")
    parser.add_argument("fixes", type=Path, metavar="FIXES.csv", help="a table with the columns image, task and label")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    return CorrectOptions(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
