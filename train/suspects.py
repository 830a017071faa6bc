"""List the photos whose labels are probably wrong: those that models contradict which were not trained on them.

    python -m train.suspects --config mine.yaml --source photos.csv --out suspects [--folds 5] [key=value ...]
    python -m train.suspects --model A --data shards-a/val --model B --data shards-b/val --out suspects

The first form parts the photos in folds and trains the config once for each fold, on all the others; every photo is
judged by the model that has not seen it. Stopped at any moment, the same command continues. The second form takes
models that are trained already, each with photos that it has not seen.

Written to --out: suspects.csv (all labels, the worst first), suspects.html (the worst to look at), and corrections.csv,
which proposes the models' answer for the worst: take out the rows that are wrong, and give the others to
python -m data.correct.
"""

import csv
import io
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.model_path import exit_if_missing, given_as, require_models

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

import torch

from data.errors import DataError
from data.files import write_result
from data.index import Index, load_index
from data.index.class_counts import count_classes
from data.loading.image_sets import ImageSubset, ShardImages
from data.shards.corrections import COLUMNS
from launch.arguments import not_negative, positive
from launch.exit_codes import ExitCode
from train.cli.arguments import DEFAULT_BATCH_SIZE, command_parser, parse_as
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device
from train.errors import CommError, NumbersExploded
from train.evaluation.ensemble import load_ensemble
from train.evaluation.evaluation_pass import rank_batches, run_evaluation
from train.evaluation.label_confidence import FoldLabels, Suspect, rank_suspects
from train.evaluation.prediction import harmless
from train.pipeline import FoldPlan, StageFailed, check_plan, train_folds
from train.report_page.predictions import thumbnail
from train.report_page.suspects_page import TaskLabels, suspects_page
from train.tracking.console import image_progress

_SHOWN = 10
_HEADER = ("image", "task", "label", "answer", "probability_of_label", "probability_of_answer", "fold")


@dataclass(frozen=True)
class SuspectsOptions:
    """What the command was asked for; see its --help. command: the words that started it."""

    config: str | None
    source: str | None
    folds: int
    group: tuple[str, ...]
    build: str
    launcher: str
    model: tuple[str, ...]
    data: tuple[str, ...]
    out: Path
    top: int
    thumbnails: bool
    workers: int | None
    device: str
    overrides: tuple[str, ...]
    command: str

    @property
    def plan(self) -> FoldPlan | None:
        """What has to be trained; None where the models are given."""
        if self.config is None or self.source is None:
            return None
        return FoldPlan(
            source=self.source,
            num_folds=self.folds,
            out=self.out,
            config=self.config,
            overrides=self.overrides,
            groups=self.group,
            build=self.build,
            launcher=self.launcher,
        )


@dataclass(frozen=True)
class _Judged:
    """One model's photos, and what it says of their labels."""

    images: ImageSubset
    labels: FoldLabels


