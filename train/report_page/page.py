"""The whole page from folders.

html, warnings = build_page(
    inputs, command="python -m train.report ...", max_images=500, thumbnails=True, workers=1, bar=bar
)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from data.errors import DataError
from models.errors import ModelError
from train.distillation.teacher import teacher_paths
from train.report_page.charts.palette import COLOURS, DARK_COLOURS
from train.report_page.error_section import error_section
from train.report_page.export_and_prune_records import SavedRecord
from train.report_page.exports_section import exports_section
from train.report_page.header import page_header
from train.report_page.inputs import ReportInputs
from train.report_page.latency import ROUNDS, subjects, time_entries
from train.report_page.markup import Html, tag
from train.report_page.model_entries import (
    BEFORE_EXPORT,
    EXPORTED,
    ModelEntry,
    export_entries,
    file_error,
    pruned_entry,
    role_of,
    run_entry,
    validation_data,
)
from train.report_page.numbers import count
from train.report_page.predictions import PRECISION, Predictions, collect_predictions
from train.report_page.provenance_section import bad_section, commands_section, widths_section
from train.report_page.results_section import results_section
from train.report_page.run_record import RunRecord
from train.report_page.runs_section import curves_section, runs_section
from train.report_page.saved_model import read_meta

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def build_page(
    inputs: ReportInputs, *, command: str, max_images: int, thumbnails: bool, workers: int, bar: Bar
) -> tuple[Html, list[str]]:
    """max_images: validation images that each model is evaluated on; 0 for none. thumbnails: show its mistakes. bar:
    (what, total) -> the progress bar of a long part. Also returns what the page says that it could not show."""
    warnings = list(inputs.warnings)
    runs, prunes = inputs.runs, inputs.prunes
    roles = _roles(runs)
    entries = _model_entries(inputs, roles, warnings)
    with bar(f"Timing {count(len(subjects(entries)), 'network')}", ROUNDS) as advance:
        entries, untimed = time_entries(entries, progress=advance)
    warnings += untimed
    not_evaluated: list[str] = []
    predictions = _predictions(inputs, not_evaluated, max_images=max_images, workers=workers, bar=bar)
    of_runs = {run.name: predictions[run.name] for run in runs if run.name in predictions}
    of_prunes = {prune.name: predictions[prune.name] for prune in prunes if prune.name in predictions}
    entries = _once([_with_accuracy(entry, of_prunes.get(entry.name)) for entry in entries])
    names = [run.name for run in runs] + [entry.name for entry in entries]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    sections = [
        results_section(entries, places, sentences=[_evaluated(name, one) for name, one in of_prunes.items()])
        if entries
        else None,
        runs_section(runs, roles) if runs else None,
        curves_section(runs, places) if runs else None,
        widths_section(prunes),
        exports_section(inputs.exports),
        error_section(of_runs, not_evaluated, thumbnails=thumbnails) if of_runs or not_evaluated else None,
        bad_section(runs) if runs else None,
        commands_section(runs, prunes, inputs.exports, command=command),
    ]
    html = whole_page(
        f"Slimheads: {', '.join(inputs.names)}",
        page_header(entries, with_widths=bool(prunes), with_exports=bool(inputs.exports)),
        tag("main", *(tag("p", warning, class_="note warn") for warning in warnings), *sections),
    )
    return html, [*warnings, *not_evaluated]


def whole_page(title: str, *body: Html) -> Html:
    """A self-contained page in the style of ours, with the time of its making."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    footer = tag("footer", f"Made {made}. This file is whole: it loads nothing and runs no script.")
    return Html("<!doctype html>\n" + tag("html", head, tag("body", *body, footer), lang="en") + "\n")


def _roles(runs: Sequence[RunRecord]) -> dict[str, str]:
    models = [(run.config.get("teacher") or {}).get("model") for run in runs]
    teachers = {Path(path).resolve() for model in models if model for path in teacher_paths(model)}
    return {run.name: role_of(run, teachers) for run in runs}


def _model_entries(inputs: ReportInputs, roles: Mapping[str, str], warnings: list[str]) -> list[ModelEntry]:
    entries = []
    for run in inputs.runs:
        with _warning(warnings, f"{run.name}: its model cannot be compared"):
            entry = run_entry(run, role=roles[run.name])
            entries += [entry] if entry else []
    for prune in inputs.prunes:
        with _warning(warnings, f"{prune.name}: the pruned model cannot be compared"):
            entries.append(pruned_entry(prune, read_meta(prune.path)))
    for export in inputs.exports:
        with _warning(warnings, f"{export.name}: its files cannot be compared"):
            entries += export_entries(export, read_meta(export.path))
            errors = [file_error(export, values) for values in export.content["variants"].values()]
            warnings += [f"{export.name}: {error}; it is not compared." for error in errors if error]
    return entries


