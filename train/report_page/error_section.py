"""How a model errs: confusion, classes, calibration, and its surest mistakes as images.

section = error_section({"student": predictions}, ["teacher: its photos are gone"], thumbnails=True)
"""

from collections.abc import Mapping, Sequence

from train.evaluation.reliability import reliability
from train.report_page.charts.line import reliability_chart
from train.report_page.confusion import class_figure, confusion_figure, mistaken_pairs
from train.report_page.markup import Html, join, tag
from train.report_page.numbers import count, percent, plain
from train.report_page.predictions import PRECISION, Predictions, TaskPredictions

_SHOWN = 8


def error_section(predictions: Mapping[str, Predictions], warnings: Sequence[str], *, thumbnails: bool) -> Html:
    """One part for each model; warnings say why a model has none. thumbnails: with the photos themselves."""
    parts = [_model(name, one, thumbnails) for name, one in predictions.items()]
    return tag(
        "section",
        tag("h2", "How they answer", id="answers"),
        tag("p", f"All were asked in {PRECISION}.", class_="note") if predictions else None,
        *(tag("p", warning, class_="note") for warning in warnings),
        *parts,
    )


def _model(name: str, predictions: Predictions, thumbnails: bool) -> Html:
    part = "all" if predictions.num_images == predictions.num_all else f"{predictions.num_images:,} evenly spaced of"
    evaluated = f"Asked about {part} {count(predictions.num_all, 'photo')} of {predictions.data}."
    tasks = [_task(name, task, one, predictions, thumbnails) for task, one in predictions.tasks.items()]
    return join(tag("h3", name), tag("p", evaluated, class_="note"), *tasks)


def _task(name: str, task: str, one: TaskPredictions, predictions: Predictions, thumbnails: bool) -> Html:
    worst = one.worst(_SHOWN)
    images = [_mistake(name, one, place, predictions, thumbnails) for place in worst]
    mistakes = int((~one.correct).sum())
    right = percent(float(one.correct.mean()))
    said = f"{name}, {task}: {right} of {count(len(one.true), 'answer')} right, {mistakes:,} wrong."
    if (error := one.mean_absolute_error) is not None:
        said += f" Mean absolute error {plain(error)}."
    if unanswered := int((~one.is_answered).sum()):
        said += f" {count(unanswered, 'answer')} of these not a number (NaN or infinity)."
    if one.temperature != 1:
        said += f" Calibrated with a temperature of {plain(one.temperature)}."
    bins = reliability(one.confidence[one.is_answered], one.correct[one.is_answered])
    shown = f" The {count(len(worst), 'surest mistake')}:" if worst else ""
    return join(
        tag("p", tag("strong", said), shown),
        tag("div", *images, class_="mistakes") if images else None,
        tag(
            "div",
            confusion_figure(one.confusion, one.classes, title=f"Confusion of {task}"),
            mistaken_pairs(one.confusion, one.classes),
            reliability_chart(bins, title=f"Calibration of {task}"),
            class_figure(one.class_scores, title=f"Classes of {task}"),
            class_="four",
        ),
    )


def _mistake(model: str, one: TaskPredictions, place: int, predictions: Predictions, thumbnails: bool) -> Html:
    number = int(one.image[place])
    name = predictions.name(number)
    true, predicted = one.classes[one.true[place]], one.classes[one.predicted[place]]
    sure = percent(float(one.confidence[place]), digits=0)
    image = None
    if thumbnails:
        image = tag(
            "img",
            src=predictions.thumbnail(number),
            alt=f"a photo of {true}, taken for {predicted} by {model}",
            loading="lazy",
        )
    return tag(
        "div",
        image,
        tag("b", predicted),
        f" ({sure}), is ",
        tag("b", true),
        tag("br"),
        name.rsplit("/", 1)[-1],
        title=f"{name}, asked of {model}",
    )
