"""The page on which people look at labels that are probably wrong: the photos, what they are labelled, and the answer.

page = suspects_page(suspects, counts, thumbnail=lambda one: None, command="python -m train.suspects ...", notes=[])
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from train.evaluation.label_confidence import Suspect
from train.report_page.markup import Html, join, table, tag
from train.report_page.numbers import count, percent
from train.report_page.page import whole_page

_RULE = (
    "Each label was judged by a model that was not trained on its photo. The order is that of the probability of the "
    "label, divided by the mean of this probability over all photos with the same label: the most suspicious first."
)


@dataclass
class TaskLabels:
    """Of one task: how many labels were judged, and for how many another class is more probable."""

    num_judged: int = 0
    num_contradicted: int = 0


def suspects_page(
    suspects: Sequence[Suspect],
    counts: Mapping[str, TaskLabels],
    *,
    thumbnail: Callable[[Suspect], str | None],
    command: str,
    notes: Sequence[str],
) -> Html:
    """suspects: those to show, in their order. counts: by task, of all labels. thumbnail: a data URI, or None for a
    page without photos. command: that made it."""
    cards = [_card(number, suspect, thumbnail(suspect)) for number, suspect in enumerate(suspects, start=1)]
    rows = [
        [task, f"{one.num_judged:,}", f"{one.num_contradicted:,}", percent(one.num_contradicted / one.num_judged)]
        for task, one in counts.items()
        if one.num_judged
    ]
    shown = f"The {count(len(suspects), 'label')} that the models contradict most."
    header = tag(
        "header",
        tag("h1", "Labels to look at"),
        tag("p", shown if suspects else "The models contradict no label.", class_="lead"),
        tag("p", _RULE, class_="note"),
    )
    tables = tag(
        "section", tag("h2", "All labels"), table(["task", "labels", "contradicted", "share"], rows, numbers_from=1)
    )
    photos = tag("section", tag("h2", "The worst first"), tag("div", *cards, class_="mistakes")) if cards else None
    made = tag("section", tag("h2", "How it was made"), tag("pre", command))
    warnings = [tag("p", note, class_="note warn") for note in notes]
    return whole_page("Slimheads: labels to look at", header, tag("main", *warnings, photos, tables, made))


def _card(number: int, suspect: Suspect, picture: str | None) -> Html:
    label = f"{suspect.label} ({_share(suspect.probability_of_label)})"
    answer = f"{suspect.answer} ({_share(suspect.probability_of_answer)})"
    text = f"a photo labelled {suspect.label}, answered {suspect.answer}"
    image = None if picture is None else tag("img", src=picture, alt=text, loading="lazy")
    words = join(tag("b", answer), ", labelled ", tag("b", label))
    place = f"{number}. {suspect.image}, {suspect.task}"
    return tag("div", image, words, tag("br"), place, title=f"{place}, judged by model {suspect.fold}")


def _share(probability: float) -> str:
    """The number and its sign on one line."""
    return percent(probability, digits=0).replace(" ", "\N{NO-BREAK SPACE}")
