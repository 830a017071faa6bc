"""The whole page from folders: `html = build_page(material, command="python -m train.report ...", most_photos=500)`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from data.errors import DataError
from models.errors import ModelError
from train.distillation.teacher import teacher_paths
from train.report_page.charts.palette import COLOURS, DARK_COLOURS
from train.report_page.error_section import behaviour_section
from train.report_page.export_and_prune_records import SavedRecord
from train.report_page.exports_section import exports_section
from train.report_page.header import page_header
from train.report_page.inputs import Material
from train.report_page.latency import ROUNDS, subjects, time_entries
from train.report_page.markup import Html, tag
from train.report_page.model_entries import (
    BEFORE_EXPORT,
    EXPORTED,
    ModelEntry,
    export_entries,
    file_gap,
    photos_of,
    pruned_entry,
    role_of,
    run_entry,
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
    material: Material, *, command: str, most_photos: int, thumbnails: bool, workers: int, bar: Bar
) -> tuple[Html, list[str]]:
    """most_photos: how many validation photos each model is asked about; 0 for none. thumbnails: show its mistakes.
    bar: (what, total) -> the progress bar of a long part. Also returns what the page says that it could not show."""
    notes = list(material.notes)
    roles = _roles(material.records)
    entries = _model_entries(material, roles, notes)
    with bar(f"Timing {count(len(subjects(entries)), 'network')}", ROUNDS) as advance:
        entries, untimed = time_entries(entries, progress=advance)
    notes += untimed
    unasked: list[str] = []
    answers = _answers(material, unasked, most_photos=most_photos, workers=workers, bar=bar)
    records = material.records
    of_runs = {record.name: answers[record.name] for record in records if record.name in answers}
    of_prunes = {prune.name: answers[prune.name] for prune in material.prunes if prune.name in answers}
    entries = _once([_measured(stage, of_prunes.get(stage.name)) for stage in entries])
    names = [record.name for record in records] + [stage.name for stage in entries]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    sections = [
        results_section(entries, places, remarks=[_asked(name, one) for name, one in of_prunes.items()])
        if entries
        else None,
        runs_section(records, roles) if records else None,
        curves_section(records, places) if records else None,
        widths_section(material.prunes),
        exports_section(material.exports),
        behaviour_section(of_runs, unasked, thumbnails=thumbnails) if of_runs or unasked else None,
        bad_section(records) if records else None,
        commands_section(records, material.prunes, material.exports, command=command),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"Slimheads: {', '.join(material.names)}"),
        Html(f"<style>{STYLE}</style>"),
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = tag(
        "body",
        page_header(entries, with_widths=bool(material.prunes), with_exports=bool(material.exports)),
        tag("main", *(tag("p", note, class_="note warn") for note in notes), *sections),
        tag("footer", f"Made {made}. This file is whole: it loads nothing and runs no script."),
    )
    html = Html("<!doctype html>\n" + tag("html", head, body, lang="en") + "\n")
    return html, [*notes, *unasked]


def _roles(records: Sequence[RunRecord]) -> dict[str, str]:
    models = [(record.config.get("teacher") or {}).get("model") for record in records]
    teachers = {Path(path).resolve() for model in models if model for path in teacher_paths(model)}
    return {record.name: role_of(record, teachers) for record in records}


def _model_entries(material: Material, roles: Mapping[str, str], notes: list[str]) -> list[ModelEntry]:
    entries = []
    for record in material.records:
        with _noting(notes, f"{record.name}: its model cannot be compared"):
            stage = run_entry(record, role=roles[record.name])
            entries += [stage] if stage else []
    for prune in material.prunes:
        with _noting(notes, f"{prune.name}: the pruned model cannot be compared"):
            entries.append(pruned_entry(prune, read_meta(prune.path)))
    for export in material.exports:
        with _noting(notes, f"{export.name}: its files cannot be compared"):
            entries += export_entries(export, read_meta(export.path))
            gaps = [file_gap(export, values) for values in export.content["variants"].values()]
            notes += [f"{export.name}: {gap}; it is not compared." for gap in gaps if gap]
    return entries


@contextmanager
def _noting(notes: list[str], what: str) -> Iterator[None]:
    """A model that cannot be built costs its row, not the page."""
    try:
        yield
    except (ModelError, TypeError, ValueError, KeyError, AttributeError) as error:
        notes.append(f"{what}: {error}.")


def _answers(
    material: Material, notes: list[str], *, most_photos: int, workers: int, bar: Bar
) -> dict[str, Predictions]:
    """Of the runs' models and of the pruned ones, those with the same photos in one pass."""
    found: dict[str, Predictions] = {}
    missing: dict[str, str] = {}
    for data, models in _questions(material, missing, most_photos=most_photos).items():
        try:
            with bar(f"Asking {count(len(models), 'model')} about {data}", most_photos) as advance:
                answered, refused = collect_predictions(
                    models, data, most=most_photos, workers=workers, progress=advance
                )
        except DataError as error:
            missing |= dict.fromkeys(models, str(error))
            continue
        found |= answered
        missing |= refused
    notes += [f"{name}: confusion, calibration and mistakes are not shown: {why}." for name, why in missing.items()]
    return found


def _questions(material: Material, missing: dict[str, str], *, most_photos: int) -> dict[str, dict[str, Path]]:
    """Photos -> name -> model to ask about them. A pruned model is asked about the photos of the run that it started
    or came from."""
    questions: dict[str, dict[str, Path]] = {}
    for record in material.records:
        data = photos_of(record)
        if record.model_path is None or not data or not most_photos:
            missing[record.name] = (
                "no model" if record.model_path is None else "no validation photos" if not data else "not asked for"
            )
            continue
        questions.setdefault(data, {})[record.name] = record.model_path
    for prune in material.prunes if most_photos else ():
        near = [photos_of(record) for record in material.records if _is_kin(record, prune)]
        if near and near[0]:
            questions.setdefault(near[0], {})[prune.name] = prune.path
    return questions


def _is_kin(record: RunRecord, prune: SavedRecord) -> bool:
    started_from = (record.config.get("model") or {}).get("artifact")
    if started_from and Path(started_from).resolve() == prune.path.resolve():
        return True
    source = prune.content["source"]
    if source.get("model") and Path(source["model"]).resolve().is_relative_to(record.path.resolve()):
        return True
    return record.meta is not None and record.meta.sha256 == source["sha256"]


def _once(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Without the rows of exported weights that a run or a pruned model on the page stands for."""
    shown = {
        stage.sha256 for stage in entries if stage.role not in (BEFORE_EXPORT, EXPORTED) and stage.mean_top1 is not None
    }
    return [stage for stage in entries if stage.role != BEFORE_EXPORT or stage.sha256 not in shown]


def _asked(name: str, answers: Predictions) -> str:
    part = "all" if answers.num_photos == answers.num_all else f"{answers.num_photos:,} evenly spaced of"
    return f"{name} was asked about {part} {count(answers.num_all, 'photo')} of {answers.data} for this page."


def _measured(stage: ModelEntry, answers: Predictions | None) -> ModelEntry:
    """With the accuracy that its answers have."""
    if answers is None or not answers.tasks:
        return stage
    shares = answers.top1
    asked, photos = answers.num_photos, answers.num_all
    return replace(
        stage,
        mean_top1=sum(shares.values()) / len(shares),
        top1=shares,
        data=answers.data,
        precision=PRECISION,
        part=f"{asked:,} of {photos:,} photos" if asked < photos else "",
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
