"""How the runs went: what was trained on what, and their curves.

section = runs_section(records, roles); section = curves_section(records)
"""

from collections.abc import Mapping, Sequence

from train.report_page.charts.line import Line, line_chart
from train.report_page.markup import Html, breakable, table, tag
from train.report_page.numbers import NOTHING, percent
from train.report_page.run_record import RunRecord

_MACRO_F1 = (
    "metrics.jsonl of a run also has macro_f1: the mean over the classes that some photo truly has. The others are "
    "left out; scikit-learn counts those that are answered all the same, as 0."
)


def runs_section(records: Sequence[RunRecord], roles: Mapping[str, str]) -> Html:
    """One row a run, and a sentence for each that is not finished or lacks something."""
    headings = ["run", "state", "what", "backbone", "data", "tasks", "samples", "epochs", "best at", "mean top-1"]
    rows = []
    for record in records:
        best = record.best
        rows.append(
            [
                record.name,
                _state(record),
                tag("span", roles[record.name], class_="badge"),
                _backbone(record),
                breakable((record.config.get("data") or {}).get("train") or NOTHING),
                ", ".join(record.meta.tasks) if record.meta else NOTHING,
                _samples(record),
                f"{record.epochs_done:.4g} of {record.epochs}" if record.epochs else f"{record.epochs_done:.4g}",
                NOTHING if best is None else f"epoch {best['epoch'] + 1}",
                percent(best["mean_top1"]) if best else NOTHING,
            ]
        )
    remarks = [tag("p", text, class_="note") for record in records for text in _remarks(record)]
    return tag(
        "section",
        tag("h2", "What was trained on what", id="runs"),
        table(headings, rows, numbers_from=6),
        tag("p", _MACRO_F1, class_="note"),
        *remarks,
    )


def curves_section(records: Sequence[RunRecord], places: Mapping[str, int]) -> Html:
    """Validation of all runs together, mean and per task; then each run's loss terms and learning rate. places: name
    of a run -> its colour."""
    tasks = list(dict.fromkeys(task for record in records for task in measured_tasks(record)))
    plots = [_together(records, places, "mean_top1", "Mean top-1, validation")]
    if len(tasks) > 1:
        plots += [_together(records, places, f"{task}.top1", f"Top-1 of {task}, validation") for task in tasks]
    terms = sorted({key for record in records for line in record.trained for key in line if key.startswith("loss")})
    losses = [_losses(record, terms) for record in records]
    return tag(
        "section",
        tag("h2", "Curves", id="curves"),
        tag("h3", "Validation"),
        tag("div", *plots, class_="plots"),
        tag("h3", "Loss terms in training"),
        tag("p", "Each term is shown before its weight; the sum is of the weighted terms.", class_="note"),
        tag("div", *losses, class_="plots"),
        tag("h3", "Learning rate"),
        tag("div", _together(records, places, "lr", "Learning rate", trained=True), class_="plots"),
    )


def measured_tasks(record: RunRecord) -> list[str]:
    names = [key for line in record.evaluations[:1] for key in line if key.endswith(".top1")]
    return [name.removesuffix(".top1") for name in names]


def _together(
    records: Sequence[RunRecord], places: Mapping[str, int], key: str, title: str, *, trained: bool = False
) -> Html:
    lines = [Line(one.name, *one.curve(key, trained=trained), places[one.name]) for one in records]
    if trained:
        return line_chart(lines, title=title, y_format=lambda value: f"{value:.3g}", from_zero=True)
    return line_chart(lines, title=title, y_format=lambda value: percent(value, digits=0), least=0.05)


def _losses(record: RunRecord, terms: Sequence[str]) -> Html:
    lines = [
        Line("weighted sum" if key == "loss" else key.removeprefix("loss."), *record.curve(key, trained=True), place)
        for place, key in enumerate(terms)
    ]
    return line_chart(lines, title=record.name, y_format=lambda value: f"{value:.3g}", y_label="loss", from_zero=True)


def _state(record: RunRecord) -> Html:
    return tag("span", record.state, class_="badge" if record.state == "finished" else "badge warn")


def _backbone(record: RunRecord) -> str:
    if record.meta is None:
        model = record.config.get("model") or {}
        return str(model.get("backbone") or model.get("artifact") or NOTHING)
    head = record.meta.architecture["head"]["kind"]
    return f"{record.meta.architecture['backbone']}, {head}"


def _samples(record: RunRecord) -> str:
    samples = (record.meta.provenance.get("data") or {}).get("samples") if record.meta else None
    return f"{samples:,}" if samples is not None else NOTHING


def _remarks(record: RunRecord) -> list[str]:
    said = []
    where = f"after {record.epochs_done:.3g} of {record.epochs} epochs"
    if record.state == "running":
        said.append(f"{record.name} is still being trained, {where}: the page shows what was written so far.")
    if record.state == "cut off":
        said.append(f"{record.name} was cut off {where}; the same command continues it. The page shows what is there.")
    said += [f"{record.name}: {gap}." for gap in record.gaps]
    return said
