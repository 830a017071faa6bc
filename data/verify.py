"""Check a shard folder down to every byte: shards, hashes, checksums, and labels against the index.

Use: `python -m data.verify shards/birds/train [--jobs N]`, or the folder above, to check all its splits

Prints each thing that is wrong and exits 65; exits 0 when nothing is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.errors import BadArgument, DataError, LoaderLost
from data.index import INDEX_NAME, Index, idx_name, load_index
from data.names import print_any_name
from data.pool import default_workers, map_in_processes
from data.storage import is_remote, local_root
from data.verify_shard import VerifySettings, verify_shard
from train.exit_codes import ExitCode

SHOWN_PER_SHARD = 10


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    print_any_name()
    try:
        folders = find_splits(options.folder)
        problems = [line for folder in folders for line in verify(folder, cls_task=options.task, jobs=options.jobs)]
    except LoaderLost as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.RANK_LOST
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_CONFIG if isinstance(error, BadArgument) else ExitCode.BAD_DATA
    if problems:
        print(f"error: {len(problems)} problems in {options.folder}", file=sys.stderr)
        return ExitCode.BAD_DATA
    return ExitCode.DONE


def find_splits(text: str) -> list[Path]:
    """The folder itself if it has an index.json, else its sub-folders that have one."""
    if is_remote(text):
        raise BadArgument(f"{text}: only local folders can be verified; training checks what it reads from elsewhere")
    folder = Path(local_root(text))
    if not folder.is_dir():
        raise BadArgument(f"{folder}: no such folder")
    if (folder / INDEX_NAME).is_file():
        return [folder]
    splits = sorted(path.parent for path in folder.glob(f"*/{INDEX_NAME}"))
    return splits or [folder]  # load_index says what is missing


def verify(folder: Path, *, cls_task: str | None, jobs: int) -> list[str]:
    """Print and return what is wrong with one split. cls_task: None for the one that the index remembers."""
    index = load_index(folder)
    settings = VerifySettings(index, cls_task or index.label_rule.cls_task)
    numbers = range(len(index.shards))
    problems = _strays(index) + _copies(index)
    for found in map_in_processes(verify_shard, numbers, shared=settings, workers=jobs, what=f"Verifying {folder}"):
        problems += found[:SHOWN_PER_SHARD]
        if len(found) > SHOWN_PER_SHARD:
            problems.append(f"{found[0].split(':')[0]}: and {len(found) - SHOWN_PER_SHARD} more")
    for line in problems:
        print(line)
    verdict = f"{len(problems)} problems" if problems else "all good"
    print(f"{folder}: {len(index.shards)} shards, {index.num_samples} samples: {verdict}")
    return problems


def _strays(index: Index) -> list[str]:
    """Shard files that the index does not know."""
    folder = Path(index.root)
    known = {name for shard in index.shards for name in (shard.name, idx_name(shard.name))}
    present = [path for pattern in ("*.tar", "*.idx", "*.tar.*", "*.tgz") for path in folder.glob(pattern)]
    strays = sorted({path for path in present if path.name not in known and not path.name.startswith(".")})
    return [f"{path}: is not in {INDEX_NAME}; delete it or run data.index again" for path in strays]


def _copies(index: Index) -> list[str]:
    """Shards with the same content under two names."""
    first: dict[str, str] = {}
    problems = []
    for number, shard in enumerate(index.shards):
        if shard.sha256 in first:
            problems.append(f"{index.shard_url(number)}: has the same content as {first[shard.sha256]}")
        first.setdefault(shard.sha256, shard.name)
    return problems


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.verify", description=(__doc__ or "").split("\n\nUse")[0])
    parser.add_argument("folder", metavar="DIR", help="a shard folder, or the folder of several splits")
    parser.add_argument("--task", help="the task that .cls members label (default: the one of data.index)")
    parser.add_argument("--jobs", type=int, default=default_workers(), help="processes (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
