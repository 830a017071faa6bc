"""Prune a trained model: narrower layers, the same tasks, proved equal to the masked original.

    python -m prune --model runs/a/best --out runs/a/pruned --ratio 0.3
    python -m prune --model runs/a/best --out runs/a/pruned --max-macs 60M --data shards/a/train

Writes model.safetensors and model.json (train/main.py fine-tunes them as `model.artifact`), prune.json (the plan) and
widths.svg. Nothing of the optimizer is carried over. Train with a `sparsity:` section before ranking by gamma.
"""

import argparse
import math
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.model_path import exit_if_missing, given_as

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

from rich.console import Console
from torch import Tensor

from data.loading.image_sets import ImageSet, ImageSubset, open_images
from launch.arguments import not_negative, positive
from launch.exit_codes import ExitCode
from models.artifact import ArtifactMeta, load_artifact
from models.channel_groups import KINDS
from models.cost import Cost, count_cost
from models.errors import ModelError
from models.formats.latency import measure_latency
from models.terminal import print_table
from models.trial_pass import require_size
from prune.bn_recalibration import recalibrate
from prune.equivalence import NUM_IMAGES, proof_inputs
from prune.importance import NEEDS_DATA, SCORES, Batch
from prune.plan import KEPT_WIDER, make_plan, require_replaceable, save_pruned
from prune.pruner import Goal, Limits, prune_student
from prune.report import change_table, latency_remarks, recalibration_remarks, remarks_on
from prune.selection import RULES, find_candidates
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.errors import CommError
from train.evaluation.model_inputs import labelled_images, model_inputs

BATCH_SIZE = 64
_SEEDS = 2**63


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    options.command = shlex.join(["python", "-m", "prune", *words])
    return run_command(lambda comm: _prune(options, comm))


class Share(float):
    """A budget as a share of what the model has now."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    add("--score", choices=list(SCORES), default="gamma", help="what ranks the channels (%(default)s)")
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
    return parser


def amount(text: str) -> int | Share:
    """An argparse type: 100000, 60M, 1.5G, or 50% of the model's."""
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


def _percent(text: str) -> Share:
    try:
        value = float(text[:-1])
    except ValueError:
        value = 0
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 % and below 100 %")
    return Share(value / 100)