def parse_options(arguments: Sequence[str] | None = None) -> SuspectsOptions:
    """Exits with 2 where one is wrong."""
    parser = command_parser("train.suspects", __doc__)
    words = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser.set_defaults(command=shlex.join(["python", "-m", "train.suspects", *words]))
    add = parser.add_argument
    add("--config", metavar="YAML", help="the training, as train/main.py takes it")
    add("--source", metavar="SOURCE", help="photos and labels, as data.build takes them")
    add("--folds", type=positive, default=5, metavar="K", help="parts of the photos, and trainings (%(default)s)")
    add("--group", action="append", default=[], metavar="WHAT", help="never parted by the folds, as for data.build")
    add("--build", default="", metavar="WORDS", help='further words for data.build, as --build="--resize 256"')
    add("--launcher", default="", metavar="WORDS", help='before the trainings, as "horovodrun -np 2"')
    add("--model", action="append", default=[], metavar="PATH", help="a trained model; may be given several times")
    add("--data", action="append", default=[], metavar="SHARDS", help="for each --model: photos it has not seen")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of everything that is written")
    add("--top", type=positive, default=100, metavar="N", help="labels to propose another class for (%(default)s)")
    add("--no-thumbnails", dest="thumbnails", action="store_false", help="a page that names the photos alone")
    add("--workers", type=not_negative, metavar="N", help="decoding processes when judging (default: by cores)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="that judges; default: a GPU if there is one")
    add("overrides", nargs="*", metavar="key=value", help="settings that replace those of the config")
    options = parse_as(SuspectsOptions, parser, arguments)
    if options.model or options.data:
        if len(options.model) != len(options.data):
            parser.error(f"{len(options.model)} --model and {len(options.data)} --data: each model needs its photos")
        if options.config or options.source or options.overrides:
            parser.error("--model and --data are trained already: leave out --config, --source and key=value")
    elif options.plan is None:
        parser.error("needs --config and --source, or --model and --data")
    elif options.folds < 2:
        parser.error(f"--folds {options.folds}: must be at least 2")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)

    def before() -> None:
        if (plan := options.plan) is not None:
            check_plan(plan)

    try:
        return run_command(lambda comm: _suspects(options, comm), before=before)
    except StageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code


def _suspects(options: SuspectsOptions, comm: Comm) -> ExitCode:
    if comm.size > 1:
        raise CommError('train.suspects starts the ranks itself; start it alone, with --launcher "horovodrun -np 2"')
    pairs = list(zip(options.model, options.data, strict=True))
    notes: list[str] = []
    if (plan := options.plan) is not None:
        folds = train_folds(plan)
        pairs = [(fold.model, fold.val) for fold in folds]
        num_photos = load_index(folds[0].train).num_samples + load_index(folds[0].val).num_samples
        if never := num_photos - sum(load_index(fold.val).num_samples for fold in folds):
            notes.append(f"{never:,} photos are in no fold, as the only ones of a class; their labels are not judged")
    require_models(*(model for model, _ in pairs))
    indices = [load_index(data) for _, data in pairs]
    tasks = _tasks_to_judge(indices, notes)
    device = choose_device(options.device, comm, deterministic=True)
    judged = []
    for (model, _), index in zip(pairs, indices, strict=True):
        judged.append(_judge(model, index, tasks, options=options, device=device, comm=comm, notes=notes))
    _require_once([one.labels.keys for one in judged], [data for _, data in pairs])
    for note in notes:
        print(f"note: {note}")
    _write(options, judged, notes)
    return ExitCode.DONE


def _tasks_to_judge(indices: Sequence[Index], notes: list[str]) -> set[str]:
    """Those with labels of two classes; with one alone, nothing can contradict it. DataError where there are none."""
    classes: dict[str, set[str]] = {task: set() for index in indices for task in index.tasks}
    for index in indices:
        for task, counts in count_classes(index).items():
            classes[task].update(name for name, count in zip(index.tasks[task], counts, strict=False) if count)
    few = {task: names for task, names in classes.items() if len(names) < 2}
    said = [f"task {task!r} has {f'one class, {min(names)!r}' if names else 'no label'}" for task, names in few.items()]
    if len(few) == len(classes):
        raise DataError(
            f"{', '.join(index.root for index in indices)}: {', '.join(said) or 'there is no task'}; a label can be "
            "contradicted where a task has labels of two classes"
        )
    notes += [f"{text}: not judged" for text in said]
    return set(classes) - set(few)


