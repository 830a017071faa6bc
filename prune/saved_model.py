"""From a saved model to a narrower one, with everything that is known about the pruning.

pruned = prune_model(PruneOptions(model="runs/a/best", out=Path("runs/a/pruned"), max_macs=60e6))
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data.loading.image_sets import FileImages, ImageSet, ImageSubset, ShardImages, open_images
from models.artifact import ArtifactMeta, load_artifact
from models.channel_groups.narrow import Norm
from models.errors import ModelError
from models.formats.int8_size import predicted_int8_bytes
from models.formats.latency import measure_latency
from models.student import Student
from models.trial_pass import require_size
from prune.accuracy import is_trained_on, measure_accuracy, photos_with_labels
from prune.bn_recalibration import recalibrate
from prune.equivalence import NUM_IMAGES, check_inputs, require_varied
from prune.importance import NEEDS_DATA, Batch
from prune.options import BATCH_SIZE, RECALIBRATE, RECALIBRATE_FROM, PruneOptions, check_options
from prune.plan import make_plan, require_replaceable, save_pruned
from prune.pruner import prune_student
from prune.report import few_photos_warning, latency_warnings, most_cut, pruning_warnings, recalibration_warnings
from prune.selection import find_candidates
from train.evaluation.model_inputs import labelled_images, model_inputs

Images = ShardImages | FileImages | None


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
    holds something else; NothingToPrune and NotEquivalent, which are ModelErrors, as `prune.pruner.prune_student`;
    ConstantAnswers, another, for a network that no longer tells images apart.

    The same options give the same network and record on the same machine and threads, but for measured milliseconds.
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
    goal = options.goal(student, meta, size)
    # Every photo may be the first that can be used.
    inputs = check_inputs(
        size, (batch for batch, _ in _batches(images, meta, size, batch_size=NUM_IMAGES)), seed=options.seed
    )
    pruned = prune_student(
        student, candidates, limits=options.limits, goal=goal, inputs=inputs, fold=options.fold, progress=progress
    )
    by_gamma = options.score == "gamma"
    warnings = [*warnings, *pruning_warnings(pruned, candidates, meta, goal=goal, by_gamma=by_gamma, data=options.data)]
    progress("recalibrating")
    statistics, said = _recalibrated(pruned.student, images, meta, size, options)
    warnings += said
    require_varied(student, pruned.student, inputs, cut=most_cut(pruned))  # of the network that would be written
    progress("measuring accuracy")
    accuracy, said = _accuracy({"before": student, "after": pruned.student}, images, meta, size, options)
    warnings += said
    bytes_before, bytes_after = (
        predicted_int8_bytes(model, meta.tasks, image_size=size) for model in (student, pruned.student)
    )
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
        folded=options.fold,
        int8_bytes=(bytes_before, bytes_after),
        latency=(before, after),
        statistics=statistics,
        accuracy=accuracy,
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
    return _batches(some, meta, size)


def _batches(
    images: ImageSet | None, meta: ArtifactMeta, size: int, *, batch_size: int = BATCH_SIZE
) -> Iterator[Batch]:
    if images is None:
        return iter(())
    return model_inputs(images, meta, size=size, batch_size=batch_size, max_batches=sys.maxsize)


def _recalibrated(
    student: Student, images: Images, meta: ArtifactMeta, size: int, options: PruneOptions
) -> tuple[dict[str, int], list[str]]:
    """Measures the norms' statistics anew, in place; on how much, and warnings."""
    nothing = {"batches": 0, "photos": 0}
    wanted = RECALIBRATE if options.recalibrate is None else options.recalibrate
    if images is None or not wanted or not any(isinstance(module, Norm) for module in student.modules()):
        return nothing, []
    assert options.data is not None
    if options.recalibrate is None and (there := int(images.counts.sum())) < RECALIBRATE_FROM:
        return nothing, [few_photos_warning(there, RECALIBRATE_FROM, data=options.data)]
    sizes: list[int] = []
    batches = recalibrate(student, _counted(_spread_batches(images, meta, size, wanted), sizes))
    # What is asked for by default is the most that is of use, so that less needs no words.
    asked = RECALIBRATE_FROM if options.recalibrate is None else wanted * BATCH_SIZE
    return {"batches": batches, "photos": sum(sizes)}, recalibration_warnings(sum(sizes), asked, data=options.data)


def _accuracy(
    students: Mapping[str, Student], images: Images, meta: ArtifactMeta, size: int, options: PruneOptions
) -> tuple[dict[str, Any] | None, list[str]]:
    """What prune.json says of it, None where there is nothing to measure it on; and warnings."""
    if images is None or not options.measure:
        return None, []
    assert options.data is not None
    labelled, why_not = photos_with_labels(images, meta)
    tasks = {}
    if labelled is not None:
        tasks = measure_accuracy(students, _batches(ImageSubset(labelled, count=options.measure), meta, size))
        why_not = "none of the photos has a label of the model's tasks"
    if not tasks:
        return None, [f"accuracy was not measured on {options.data}: {why_not}"] if why_not else []
    told = {"trained_on": is_trained_on(meta, options.data), "ranked_by": options.score in NEEDS_DATA}
    return {"data": options.data, **told, "tasks": tasks}, []


def _counted(batches: Iterable[Batch], sizes: list[int]) -> Iterator[Tensor]:
    """The images; appends how many there were. A single image has no statistics."""
    for images, _ in batches:
        if len(images) > 1:
            sizes.append(len(images))
            yield images
