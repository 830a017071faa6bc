"""What is to be pruned and how: the options of `python -m prune` and of `python -m prune.curve`.

options = parse_options(["--model", "runs/a/best", "--out", "runs/a/pruned", "--ratio", "0.3"], description=None)
"""

import argparse
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.channel_groups import KINDS
from models.cost import Cost
from models.errors import ModelError
from prune.importance import CRITERIA, NEEDS_DATA
from prune.pruner import Goal, Limits
from prune.selection import RULES
from train.cli.arguments import not_negative, positive

BATCH_SIZE = 64  # images that a criterion or norm statistics see at once
_SEEDS = 2**63


@dataclass(frozen=True)
class PruneOptions:
    """One of the four goals, and how to reach it.

    out: the folder to write; None writes nothing. ratio: share of the channels. max_params, max_macs: at most, below 1
    as a share of what the model has. max_latency_ms: of one image on `threads` threads. multiple: widths are rounded up
    to it. floor: channels that every layer keeps. max_layer_ratio: share of a layer that may go. threshold_cap: no
    threshold above the smallest of the norms' maxima; None: with a ratio, not with a budget. rule: one of RULES. score:
    the criterion, one of CRITERIA. kinds: of groups that may be pruned. data: shard folder or photos. score_batches:
    for criteria that look at images. recalibrate: batches on which norm statistics are measured anew. fold: pass on
    what pruned channels' biases add. seed: of the random images of the equivalence check. command: what prune.json
    says.
    """

    model: str
    out: Path | None = None
    ratio: float | None = None
    max_params: float | None = None
    max_macs: float | None = None
    max_latency_ms: float | None = None
    threads: int = 1
    multiple: int = 8
    floor: int = 8
    max_layer_ratio: float = 1.0
    threshold_cap: bool | None = None
    rule: str = "threshold"
    score: str = "gamma"
    kinds: Sequence[str] = KINDS
    data: str | None = None
    score_batches: int = 8
    recalibrate: int = 0
    fold: bool = True
    seed: int = 0
    command: str = ""

    @property
    def limits(self) -> Limits:
        cap = self.ratio is not None if self.threshold_cap is None else self.threshold_cap
        return Limits(cap, self.floor, self.max_layer_ratio, self.multiple)

    def goal(self, now: Cost, image_size: int) -> Goal:
        """now: of the model, for images of that size."""
        goals = {
            "ratio": self.ratio,
            "parameters": _absolute(self.max_params, now.parameters),
            "macs": _absolute(self.max_macs, now.macs),
            "latency": self.max_latency_ms,
        }
        kind, value = next((kind, value) for kind, value in goals.items() if value is not None)
        return Goal(kind, value, image_size=image_size, threads=self.threads)


def _absolute(budget: float | None, now: int) -> int | None:
    return None if budget is None else int(budget * now) if budget < 1 else int(budget)


