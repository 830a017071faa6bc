"""From a saved model to a narrower one, with everything that is known about the pruning.

pruned = prune_model(PruneOptions(model="runs/a/best", out=Path("runs/a/pruned"), max_macs=60e6))
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data.loading.image_sets import ImageSet, ImageSubset, open_images
from models.artifact import ArtifactMeta, load_artifact
from models.cost import count_cost
from models.errors import ModelError
from models.formats.latency import measure_latency
from models.student import Student
from models.trial_pass import require_size
from prune.bn_recalibration import recalibrate
from prune.equivalence import NUM_IMAGES, check_inputs
from prune.importance import NEEDS_DATA, Batch
from prune.options import BATCH_SIZE, PruneOptions, check_options
from prune.plan import make_plan, require_replaceable, save_pruned
from prune.pruner import prune_student
from prune.report import latency_warnings, pruning_warnings, recalibration_warnings
from prune.selection import find_candidates
from train.evaluation.model_inputs import labelled_images, model_inputs


@dataclass(frozen=True)
class PrunedModel:
    """student: float32, in eval mode on the CPU. record: the content of prune.json but for the files' hashes; its
    `remarks` are warnings.
    files: some of those that were written, for the user to look at."""

    student: Student
    record: dict[str, Any]
    files: tuple[Path, ...]


def prune_model(options: PruneOptions, *, progress: Callable[[str], None] = lambda text: None) -> PrunedModel:
    """Rank, choose, rewrite, check and measure; written to `options.out`, if there is one. progress: called with what
    is being done.

    ModelError for options that do not go together, models that cannot be pruned, goals out of reach and an `out` that
    holds something else; NothingToPrune and NotEquivalent, which are ModelErrors, as `prune.pruner.prune_student`.
    """
    check_options(options)
    student, meta = load_artifact(options.model)
    if options.out is not None:
        _check_folder(options.out, meta)
    images, warnings = open_images(options.data) if options.data else (None, [])
    size = int(meta.preprocessing["eval_size"])
    require_size(student, size, whose=options.model)
    if options.score in NEEDS_DATA and images is not None:
        images = labelled_images(images, meta)
    progress("scoring the channels")
    candidates = find_candidates(
        student,
        rule=options.rule,
        score=options.score,
        kinds=options.kinds,
        batches=_spread_batches(images, meta, size, options.score_batches),
    )
    goal = options.goal(count_cost(student, image_size=size), size)
    pruned = prune_student(
        student,
        candidates,
        limits=options.limits,
        goal=goal,
        # Every photo may be the first that can be used.
        inputs=check_inputs(
            size, (batch for batch, _ in _batches(images, meta, size, batch_size=NUM_IMAGES)), seed=options.seed
        ),
        fold=options.fold,
        progress=progress,
    )
    by_gamma = options.score == "gamma"
    warnings = [*warnings, *pruning_warnings(pruned, candidates, meta, goal=goal, by_gamma=by_gamma, data=options.data)]
    num_batches = 0
    if options.recalibrate:
        assert options.data is not None
        progress("recalibrating")
        sizes: list[int] = []
        batches = _spread_batches(images, meta, size, options.recalibrate)
        num_batches = recalibrate(pruned.student, _counted(batches, sizes))
        warnings += recalibration_warnings(sum(sizes), options.recalibrate * BATCH_SIZE, data=options.data)
    progress("measuring latency")
    before, after = (
        measure_latency(model, image_size=size, threads=options.threads) for model in (student, pruned.student)
    )
    warnings += latency_warnings(before, after, goal=goal, multiple=options.multiple)
    record = make_plan(
        pruned,
        candidates,
        command=options.command,
        source={"model": str(meta.path), "sha256": meta.sha256},
        rule=options.rule,
        score=options.score,
        goal=goal,
        limits=options.limits,
        folded=options.fold,
        latency=(before, after),
        recalibrated_batches=num_batches,
        warnings=warnings,
    )
    files = () if options.out is None else save_pruned(pruned.student, meta, options.out, record)
    return PrunedModel(pruned.student, record, tuple(files))


def _check_folder(out: Path, meta: ArtifactMeta) -> None:
    """What would be replaced must be another pruning."""
    if meta.path.resolve() == out.resolve():
        raise ModelError(f"--out {out} is the model itself; name another folder")
    if out.exists() and not out.is_dir():
        raise ModelError(f"--out {out}: is a file; name a folder")
    require_replaceable(out)


def _spread_batches(images: ImageSet | None, meta: ArtifactMeta, size: int, count: int) -> Iterator[Batch]:
    """Of images from all over the set: the first ones may be of one class."""
    some = ImageSubset(images, count=count * BATCH_SIZE, shuffled=True) if images is not None else None
    return _batches(some, meta, size, batch_size=BATCH_SIZE)


def _batches(images: ImageSet | None, meta: ArtifactMeta, size: int, *, batch_size: int) -> Iterator[Batch]:
    if images is None:
        return iter(())
    return model_inputs(images, meta, size=size, batch_size=batch_size, max_batches=sys.maxsize)


def _counted(batches: Iterable[Batch], sizes: list[int]) -> Iterator[Tensor]:
    """The images; appends how many there were. A single image has no statistics."""
    for images, _ in batches:
        if len(images) > 1:
            sizes.append(len(images))
            yield images
