"""How a model answers: confusion, calibration, and its surest mistakes as pictures.

section = behaviour_section({"student": answers}, notes=["teacher: its photos are gone"])
"""

from collections.abc import Mapping, Sequence

from train.report_page.charts.line import reliability, reliability_chart
from train.report_page.confusion import confusion_figure, mistaken_pairs
from train.report_page.markup import Html, join, tag
from train.report_page.numbers import count, percent
from train.report_page.predictions import PRECISION, Predictions, TaskPredictions

_SHOWN = 8


def behaviour_section(answers: Mapping[str, Predictions], notes: Sequence[str], *, thumbnails: bool) -> Html:
    """One part for each model; notes say why a model has none. thumbnails: with the photos themselves."""
    parts = [_model(name, one, thumbnails) for name, one in answers.items()]
    return tag(
        "section",
        tag("h2", "How they answer", id="answers"),
        tag("p", f"All were asked in {PRECISION}.", class_="note") if answers else None,
        *(tag("p", note, class_="note") for note in notes),
        *parts,
    )


def _model(name: str, answers: Predictions, thumbnails: bool) -> Html:
    part = "all" if answers.num_photos == answers.num_all else f"{answers.num_photos:,} evenly spaced of"
    asked = f"Asked about {part} {count(answers.num_all, 'photo')} of {answers.data}."
    tasks = [_task(name, task, one, answers, thumbnails) for task, one in answers.tasks.items()]
    return join(tag("h3", name), tag("p", asked, class_="note"), *tasks)


def _task(name: str, task: str, one: TaskPredictions, answers: Predictions, thumbnails: bool) -> Html:
    worst = one.worst(_SHOWN)
    pictures = [_mistake(name, one, place, answers, thumbnails) for place in worst]
    mistakes = int((~one.correct).sum())
    right = percent(float(one.correct.mean()))
    said = f"{name}, {task}: {right} of {count(len(one.true), 'answer')} right, {mistakes:,} wrong."
    if unanswered := int((~one.answered).sum()):
        said += f" {count(unanswered, 'answer')} of these not a number (NaN or infinity)."
    shown = f" The {count(len(worst), 'surest mistake')}:" if worst else ""
    return join(
        tag("p", tag("strong", said), shown),
        tag("div", *pictures, class_="mistakes") if pictures else None,
        tag(
            "div",
            confusion_figure(one.confusion, one.classes, title=f"Confusion of {task}"),
            mistaken_pairs(one.confusion, one.classes),
            reliability_chart(
                reliability(one.confidence[one.answered], one.correct[one.answered]), title=f"Calibration of {task}"
            ),
            class_="trio",
        ),
    )


def _mistake(model: str, one: TaskPredictions, place: int, answers: Predictions, thumbnails: bool) -> Html:
    photo = int(one.photo[place])
    name = answers.name(photo)
    true, answer = one.classes[one.true[place]], one.classes[one.answer[place]]
    sure = percent(float(one.confidence[place]), digits=0)
    picture = None
    if thumbnails:
        picture = tag(
            "img", src=answers.thumbnail(photo), alt=f"a photo of {true}, taken for {answer} by {model}", loading="lazy"
        )
    return tag(
        "div",
        picture,
        tag("b", answer),
        f" ({sure}), is ",
        tag("b", true),
        tag("br"),
        name.rsplit("/", 1)[-1],
        title=f"{name}, asked of {model}",
    )
