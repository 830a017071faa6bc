"""How the runs went: what was trained on what, and their curves.

section = runs_section(runs, roles); section = curves_section(runs, places)
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


def runs_section(runs: Sequence[RunRecord], roles: Mapping[str, str]) -> Html:
    """One row a run, and a sentence for each that is not finished or lacks something."""
    headings = ["run", "state", "what", "backbone", "data", "tasks", "samples", "epochs", "best at", "mean top-1"]
    rows = []
    for run in runs:
        best = run.best
        rows.append(
            [
                run.name,
                _state(run),
                tag("span", roles[run.name], class_="badge"),
                _backbone(run),
                breakable((run.config.get("data") or {}).get("train") or NOTHING),
                ", ".join(run.meta.tasks) if run.meta else NOTHING,
                _samples(run),
                f"{run.epochs_done:.4g} of {run.epochs}" if run.epochs else f"{run.epochs_done:.4g}",
                NOTHING if best is None else f"epoch {best['epoch'] + 1}",
                percent(best["mean_top1"]) if best else NOTHING,
            ]
        )
    sentences = [tag("p", text, class_="note") for run in runs for text in _sentences(run)]
    return tag(
        "section",
        tag("h2", "What was trained on what", id="runs"),
        table(headings, rows, numbers_from=6),
        tag("p", _MACRO_F1, class_="note"),
        *sentences,
    )


def curves_section(runs: Sequence[RunRecord], places: Mapping[str, int]) -> Html:
    """Validation of all runs together, mean and per task; then each run's loss terms and learning rate. places: name
    of a run -> its colour."""
    tasks = list(dict.fromkeys(task for run in runs for task in measured_tasks(run)))
    plots = [_together(runs, places, "mean_top1", "Mean top-1, validation")]
    if len(tasks) > 1:
        plots += [_together(runs, places, f"{task}.top1", f"Top-1 of {task}, validation") for task in tasks]
    ordered = dict.fromkeys(task for run in runs for task in measured_tasks(run, "mean_absolute_error"))
    plots += [_errors(runs, places, task) for task in ordered]
    terms = sorted({key for run in runs for line in run.trained for key in line if key.startswith("loss")})
    losses = [_losses(run, terms) for run in runs]
    return tag(
        "section",
        tag("h2", "Curves", id="curves"),
        tag("h3", "Validation"),
        tag("div", *plots, class_="plots"),
        tag("h3", "Loss terms in training"),
        tag("p", "Each term is shown before its weight; the sum is of the weighted terms.", class_="note"),
        tag("div", *losses, class_="plots"),
        tag("h3", "Learning rate"),
        tag("div", _together(runs, places, "lr", "Learning rate", trained=True), class_="plots"),
    )


def measured_tasks(run: RunRecord, measure: str = "top1") -> list[str]:
    names = [key for line in run.evaluations[:1] for key in line if key.endswith(f".{measure}")]
    return [name.removesuffix(f".{measure}") for name in names]


def _together(
    runs: Sequence[RunRecord], places: Mapping[str, int], key: str, title: str, *, trained: bool = False
) -> Html:
    lines = [Line(one.name, *one.curve(key, trained=trained), places[one.name]) for one in runs]
    if trained:
        return line_chart(lines, title=title, y_format=lambda value: f"{value:.3g}", from_zero=True)
    return line_chart(lines, title=title, y_format=lambda value: percent(value, digits=0), least=0.05)


def _errors(runs: Sequence[RunRecord], places: Mapping[str, int], task: str) -> Html:
    lines = [Line(one.name, *one.curve(f"{task}.mean_absolute_error"), places[one.name]) for one in runs]
    title, label = f"Mean absolute error of {task}, validation", "mean absolute error"
    return line_chart(lines, title=title, y_format=lambda value: f"{value:.3g}", y_label=label, from_zero=True)


def _losses(run: RunRecord, terms: Sequence[str]) -> Html:
    lines = [
        Line("weighted sum" if key == "loss" else key.removeprefix("loss."), *run.curve(key, trained=True), place)
        for place, key in enumerate(terms)
    ]
    return line_chart(lines, title=run.name, y_format=lambda value: f"{value:.3g}", y_label="loss", from_zero=True)


def _state(run: RunRecord) -> Html:
    return tag("span", run.state, class_="badge" if run.state == "finished" else "badge warn")


def _backbone(run: RunRecord) -> str:
    if run.meta is None:
        model = run.config.get("model") or {}
        return str(model.get("backbone") or model.get("artifact") or NOTHING)
    head = run.meta.architecture["head"]["kind"]
    return f"{run.meta.architecture['backbone']}, {head}"


def _samples(run: RunRecord) -> str:
    samples = (run.meta.provenance.get("data") or {}).get("samples") if run.meta else None
    return f"{samples:,}" if samples is not None else NOTHING


def _sentences(run: RunRecord) -> list[str]:
    said = []
    where = f"after {run.epochs_done:.3g} of {run.epochs} epochs"
    if run.state == "running":
        said.append(f"{run.name} is still being trained, {where}: the page shows what was written so far.")
    if run.state == "cut off":
        said.append(f"{run.name} was cut off {where}; the same command continues it. The page shows what is there.")
    said += [f"{run.name}: {warning}." for warning in run.warnings]
    return said