@contextmanager
def _warning(warnings: list[str], what: str) -> Iterator[None]:
    """A model that cannot be built costs its row, not the page."""
    try:
        yield
    except (ModelError, TypeError, ValueError, KeyError, AttributeError) as error:
        warnings.append(f"{what}: {error}.")


def _predictions(
    inputs: ReportInputs, warnings: list[str], *, max_images: int, workers: int, bar: Bar
) -> dict[str, Predictions]:
    """Of the runs' models and of the pruned ones, those with the same validation data in one pass."""
    predictions: dict[str, Predictions] = {}
    missing: dict[str, str] = {}
    for data, models in _to_evaluate(inputs, missing, max_images=max_images).items():
        try:
            with bar(f"Asking {count(len(models), 'model')} about {data}", max_images) as advance:
                found, refused = collect_predictions(models, data, most=max_images, workers=workers, progress=advance)
        except DataError as error:
            missing |= dict.fromkeys(models, str(error))
            continue
        predictions |= found
        missing |= refused
    warnings += [f"{name}: confusion, calibration and mistakes are not shown: {why}." for name, why in missing.items()]
    return predictions


def _to_evaluate(inputs: ReportInputs, missing: dict[str, str], *, max_images: int) -> dict[str, dict[str, Path]]:
    """Data -> name -> model to evaluate on it. A pruned model is evaluated on the data of the run that it started or
    came from. missing: gets the runs that are not evaluated, and why."""
    chosen: dict[str, dict[str, Path]] = {}
    for run in inputs.runs:
        data = validation_data(run)
        if run.model_path is None or not data or not max_images:
            missing[run.name] = (
                "no model" if run.model_path is None else "no validation photos" if not data else "not asked for"
            )
            continue
        chosen.setdefault(data, {})[run.name] = run.model_path
    for prune in inputs.prunes if max_images else ():
        near = [validation_data(run) for run in inputs.runs if _is_kin(run, prune)]
        if near and near[0]:
            chosen.setdefault(near[0], {})[prune.name] = prune.path
    return chosen


def _is_kin(run: RunRecord, prune: SavedRecord) -> bool:
    """The run started from the pruned model, or the pruned model came from the run."""
    started_from = (run.config.get("model") or {}).get("artifact")
    if started_from and Path(started_from).resolve() == prune.path.resolve():
        return True
    source = prune.content["source"]
    if source.get("model") and Path(source["model"]).resolve().is_relative_to(run.path.resolve()):
        return True
    return run.meta is not None and run.meta.sha256 == source["sha256"]


def _once(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Without the rows of exported weights that a run or a pruned model on the page stands for."""
    shown = {
        entry.sha256 for entry in entries if entry.role not in (BEFORE_EXPORT, EXPORTED) and entry.mean_top1 is not None
    }
    return [entry for entry in entries if entry.role != BEFORE_EXPORT or entry.sha256 not in shown]


def _evaluated(name: str, predictions: Predictions) -> str:
    part = "all" if predictions.num_images == predictions.num_all else f"{predictions.num_images:,} evenly spaced of"
    return f"{name} was asked about {part} {count(predictions.num_all, 'photo')} of {predictions.data} for this page."


def _with_accuracy(entry: ModelEntry, predictions: Predictions | None) -> ModelEntry:
    """With the accuracy that its predictions have."""
    if predictions is None or not predictions.tasks:
        return entry
    shares = predictions.top1
    evaluated, total = predictions.num_images, predictions.num_all
    return replace(
        entry,
        mean_top1=sum(shares.values()) / len(shares),
        top1=shares,
        errors=predictions.errors,
        data=predictions.data,
        precision=PRECISION,
        part=f"{evaluated:,} of {total:,} photos" if evaluated < total else "",
    )


_LIGHT = "--page:#fbfaf7;--card:#fff;--ink:#1b1f24;--soft:#5b6470;--rule:#e3e0d8;--tint:#eef3f8;--mark:0,114,178;"
_DARK = "--page:#14171b;--card:#1c2127;--ink:#e8eaed;--soft:#9aa4b0;--rule:#323943;--tint:#222a33;--mark:86,180,233;"


def _root(base: str, colours: tuple[str, ...]) -> str:
    series = "".join(f"--series-{place}:{colour};" for place, colour in enumerate(colours))
    return f":root{{{base}{series}}}"


STYLE = "\n".join(
    [
        _root(f"color-scheme:light dark;{_LIGHT}", COLOURS),
        f"@media (prefers-color-scheme:dark){{{_root(_DARK, DARK_COLOURS)}}}",
        f"@media print{{{_root(_LIGHT, COLOURS)}}}",
        Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
    ]
)