def _prune(options: argparse.Namespace, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise CommError("python -m prune works in one process; start it without horovodrun or srun")
    _check(options)
    student, meta = load_artifact(options.model)
    _check_folder(options.out, meta)
    photos, notes = open_images(options.data) if options.data else (None, [])
    size = int(meta.preprocessing["eval_size"])
    require_size(student, size, whose=options.model)
    if options.score in NEEDS_DATA and photos is not None:
        photos = labelled_images(photos, meta)
    console = Console(stderr=True)
    with console.status("reading") as status:

        def progress(text: str) -> None:
            status.update(text)

        progress("scoring the channels")
        candidates = find_candidates(
            student,
            rule=options.rule,
            score=options.score,
            kinds=options.kinds,
            batches=_spread_batches(photos, meta, size, options.score_batches),
        )
        limits, goal = _limits(options), _goal(options, count_cost(student, image_size=size), size)
        pruned = prune_student(
            student,
            candidates,
            limits=limits,
            goal=goal,
            # Every photo may be the first that can be used.
            inputs=proof_inputs(
                size,
                (images for images, _ in _batches(photos, meta, size, batch_size=NUM_IMAGES)),
                seed=options.seed,
            ),
            fold=options.fold,
            progress=progress,
        )
        by_gamma = options.score == "gamma"
        remarks = [
            *notes,
            *remarks_on(pruned, candidates, meta, goal=goal, by_gamma=by_gamma, data=options.data),
        ]
        num_batches = 0
        if options.recalibrate:
            progress("recalibrating")
            sizes: list[int] = []
            batches = _spread_batches(photos, meta, size, options.recalibrate)
            num_batches = recalibrate(pruned.student, _counted(batches, sizes))
            remarks += recalibration_remarks(sum(sizes), options.recalibrate * BATCH_SIZE, data=options.data)
        progress("measuring latency")
        before, after = (
            measure_latency(model, image_size=size, threads=options.threads) for model in (student, pruned.student)
        )
        remarks += latency_remarks(before, after, goal=goal, multiple=options.multiple)
        plan = make_plan(
            pruned,
            candidates,
            command=options.command,
            source={"model": str(meta.path), "sha256": meta.sha256},
            rule=options.rule,
            score=options.score,
            goal=goal,
            limits=limits,
            folded=options.fold,
            latency=(before, after),
            recalibrated_batches=num_batches,
            remarks=remarks,
        )
    written = save_pruned(pruned.student, meta, options.out, plan)
    _report(plan, written, folded=options.fold)
    return ExitCode.DONE


def _check(options: argparse.Namespace) -> None:
    if options.seed >= _SEEDS:
        raise ModelError(f"--seed {options.seed}: seeds are below 2**63")
    if not 0 < options.max_layer_ratio <= 1:
        raise ModelError(f"--max-layer-ratio is {options.max_layer_ratio}; it is a share, above 0 and at most 1")
    if options.max_latency_ms is not None and not 0 < options.max_latency_ms < math.inf:
        raise ModelError(f"--max-latency-ms is {options.max_latency_ms}; it must be above 0, and finite")
    if options.rule == "expansion" and (options.score != "gamma" or options.kinds != list(KINDS)):
        raise ModelError("--rule expansion ranks the expansions by gamma: leave out --score and --kinds, or the rule")
    needs = [f"--score {options.score}"] * (options.score in NEEDS_DATA) + ["--recalibrate"] * bool(options.recalibrate)
    if needs and options.data is None:
        raise ModelError(f"{needs[0]} looks at photos: name a shard folder with --data")


def _check_folder(out: Path, meta: ArtifactMeta) -> None:
    """What would be replaced must be another pruning."""
    if meta.path.resolve() == out.resolve():
        raise ModelError(f"--out {out} is the model itself; name another folder")
    if out.exists() and not out.is_dir():
        raise ModelError(f"--out {out}: is a file; name a folder")
    require_replaceable(out)


def _limits(options: argparse.Namespace) -> Limits:
    cap = options.ratio is not None if options.threshold_cap is None else options.threshold_cap
    return Limits(cap, options.floor, options.max_layer_ratio, options.multiple)


def _goal(options: argparse.Namespace, now: Cost, size: int) -> Goal:
    goals = {
        "ratio": options.ratio,
        "parameters": _absolute(options.max_params, now.parameters),
        "macs": _absolute(options.max_macs, now.macs),
        "latency": options.max_latency_ms,
    }
    kind, value = next((kind, value) for kind, value in goals.items() if value is not None)
    return Goal(kind, value, image_size=size, threads=options.threads)


def _absolute(budget: int | Share | None, now: int) -> int | None:
    return int(budget * now) if isinstance(budget, Share) else budget


def _spread_batches(photos: ImageSet | None, meta: ArtifactMeta, size: int, count: int) -> Iterator[Batch]:
    """Of photos from all over the set: the first ones may be of one class."""
    some = ImageSubset(photos, count=count * BATCH_SIZE, shuffled=True) if photos is not None else None
    return _batches(some, meta, size, batch_size=BATCH_SIZE)


def _batches(photos: ImageSet | None, meta: ArtifactMeta, size: int, *, batch_size: int) -> Iterator[Batch]:
    if photos is None:
        return iter(())
    return model_inputs(photos, meta, size=size, batch_size=batch_size, max_batches=sys.maxsize)


def _counted(batches: Iterable[Batch], sizes: list[int]) -> Iterator[Tensor]:
    """The images; appends how many there were. A single photo has no statistics."""
    for images, _ in batches:
        if len(images) > 1:
            sizes.append(len(images))
            yield images


def _report(plan: Mapping[str, Any], written: Sequence[Path], *, folded: bool) -> None:
    print_table(change_table(plan))
    for remark in plan["remarks"]:
        print(f"warning: {remark}", file=sys.stderr)
    counts = Counter(layer["constants"] for layer in plan["layers"] if "constants" in layer)
    if counts["dropped"] and not folded:
        print(f"constants of pruned channels: dropped in {counts['dropped']} layers, as --no-fold says")
    elif counts["dropped"]:
        print(
            f"constants of pruned channels: folded forward in {counts['folded']} layers, dropped in "
            f"{counts['dropped']}, where padding or attention changes them on the way (prune.json says which)"
        )
    whole = [layer for layer in plan["layers"] if layer["after"] == layer["before"]]
    for why, count in Counter(layer["remark"] for layer in whole if "remark" in layer).items():
        if why.startswith(KEPT_WIDER):
            layers = "1 layer keeps all its" if count == 1 else f"{count} layers keep all their"
            print(f"{layers} channels: {why.removeprefix(KEPT_WIDER)} (prune.json says which)")
    for kind, proof in plan["proof"]["inputs"].items():
        print(
            f"masked = rebuilt on {proof['num_images']} {kind} images: {proof['difference']:.1e} apart, "
            f"largest logit {proof['largest_logit']:.3g}"
        )
    for path in written:
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
