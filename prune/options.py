"""What is to be pruned and how: the options of `python -m prune`, which `python -m prune.curve` takes as well.

options = parse_options(["--model", "runs/a/best", "--out", "runs/a/pruned", "--ratio", "0.3"], description=None)
"""

import argparse
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launch.arguments import not_negative, positive
from models.artifact import ArtifactMeta
from models.channel_groups import KINDS
from models.errors import ModelError
from models.student import Student
from prune.goal import Goal
from prune.importance import CRITERIA, NEEDS_DATA
from prune.pruner import Limits
from prune.selection import LEAST_FEATURES, RULES

BATCH_SIZE = 64  # images that a criterion or norm statistics see at once
RECALIBRATE = 8  # batches, by default; docs/PRUNING.md has what more or fewer of them are worth
RECALIBRATE_FROM = 64  # photos: statistics of fewer are worse than some that were measured before the pruning
MEASURE = 1000  # photos to measure accuracy on
_SEEDS = 2**63


@dataclass(frozen=True)
class PruneOptions:
    """A ratio or budgets, and how to get there.

    out: the folder to write; None writes nothing. ratio: share of the channels. max_params, max_macs, max_bytes: at
    most, below 1 as a share of what the model has; bytes are those of the int8 file, as predicted. max_latency_ms: of
    one image on `threads` threads. Several budgets must hold together. multiple: widths are rounded up to it. floor:
    channels that every layer keeps. min_features: pooled features that the heads keep; None: two for each class of
    the largest task, and at least 32. max_layer_ratio: share of a layer that may go. threshold_cap: no threshold above
    the smallest of the norms' maxima; None: with a ratio, not with a budget. rule: one of RULES. score: the criterion,
    one of CRITERIA. kinds: of groups that may be pruned. data: shard folder or photos. score_batches: for criteria that
    look at images. recalibrate: batches on which norm statistics are measured anew; None: RECALIBRATE where there are
    enough photos. measure: labelled photos to measure accuracy on. fold: pass on what pruned channels' biases add.
    seed: of the random images of the equivalence check. command: what prune.json says.
    """

    model: str
    out: Path | None = None
    ratio: float | None = None
    max_params: float | None = None
    max_macs: float | None = None
    max_bytes: float | None = None
    max_latency_ms: float | None = None
    threads: int = 1
    multiple: int = 8
    floor: int = 8
    min_features: int | None = None
    max_layer_ratio: float = 1.0
    threshold_cap: bool | None = None
    rule: str = "threshold"
    score: str = "gamma"
    kinds: Sequence[str] = KINDS
    data: str | None = None
    score_batches: int = 8
    recalibrate: int | None = None
    measure: int = MEASURE
    fold: bool = True
    seed: int = 0
    command: str = ""

    @property
    def limits(self) -> Limits:
        cap = self.ratio is not None if self.threshold_cap is None else self.threshold_cap
        return Limits(cap, self.floor, self.max_layer_ratio, self.multiple, self.min_features)

    def goal(self, student: Student, meta: ArtifactMeta, image_size: int) -> Goal:
        """student: before the pruning, of which budgets below 1 are shares."""
        goal = Goal(ratio=self.ratio, image_size=image_size, threads=self.threads, class_names=meta.tasks)
        asked = {
            "parameters": self.max_params,
            "macs": self.max_macs,
            "bytes": self.max_bytes,
            "latency": self.max_latency_ms,
        }
        budgets = {kind: budget for kind, budget in asked.items() if budget is not None}
        for kind in budgets.keys() - {"latency"}:
            share = budgets[kind] if budgets[kind] < 1 else None
            budgets[kind] = int(budgets[kind] if share is None else share * goal.cost(kind, student))
        return replace(goal, budgets=budgets)


def check_options(options: PruneOptions) -> None:
    """ModelError for values out of their ranges, and for options that do not go together."""
    counted = {"max_params": options.max_params, "max_macs": options.max_macs, "max_bytes": options.max_bytes}
    budgets = [*counted.values(), options.max_latency_ms]
    if (options.ratio is None) == all(budget is None for budget in budgets):
        raise ModelError(
            "name a goal: a ratio, or one or more of the budgets max_params, max_macs, max_bytes and max_latency_ms, "
            "which must hold together"
        )
    for name, budget in counted.items():
        if budget is not None and not 0 < budget < math.inf:
            raise ModelError(f"{name} is {budget}; it is a number at most, or below 1 a share of what the model has")
    if options.seed >= _SEEDS:
        raise ModelError(f"--seed {options.seed}: seeds are below 2**63")
    if not 0 < options.max_layer_ratio <= 1:
        raise ModelError(f"--max-layer-ratio is {options.max_layer_ratio}; it is a share, above 0 and at most 1")
    if options.max_latency_ms is not None and not 0 < options.max_latency_ms < math.inf:
        raise ModelError(f"--max-latency-ms is {options.max_latency_ms}; it must be above 0, and finite")
    if options.rule == "expansion" and (options.score != "gamma" or tuple(options.kinds) != KINDS):
        raise ModelError("--rule expansion ranks the expansions by gamma: leave out --score and --kinds, or the rule")
    needs = [f"--score {options.score}"] * (options.score in NEEDS_DATA) + ["--recalibrate"] * bool(options.recalibrate)
    if needs and options.data is None:
        raise ModelError(f"{needs[0]} looks at photos: name a shard folder with --data")


