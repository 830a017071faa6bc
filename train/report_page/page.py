"""The whole page from folders: `html = build_page(folders, command="python -m train.report ...", most_photos=1000)`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from data.errors import DataError
from models.artifact import META_NAME, load_artifact_meta
from models.errors import ModelError
from train.report_page.answers import Answers, collect_answers
from train.report_page.behaviour import behaviour_section
from train.report_page.courses import curves_section, runs_section
from train.report_page.gains import by_data, gains_section
from train.report_page.markup import Html, tag
from train.report_page.numerals import megabytes, percent, short
from train.report_page.origins import bad_section, commands_section, widths_section
from train.report_page.run_record import RunRecord, is_run, read_run
from train.report_page.stage import (
    EXPORT_NAME,
    PRUNE_NAME,
    Stage,
    Written,
    export_stages,
    read_written,
    role_of,
    run_stage,
)
from train.report_page.style import STYLE

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass
class Material:
    """What the folders hold. notes: what could not be read, in words."""

    records: list[RunRecord] = field(default_factory=list)
    prunes: list[Written] = field(default_factory=list)
    exports: list[Written] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_material(folders: Sequence[Path]) -> Material:
    """Run folders, folders with a prune.json and folders with an export.json, in the order given; the folder that a
    run started from is looked at for its prune.json, too. ModelError for a folder that is none of these."""
    found = Material()
    for folder in folders:
        files = [name for name in (PRUNE_NAME, EXPORT_NAME) if (folder / name).exists()]
        if not folder.is_dir() or not (files or is_run(folder)):
            raise ModelError(
                f"{folder}: neither a run (config.yaml, metrics.jsonl) nor a folder with {PRUNE_NAME} or {EXPORT_NAME}"
            )
        for name in files:
            _add_written(found, folder, name)
        if is_run(folder):
            record = read_run(folder)
            found.records.append(record)
            origin = Path((record.config.get("model") or {}).get("artifact") or folder)
            if (origin / PRUNE_NAME).exists():
                _add_written(found, origin, PRUNE_NAME)
    found.records = _told_apart(found.records)
    return found


def build_page(material: Material, *, command: str, most_photos: int, thumbnails: bool, workers: int, bar: Bar) -> Html:
    """most_photos: how many validation photos each model is asked about; 0 for none. thumbnails: show its mistakes."""
    notes = list(material.notes)
    roles = _roles(material.records)
    stages = _stages(material, roles, notes)
    answers = _answers(material.records, notes, most_photos=most_photos, workers=workers, bar=bar)
    sections = [
        gains_section(stages) if stages else None,
        runs_section(material.records, roles) if material.records else None,
        curves_section(material.records) if material.records else None,
        widths_section(material.prunes),
        behaviour_section(answers, notes, thumbnails=thumbnails) if answers or notes else None,
        bad_section(material.records) if material.records else None,
        commands_section(material.records, material.prunes, material.exports, command=command),
    ]
    names = [one.name for one in material.records] + [one.name for one in (*material.prunes, *material.exports)]
    title = f"Slimheads: {', '.join(names)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = tag(
        "body",
        _header(stages, material),
        tag("main", *sections),
        tag("footer", f"Made {made}. This file is whole: it loads nothing and runs no script."),
    )
    return Html("<!doctype html>\n" + tag("html", head, body, lang="en") + "\n")


def _told_apart(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs whose folders have the same name go by their paths."""
    names = [record.name for record in records]
    return [replace(one, name=str(one.path)) if names.count(one.name) > 1 else one for one in records]


def _add_written(found: Material, folder: Path, name: str) -> None:
    target = found.prunes if name == PRUNE_NAME else found.exports
    if any(one.path.resolve() == folder.resolve() for one in target):
        return
    try:
        target.append(read_written(folder, name))
    except (OSError, ValueError) as error:
        found.notes.append(f"{folder / name} cannot be read: {error}.")


