"""Compares two kinds of models over the photos and seeds of recorded units (record.py).

    PYTHONPATH=. python docs/results/paired.py LINES.jsonl KIND OTHER SEED...

Units are called KIND-SEED. Prints, per task, both means with their spread over the seeds, and the paired difference
with its 95 % bootstrap interval over photos and seeds.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from train.evaluation.paired_bootstrap import paired_difference


def main() -> None:
    lines, kind, other, *seeds = sys.argv[1:]
    units = {line["unit"]: line for line in map(json.loads, Path(lines).read_text().splitlines())}
    ours, theirs = ([units[f"{name}-{seed}"] for seed in seeds] for name in (kind, other))
    if len({line["data"] for line in (*ours, *theirs)}) > 1:
        sys.exit(f"{kind} and {other} were asked about different photos")
    print(f"== {kind} against {other}, seeds {' '.join(seeds)}")
    for task in ours[0]["top1"]:
        result = paired_difference(_right(ours, task), _right(theirs, task))
        low, high = (100 * bound for bound in result.interval)
        difference = f"{100 * result.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        print(f"{task:>12}  {_spread(ours, task)}  {_spread(theirs, task)}  {difference}")


def _right(units: list[dict[str, Any]], task: str) -> np.ndarray:
    """bool [seeds, photos]."""
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(unit["right"][task]), np.uint8)) for unit in units]
    return np.stack(bits)[:, : units[0]["labelled"][task]].astype(bool)


def _spread(units: list[dict[str, Any]], task: str) -> str:
    shares = [unit["top1"][task] for unit in units]
    spread = f" ({min(shares):.1f} to {max(shares):.1f})" if len(shares) > 1 else ""
    return f"{np.mean(shares):.1f}{spread}"


if __name__ == "__main__":
    main()