def _judge(
    model: str,
    index: Index,
    tasks: set[str],
    *,
    options: SuspectsOptions,
    device: torch.device,
    comm: Comm,
    notes: list[str],
) -> _Judged:
    ensemble, said = load_ensemble([model], device=device, tasks=index.tasks)
    notes += said
    if _path_of(ensemble.members[0].meta.provenance) == Path(index.root).resolve():
        raise DataError(f"{index.root}: {model} was trained on these photos; name photos that it has not seen")
    images = ImageSubset(ShardImages(index), count=index.num_samples)
    labels = FoldLabels(
        tasks={task: names for task, names in ensemble.tasks.items() if task in tasks},
        keys=[images.name(0, number)[1] for number in range(index.num_samples)],
    )
    batches = rank_batches(images, comm, sizes=ensemble.sizes, batch_size=DEFAULT_BATCH_SIZE, workers=options.workers)
    with image_progress(f"Judging {index.root}", total=index.num_samples) as advance:
        seen = run_evaluation(
            {"model": ensemble},
            batches,
            [labels],
            num_samples=index.num_samples,
            what=f"judging {index.root}",
            device=device,
            progress=advance,
        )
    if seen.num_bad:
        named = ", ".join(record.key for record in seen.bad[:_SHOWN])
        notes.append(f"{index.root}: {seen.num_bad:,} photos cannot be used and are left out: {named}")
    if labels.num_unanswered:
        text = f"{model}: no finite answer for {labels.num_unanswered:,} labels of {index.root}"
        if not any(labels.columns(task).size for task in labels.tasks):
            raise NumbersExploded(f"{text}, which is all; train it again with precision=fp32")
        notes.append(f"{text}; they are left out")
    return _Judged(images, labels)


def _path_of(provenance: Mapping[str, Any]) -> Path | None:
    """Of the photos that a model was trained on, as far as it says."""
    trained_on = (provenance.get("data") or {}).get("train")
    return Path(trained_on).resolve() if trained_on else None


def _require_once(keys: Sequence[Sequence[str]], data: Sequence[str]) -> None:
    """DataError for a photo that two models judge: which of the two would say what is proposed?"""
    first: dict[str, int] = {}
    for number, names in enumerate(keys):
        for name in names:
            if (other := first.setdefault(name, number)) != number:
                raise DataError(
                    f"{data[number]}: the photo {name!r} is in {data[other]}, too; give each photo to one model"
                )


def _write(options: SuspectsOptions, judged: Sequence[_Judged], notes: Sequence[str]) -> None:
    """The three files, and what to do next."""
    suspects = list(rank_suspects([one.labels for one in judged]))
    counts: dict[str, TaskLabels] = {}
    for one in suspects:
        count = counts.setdefault(one.task, TaskLabels())
        count.num_judged += 1
        count.num_contradicted += one.is_contradicted
    contradicted = [one for one in suspects if one.is_contradicted]
    worst = contradicted[: options.top]
    options.out.mkdir(parents=True, exist_ok=True)
    write_result(options.out / "suspects.csv", _table(_HEADER, map(_row, suspects)))
    # The names as they are: data.correct looks for them.
    fixes = _table(COLUMNS, ((one.image, one.task, one.answer) for one in worst))
    write_result(options.out / "corrections.csv", fixes)

    def picture(one: Suspect) -> str | None:
        return thumbnail(judged[one.fold].images.read(0, one.place)) if options.thumbnails else None

    page = suspects_page(worst, counts, thumbnail=picture, command=options.command, notes=notes)
    write_result(options.out / "suspects.html", page.encode("utf-8", "backslashreplace"))
    _tell(options.out, counts, num_worst=len(worst))


def _tell(out: Path, counts: Mapping[str, TaskLabels], *, num_worst: int) -> None:
    for task, one in counts.items():
        print(f"{task}: {one.num_contradicted:,} of {one.num_judged:,} labels are contradicted")
    print(f"wrote {out / 'suspects.csv'} and, of the worst {num_worst:,}, suspects.html and corrections.csv")
    if num_worst:
        print(f"next: look at {out / 'suspects.html'}, take out of corrections.csv what is wrong there, and then")
        print(f"  python -m data.correct SHARDS {shlex.quote(str(out / 'corrections.csv'))}")


def _row(one: Suspect) -> tuple[str | int, ...]:
    probabilities = (f"{value:.6f}" for value in (one.probability_of_label, one.probability_of_answer))
    return harmless(one.image), one.task, one.label, one.answer, *probabilities, one.fold


def _table(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue().encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.exit(main())