def _roles(records: Sequence[RunRecord]) -> dict[str, str]:
    models = [(record.config.get("teacher") or {}).get("model") for record in records]
    teachers = {Path(model).resolve() for model in models if model}
    return {record.name: role_of(record, teachers) for record in records}


def _stages(material: Material, roles: Mapping[str, str], notes: list[str]) -> list[Stage]:
    stages = [stage for record in material.records if (stage := run_stage(record, role=roles[record.name]))]
    known = {record.meta.sha256 for record in material.records if record.meta}
    for export in material.exports:
        try:
            meta = load_artifact_meta(export.path / META_NAME)
            made = export_stages(export, meta)
        except (ModelError, KeyError) as error:
            notes.append(f"{export.path}: its files cannot be compared ({error}).")
            continue
        stages += [stage for stage in made if stage.role != "before export" or meta.sha256 not in known]
    return stages


def _answers(
    records: Sequence[RunRecord], notes: list[str], *, most_photos: int, workers: int, bar: Bar
) -> dict[str, Answers]:
    found: dict[str, Answers] = {}
    for record in records:
        data = (record.config.get("data") or {}).get("val")
        if record.model_path is None or not data or not most_photos:
            why = "no model" if record.model_path is None else "no validation photos" if not data else "not asked for"
            notes.append(f"{record.name}: confusion, calibration and mistakes are not shown: {why}.")
            continue
        try:
            with bar(record.name, most_photos) as advance:
                found[record.name] = collect_answers(
                    record.model_path, data, most=most_photos, workers=workers, progress=advance
                )
        except (DataError, ModelError) as error:
            notes.append(f"{record.name}: confusion, calibration and mistakes are not shown: {error}.")
    return found


def _header(stages: Sequence[Stage], material: Material) -> Html:
    groups = by_data([stage for stage in stages if stage.mean_top1 is not None])
    measured = next(iter(groups.values()), [])
    links = {"gains": "What was gained", "runs": "Runs", "curves": "Curves", "widths": "Widths", "answers": "Answers"}
    links |= {"bad": "Bad samples", "commands": "How it was made"}
    if not material.prunes:
        del links["widths"]
    tiles = _tiles(measured) if measured else []
    return tag(
        "header",
        tag("h1", "From large to small"),
        tag("p", _sentence(measured), class_="lead"),
        tag("nav", *(tag("a", name, href=f"#{place}") for place, name in links.items()), aria_label="sections"),
        tag("div", *tiles, class_="tiles"),
    )


def _sentence(measured: Sequence[Stage]) -> str:
    if not measured:
        return "No model has been measured yet; what was written so far is below."
    best = max(measured, key=lambda stage: stage.mean_top1 or 0)
    small = min(measured, key=lambda stage: stage.bytes)
    if small is best:
        of = f"of {len(measured)} models" if len(measured) > 1 else "model"
        return f"{best.name} is the best and the smallest {of}: {percent(best.mean_top1)} mean top-1."
    points = 100 * ((best.mean_top1 or 0) - (small.mean_top1 or 0))
    return (
        f"{small.name} is {best.bytes / small.bytes:.1f} times smaller than the best model, {best.name}, "
        f"and answers {points:.1f} points less well."
    )


def _tiles(measured: Sequence[Stage]) -> list[Html]:
    best = max(measured, key=lambda stage: stage.mean_top1 or 0)
    small = min(measured, key=lambda stage: stage.bytes)
    timed = [stage for stage in measured if stage.milliseconds]
    facts = [
        (percent(best.mean_top1), f"best mean top-1, {best.name}"),
        (megabytes(small.bytes), f"smallest file, {small.name}"),
        (short(min(stage.macs for stage in measured)), "fewest multiply-accumulates of one image"),
    ]
    if timed:
        fast = min(timed, key=lambda stage: stage.milliseconds or 0)
        facts.append((f"{fast.milliseconds:.2f} ms", f"fastest on one thread, {fast.name}"))
    return [tag("div", tag("b", value), tag("span", text), class_="tile") for value, text in facts]
