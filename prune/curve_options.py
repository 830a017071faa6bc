"""The options of `python -m prune.curve`: all that say how one pruning is made, and those of its rounds.

options = parse_curve_options(["--model", "runs/a/best", "--data", "shards/a/val", "--out", "curve"], description=None)
"""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.arguments import positive
from prune.options import PruneOptions, add_pruning_options, make_parser


@dataclass(frozen=True)
class CurveOptions:
    """pruning: how each round is pruned, without its goal and folder; its `data` is set. out: the folder of the curves.
    val: shard folder with labels that accuracy is measured on. rates: shares to prune per round, each a curve of
    `rounds` rounds. config: YAML that trains after each round, started by `launcher`; None trains nothing.
    unstructured: shares of single weights to set to zero."""

    pruning: PruneOptions
    out: Path
    val: str
    rates: Sequence[float]
    rounds: int
    config: str | None
    launcher: str
    unstructured: Sequence[float]


def parse_curve_options(arguments: Sequence[str], *, description: str | None) -> CurveOptions:
    parser = make_curve_parser(description)
    given = vars(parser.parse_args(arguments))
    own = {name: given.pop(name) for name in ("out", "val", "rates", "rounds", "config", "launcher", "unstructured")}
    if given["data"] is None:
        parser.error("the following arguments are required: --data")
    command = shlex.join(["python", "-m", "prune.curve", *arguments])
    pruning = PruneOptions(**given, command=command)
    return CurveOptions(pruning, **{**own, "val": own["val"] or given["data"]})


def make_curve_parser(description: str | None) -> argparse.ArgumentParser:
    parser = make_parser("python -m prune.curve", description)
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="folder for the curves and the models of all rounds")
    add("--val", metavar="DIR", help="shard folder with labels that accuracy is measured on (default: --data)")
    add("--rates", type=shares, default=[0.05, 0.1], metavar="R,R", help="share to prune per round (0.05,0.1)")
    add("--rounds", type=positive, default=5, metavar="N", help="of each rate (%(default)s)")
    add("--config", metavar="FILE", help="how to train after each round; without it, nothing is trained")
    add("--launcher", default="", metavar="COMMAND", help='for the training, for example "horovodrun -np 2"')
    add("--unstructured", type=shares, default=[0.2, 0.4, 0.6, 0.8], metavar="R,R", help="(0.2,0.4,0.6,0.8)")
    add_pruning_options(parser)
    return parser


def shares(text: str) -> list[float]:
    """An argparse type: numbers between 0 and 1, separated by commas; nothing for none."""
    try:
        values = [float(part) for part in text.split(",") if part]
    except ValueError:
        values = [0.0]
    if not all(0 < value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} must be shares between 0 and 1, such as 0.05,0.1")
    return values