def parse_options(arguments: Sequence[str], *, description: str | None) -> PruneOptions:
    parser = make_parser("python -m prune", description)
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="folder for the narrow model, its plan and a picture")
    add_goals(parser)
    add_pruning_options(parser)
    command = shlex.join(["python", "-m", "prune", *arguments])
    given = vars(parser.parse_args(arguments))
    if all(given[name] is None for name in GOALS):
        parser.error(f"name a goal: --ratio, or one or more of {', '.join(map(flag, GOALS[1:]))}")
    if given["ratio"] is not None and any(given[name] is not None for name in GOALS[1:]):
        parser.error("--ratio: says by itself how much is to go; leave it out, or the budgets")
    return PruneOptions(**given, command=command)


GOALS = ("ratio", "max_params", "max_macs", "max_bytes", "max_latency_ms")


def flag(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def make_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_goals(parser: argparse.ArgumentParser) -> None:
    """The options named in GOALS."""
    goals = parser.add_argument_group("how much: a ratio, or budgets that must hold together")
    add = goals.add_argument
    add("--ratio", type=float, metavar="R", help="share of the channels to prune, between 0 and 1")
    add("--max-params", type=amount, metavar="N", help="parameters at most: 100000, 1.5M or 50%%")
    add("--max-macs", type=amount, metavar="N", help="multiply-accumulates at most: 60M or 50%%")
    add("--max-bytes", type=amount, metavar="N", help="bytes of the int8 file at most, as predicted: 800K, 1M or 50%%")
    add("--max-latency-ms", type=float, metavar="T", help="measured time of one image at most")


def add_pruning_options(parser: argparse.ArgumentParser) -> None:
    """All of PruneOptions but `out` and GOALS: they say how one pruning is made."""
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="folder of the trained model")
    add("--threads", type=positive, default=1, metavar="N", help="of latency measurements (%(default)s)")
    add("--multiple", type=positive, default=8, metavar="N", help="round widths up to it; 8 is fast (%(default)s)")
    add("--floor", type=positive, default=8, metavar="N", help="channels that every layer keeps (%(default)s)")
    text = f"pooled features that the heads keep (2 for each class of the largest task, at least {LEAST_FEATURES})"
    add("--min-features", type=positive, metavar="N", help=text)
    add("--max-layer-ratio", type=float, default=1.0, metavar="R", help="most of a layer to prune (%(default)s)")
    add(
        "--threshold-cap",
        action=argparse.BooleanOptionalAction,
        help="no threshold above the smallest of the norms' maxima (default: with a ratio, not with a budget)",
    )
    text = "expansion: MobileNetV2's hidden channels alone (%(default)s)"
    add("--rule", choices=RULES, default="threshold", help=text)
    add("--score", choices=list(CRITERIA), default="gamma", help="what ranks the channels (%(default)s)")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=f"of {', '.join(KINDS)}: (all)")
    text = "shard folder (or photos) for the proof, --recalibrate, accuracy before and after, and some scores"
    add("--data", metavar="DIR", help=text)
    text = f"batches of {BATCH_SIZE} for a score (%(default)s)"
    add("--score-batches", type=positive, default=8, metavar="N", help=text)
    text = f"measure norm statistics anew over N batches; 0: keep the old ones (with --data {RECALIBRATE})"
    add("--recalibrate", type=not_negative, metavar="N", help=text)
    text = "labelled photos of --data to measure accuracy on, before and after (%(default)s; 0: none)"
    add("--measure", type=not_negative, default=MEASURE, metavar="N", help=text)
    add("--fold", action=argparse.BooleanOptionalAction, default=True, help="pass on what pruned channels' biases add")
    add("--seed", type=not_negative, default=0, help="of the random proof images (%(default)s)")


def amount(text: str) -> float:
    """An argparse type: a whole number for 100000, 60M or 1.5G, a share below 1 for 50% (of the model's)."""
    if text.endswith("%"):
        return _percent(text)
    factor = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:], 1)
    try:
        value = float(text if factor == 1 else text[:-1]) * factor
    except ValueError:
        value = 0
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1, such as 100000, 60M or 50%")
    return round(value)


def _percent(text: str) -> float:
    try:
        value = float(text[:-1])
    except ValueError:
        value = 0
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 % and below 100 %")
    return value / 100
