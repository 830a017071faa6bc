"""The head of the page: what was gained in a sentence, in four numbers, and the way to the sections.

html = page_header(entries, with_widths=True, with_exports=False)
"""

from collections.abc import Sequence

from train.report_page.markup import Html, tag
from train.report_page.model_entries import ModelEntry
from train.report_page.numbers import count, megabytes, milliseconds, percent, short
from train.report_page.results_section import by_data, measured_time


def page_header(entries: Sequence[ModelEntry], *, with_widths: bool, with_exports: bool) -> Html:
    """About the largest set of models that were measured on the same photos."""
    groups = by_data([entry for entry in entries if entry.mean_top1 is not None])
    measured = next(iter(groups.values()), [])
    links = {"gains": "What was gained", "runs": "Runs", "curves": "Curves"}
    links |= {"widths": "Widths"} if with_widths else {}
    links |= {"exports": "Exports"} if with_exports else {}
    links |= {"answers": "Answers", "bad": "Bad samples", "commands": "How it was made"}
    tiles = _tiles(measured) if measured else []
    return tag(
        "header",
        tag("h1", "From large to small"),
        tag("p", _sentence(measured), class_="lead"),
        tag("nav", *(tag("a", name, href=f"#{place}") for place, name in links.items()), aria_label="sections"),
        tag("div", *tiles, class_="tiles"),
    )


def _sentence(measured: Sequence[ModelEntry]) -> str:
    if not measured:
        return "No model has been measured yet; what was written so far is below."
    best = max(measured, key=lambda entry: entry.mean_top1 or 0)
    small = min(measured, key=lambda entry: entry.bytes)
    if small is best:
        of = f"of {len(measured)} models" if len(measured) > 1 else "model"
        return f"{best.name} is the best and the smallest {of}: {percent(best.mean_top1)} mean top-1."
    points = 100 * ((best.mean_top1 or 0) - (small.mean_top1 or 0))
    return (
        f"{small.name} is {best.bytes / small.bytes:.1f} times smaller than the best model, {best.name}, "
        f"and answers {points:.1f} points less well."
    )


def _tiles(measured: Sequence[ModelEntry]) -> list[Html]:
    best = max(measured, key=lambda entry: entry.mean_top1 or 0)
    small = min(measured, key=lambda entry: entry.bytes)
    least = min(measured, key=lambda entry: entry.macs)
    timed = [entry for entry in measured if measured_time(entry)]
    tiles = [
        (percent(best.mean_top1), f"best mean top-1, {best.name}"),
        (megabytes(small.bytes), f"smallest file, {small.name}"),
        (short(least.macs), f"fewest multiply-accumulates of one image, {least.name}{_others(least, measured)}"),
    ]
    if timed:
        fast = min(timed, key=lambda entry: entry.milliseconds or 0)
        tiles.append((milliseconds(fast.milliseconds or 0), f"fastest on one thread, {fast.name}"))
    return [tag("div", tag("b", value), tag("span", text), class_="tile") for value, text in tiles]


def _others(least: ModelEntry, measured: Sequence[ModelEntry]) -> str:
    """Networks of one shape have the same work."""
    number = sum(entry.macs == least.macs for entry in measured) - 1
    return f" and {count(number, 'other')}" if number else ""