def check_options(options: PruneOptions) -> None:
    """ModelError for values out of their ranges, and for options that do not go together."""
    goals = (options.ratio, options.max_params, options.max_macs, options.max_latency_ms)
    if sum(goal is not None for goal in goals) != 1:
        raise ModelError("name one goal: ratio, max_params, max_macs or max_latency_ms")
    for name, budget in {"max_params": options.max_params, "max_macs": options.max_macs}.items():
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
    parser = _parser("python -m prune", description)
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="folder of the trained model")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for the narrow model, its plan and a picture")
    goals = parser.add_mutually_exclusive_group(required=True)
    goals.add_argument("--ratio", type=float, metavar="R", help="share of the channels to prune, between 0 and 1")
    goals.add_argument("--max-params", type=amount, metavar="N", help="parameters at most: 100000, 1.5M or 50%%")
    goals.add_argument("--max-macs", type=amount, metavar="N", help="multiply-accumulates at most: 60M or 50%%")
    goals.add_argument("--max-latency-ms", type=float, metavar="T", help="measured time of one image at most")
    add("--threads", type=positive, default=1, metavar="N", help="of latency measurements (%(default)s)")
    add(
        "--multiple",
        type=positive,
        default=8,
        metavar="N",
        help="round widths up to multiples of it; 8 is fast (%(default)s)",
    )
    add("--floor", type=positive, default=8, metavar="N", help="channels that every layer keeps (%(default)s)")
    add(
        "--max-layer-ratio",
        type=float,
        default=1.0,
        metavar="R",
        help="largest share of a layer to prune (%(default)s)",
    )
    add(
        "--threshold-cap",
        action=argparse.BooleanOptionalAction,
        help="no threshold above the smallest of the norms' maxima (default: with --ratio, not with a budget)",
    )
    add(
        "--rule",
        choices=RULES,
        default="threshold",
        help="expansion: MobileNetV2's hidden channels alone (%(default)s)",
    )
    add("--score", choices=list(CRITERIA), default="gamma", help="what ranks the channels (%(default)s)")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=f"of {', '.join(KINDS)}: (all)")
    add("--data", metavar="DIR", help="shard folder (or photos) for the proof, for --recalibrate and for some scores")
    add(
        "--score-batches",
        type=positive,
        default=8,
        metavar="N",
        help=f"batches of {BATCH_SIZE} for a score (%(default)s)",
    )
    add("--recalibrate", type=not_negative, default=0, metavar="N", help="measure norm statistics anew over N batches")
    add("--fold", action=argparse.BooleanOptionalAction, default=True, help="pass on what pruned channels' biases add")
    add("--seed", type=not_negative, default=0, help="of the random proof images (%(default)s)")
    command = shlex.join(["python", "-m", "prune", *arguments])
    return PruneOptions(**vars(parser.parse_args(arguments)), command=command)


@dataclass(frozen=True)
class CurveOptions:
    """model, data, out: as of one pruning. rates: shares to prune per round, each a curve of `rounds` rounds.
    config: YAML that trains after each round, started by `launcher`; None trains nothing. unstructured: shares of
    single weights to set to zero."""

    model: str
    data: str
    out: Path
    rates: Sequence[float]
    rounds: int
    config: str | None
    launcher: str
    unstructured: Sequence[float]
    score: str
    multiple: int
    floor: int
    threshold_cap: bool
    command: str


def parse_curve_options(arguments: Sequence[str], *, description: str | None) -> CurveOptions:
    parser = _parser("python -m prune.curve", description)
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="folder of the trained model")
    add("--data", required=True, metavar="DIR", help="shard folder with labels that accuracy is measured on")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for the curves and the models of all rounds")
    add("--rates", type=shares, default=[0.05, 0.1], metavar="R,R", help="share to prune per round (0.05,0.1)")
    add("--rounds", type=positive, default=5, metavar="N", help="of each rate (%(default)s)")
    add("--config", metavar="FILE", help="how to train after each round; without it, nothing is trained")
    add("--launcher", default="", metavar="COMMAND", help='for the training, for example "horovodrun -np 2"')
    add("--unstructured", type=shares, default=[0.2, 0.4, 0.6, 0.8], metavar="R,R", help="(0.2,0.4,0.6,0.8)")
    add("--score", choices=["gamma", "l2"], default="gamma", help="what ranks the channels (%(default)s)")
    add("--multiple", type=positive, default=8, metavar="N", help="round widths up to multiples of it (%(default)s)")
    add("--floor", type=positive, default=8, metavar="N", help="channels that every layer keeps (%(default)s)")
    add(
        "--threshold-cap",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="no threshold above the smallest of the norms' maxima (%(default)s)",
    )
    command = shlex.join(["python", "-m", "prune.curve", *arguments])
    return CurveOptions(**vars(parser.parse_args(arguments)), command=command)


def _parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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


def shares(text: str) -> list[float]:
    """An argparse type: numbers between 0 and 1, separated by commas; nothing for none."""
    try:
        values = [float(part) for part in text.split(",") if part]
    except ValueError:
        values = [0.0]
    if not all(0 < value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} must be shares between 0 and 1, such as 0.05,0.1")
    return values
