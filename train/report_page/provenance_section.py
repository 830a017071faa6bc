"""Where the models come from: widths before and after pruning, bad samples, and the commands that made everything.

section = widths_section(prunes)
"""

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from data.errors import DataError
from data.storage import is_remote
from data.teacher_logits import load_manifest
from train.report_page.charts.widths import Width, width_bars
from train.report_page.export_and_prune_records import SavedRecord
from train.report_page.markup import Html, join, table, tag
from train.report_page.numbers import NOTHING, count, milliseconds, share_of_change, short
from train.report_page.run_record import RunRecord

_SHOWN_BAD = 20


def widths_section(prunes: Sequence[SavedRecord]) -> Html | None:
    """A bar per layer; None where nothing was pruned."""
    return tag("section", tag("h2", "Widths", id="widths"), *map(_widths, prunes)) if prunes else None


def _widths(prune: SavedRecord) -> Html:
    plan = prune.content
    widths = [Width(layer["name"], layer["before"], layer["after"], layer.get("remark")) for layer in plan["layers"]]
    return join(tag("h3", prune.name), tag("p", _what_went(plan)), width_bars(widths))


def _what_went(plan: Any) -> str:
    said = [
        f"{what} {short(plan[key]['before'])} → {short(plan[key]['after'])} "
        f"({share_of_change(plan[key]['before'], plan[key]['after'])})"
        for key, what in (("parameters", "parameters"), ("macs", "MACs"))
    ]
    if latency := plan.get("latency_ms"):
        said.append(f"{milliseconds(latency['before'])} → {milliseconds(latency['after'])} ({latency['runtime']})")
    return f"{', '.join(said)}. The light bar is the width before, the dark one what stayed."


def bad_section(records: Sequence[RunRecord]) -> Html:
    """Samples that could not be used, by run."""
    rows = [
        [record.name, str(line.get("shard", NOTHING)), str(line.get("key", NOTHING)), str(line.get("reason", NOTHING))]
        for record in records
        for line in record.bad
    ]
    shown = table(["run", "shard", "key", "reason"], rows[:_SHOWN_BAD], numbers_from=4) if rows else None
    more = f" {len(rows) - _SHOWN_BAD:,} more are in the runs' bad_samples.jsonl." if len(rows) > _SHOWN_BAD else ""
    said = f"{count(len(rows), 'sample')} could not be used.{more}" if rows else "Every sample could be used."
    return tag("section", tag("h2", "Bad samples", id="bad"), tag("p", said), shown)


def commands_section(
    records: Sequence[RunRecord], prunes: Sequence[SavedRecord], exports: Sequence[SavedRecord], *, command: str
) -> Html:
    """The commands in order, and each run's resolved config and versions."""
    parts = []
    for record in records:
        parts.append(tag("h3", record.name))
        parts.append(tag("pre", "\n".join([*_caching(record), _training(record)])))
        if record.meta is not None:
            versions = record.meta.provenance.get("versions", {})
            said = ", ".join(f"{name} {version}" for name, version in versions.items())
            parts.append(tag("p", f"{said}. Weights {record.meta.sha256[:16]}.", class_="note"))
        if record.config:
            text = yaml.safe_dump(record.config, sort_keys=False)
            parts.append(tag("details", tag("summary", "the resolved config"), tag("pre", text)))
    for written in [*prunes, *exports]:
        parts.append(tag("h3", written.name))
        parts.append(tag("pre", written.content.get("command") or NOTHING))
    return tag(
        "section",
        tag("h2", "How it was made", id="commands"),
        *parts,
        tag("h3", "This page"),
        tag("pre", command),
    )


def _caching(record: RunRecord) -> list[str]:
    """What wrote the teacher's logits; K and MODEL stand for what nobody wrote down. Empty without a cache."""
    teacher = record.config.get("teacher") or {}
    if not teacher.get("cache"):
        return []
    views = teacher.get("views") or _cached_views(teacher["cache"]) or "K"
    model = [] if teacher.get("model") else ["teacher.model=MODEL"]
    return [" ".join([f"{_launcher(record)}python -m train.cache_teacher {_config(record)} --views {views}", *model])]


def _cached_views(cache: str) -> int | None:
    try:
        return None if is_remote(cache) else load_manifest(cache).views
    except DataError:
        return None


def _training(record: RunRecord) -> str:
    return f"{_launcher(record)}python train/main.py {_config(record)}"


def _launcher(record: RunRecord) -> str:
    ranks = int(record.meta.provenance.get("ranks", 1)) if record.meta else 1
    return f"horovodrun -np {ranks} " if ranks > 1 else ""


def _config(record: RunRecord) -> str:
    return f"--config {shlex.quote(str(record.path / 'config.yaml'))}"
