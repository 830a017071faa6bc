"""The parts of the report page: bins, Pareto fronts, axes, thinned curves, escaping."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.class_scores import class_scores
from train.evaluation.reliability import NUM_BINS, calibration_error, reliability
from train.report_page.charts.axis import BOTTOM, Axis, fitted
from train.report_page.charts.line import Line, line_chart
from train.report_page.charts.palette import COLOURS, colour, dash
from train.report_page.charts.scatter import Point, pareto_front, scatter_chart
from train.report_page.confusion import class_figure, confusion_figure, mistaken_pairs
from train.report_page.markup import Html, join, table, tag
from train.report_page.model_entries import PRUNED, ModelEntry
from train.report_page.numbers import megabytes, percent, short
from train.report_page.results_section import results_section


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b", Html("<b>c</b>"), None, class_='x"y') == '<p class="x&quot;y">a &lt; b<b>c</b></p>'
    assert tag("line", x1=1.0, stroke_width=2.504) == '<line x1="1" stroke-width="2.5"/>'
    assert join("<", 3) == "&lt;3"
    assert "<td>&lt;i&gt;</td>" in table(["a", "b"], [["<i>", 1]])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_a_point_is_on_the_front_when_no_other_beats_it(points: list[tuple[int, int]]) -> None:
    floats = [(float(cost), float(gain)) for cost, gain in points]
    front = {floats[place] for place in pareto_front(floats)}
    beaten = {
        one
        for one, other in itertools.permutations(floats, 2)
        if other[0] <= one[0] and other[1] >= one[1] and other != one
    }
    assert front == set(floats) - beaten


def test_the_front_of_equal_points_names_one() -> None:
    assert pareto_front([(1.0, 1.0), (1.0, 1.0), (2.0, 1.0)]) == [0]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_bins_hold_every_answer_and_the_error_is_the_weighted_distance(answers: list[tuple[float, bool]]) -> None:
    confidence = np.array([one for one, _ in answers])
    correct = np.array([one for _, one in answers])
    bins = reliability(confidence, correct)
    assert sum(one.count for one in bins) == len(answers)
    expected = 0.0
    for number in range(NUM_BINS):
        inside = [a for a in answers if int(a[0] * NUM_BINS) == number or (a[0] == 1 and number == NUM_BINS - 1)]
        if inside:
            distance = sum(right for _, right in inside) - sum(sure for sure, _ in inside)
            expected += abs(distance) / len(answers)
    assert calibration_error(bins) == pytest.approx(expected, abs=1e-9)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_rising_and_within_the_axis(low: float, span: float) -> None:
    axis = Axis(low, low + span, 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(1e5, 1e7), (2.0, 3.0), (1e6, 1.05e6), (1e3, 1e9)])
def test_a_logarithmic_axis_has_ticks_and_keeps_ratios(low: float, high: float) -> None:
    axis = fitted([low, high], 0, 100, log=True)
    assert 2 <= len(axis.ticks()) <= 8
    middle = (low * high) ** 0.5
    assert axis.place(middle) == pytest.approx((axis.place(low) + axis.place(high)) / 2)
    assert 0 < axis.place(low) < axis.place(high) < 100


def test_one_value_alone_and_constant_values_have_an_axis() -> None:
    for values in ([0.0], [0.5, 0.5], [-3.0]):
        axis = fitted(values, 0, 100)
        assert axis.low < values[0] < axis.high


def test_noise_is_not_drawn_as_a_difference() -> None:
    axis = fitted([0.59, 0.59 + 1e-16], 0, 100, least=0.02)
    assert axis.place(0.59) == pytest.approx(axis.place(0.59 + 1e-16))
    points = [Point("a", 1e6, 0.59, 0), Point("b", 2e6, 0.59 + 1e-16, 1)]
    figure = scatter_chart(points, title="t", x_label="bytes", x_format=megabytes)
    labels = re.findall(r">([\d.]+ %)</text>", figure)
    assert len(labels) == len(set(labels)) >= 2


def test_a_long_curve_is_thinned_and_ends_at_its_last_value() -> None:
    steps = [float(step) for step in range(1, 100_001)]
    figure = line_chart([Line("run", steps, [1 / step for step in steps])], title="loss", y_format=str)
    (points,) = re.findall(r'points="([^"]*)"', figure)
    assert len(points.split()) <= 302
    assert f"run ends at {1 / 100_000}" in figure


def test_a_curve_without_points_is_said_in_words() -> None:
    assert "nothing was recorded" in line_chart([Line("run", [], [])], title="loss", y_format=str)


def test_no_two_of_a_dozen_lines_look_the_same_and_neighbours_differ_in_colour_and_dash() -> None:
    styles = [(colour(place), dash(place)) for place in range(12)]
    assert len(set(styles)) == 12
    for one, other in itertools.pairwise(styles):
        assert one[0] != other[0]
        assert one[1] != other[1]
    assert len(set(COLOURS)) == len(COLOURS)


def test_labels_of_a_scatter_never_cover_each_other() -> None:
    points = [Point(f"model {place}", 1e6 * (1 + 0.01 * place), 0.5 + 0.0001 * place, place) for place in range(8)]
    figure = scatter_chart(points, title="t", x_label="bytes", x_format=megabytes)
    placed = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="name">', figure)]
    assert placed
    for one, other in itertools.combinations(placed, 2):
        assert abs(one[1] - other[1]) >= 13 or abs(one[0] - other[0]) >= 6 * len("model 0")
    assert all(f"model {place}: " in figure for place in range(8))  # in words, with or without a label


def test_a_label_of_a_scatter_is_nearest_to_its_own_point() -> None:
    """As on a page of pruned networks: three at one cost, two of them all but on top of each other."""
    gains = {"student-0": 0.807, "distilled4-0": 0.797, "sparse-0": 0.817, "teacher": 0.977, "pruned50-0": 0.303}
    costs = {"teacher": 126e6, "pruned50-0": 4.9e6}
    points = [Point(name, costs.get(name, 9.86e6), gain, at) for at, (name, gain) in enumerate(gains.items())]
    points += [Point("finetuned50-0", 4.9e6, 0.836, 5), Point("exported fp32", 5.1e6, 0.838, 6)]
    figure = scatter_chart(points, title="t", x_label="macs", x_format=short)
    number = r"(-?[\d.]+)"
    spots = [(float(x), float(y)) for x, y in re.findall(rf'transform="translate\({number} {number}\)"', figure)]
    by_name = dict(zip([point.name for point in points], spots, strict=False))  # the legend's marks follow
    labels = re.findall(rf'<text x="{number}" y="{number}" class="name">([^<]+)</text>', figure)
    assert {"teacher", "pruned50-0"} <= {name for *_, name in labels}

    def distance(spot: tuple[float, float], left: float, base: float, name: str) -> float:
        """From the point to the label's box: letters of 6.4 pixels, a line of 14."""
        aside = max(left - spot[0], spot[0] - left - 6.4 * len(name), 0)
        return float(np.hypot(aside, max(base - 10 - spot[1], spot[1] - base - 4, 0)))

    for x, y, name in labels:
        distances = {other: distance(spot, float(x), float(y), name) for other, spot in by_name.items()}
        own = distances.pop(name)
        assert own <= min(distances.values()) - 3.9, (name, own, distances)


CHAIN = {"teacher": (126e6, 0.977), "student": (9.9e6, 0.807), "tuned": (4.9e6, 0.836)}


def drawn(pruned: float) -> str:
    """The chart of a chain whose pruned network, the cheapest, has this accuracy."""
    points = [Point(name, *numbers, place) for place, (name, numbers) in enumerate(CHAIN.items())]
    points.append(Point("pruned", 4.8e6, pruned, 3, may_fall_off=True))
    return scatter_chart(points, title="t", x_label="macs", x_format=short)


def test_a_pruned_network_far_below_does_not_push_the_others_together() -> None:
    figure = drawn(0.10)
    heights = [float(y) for y in re.findall(r'transform="translate\([\d.]+ ([\d.]+)\)" fill', figure)[:4]]
    assert max(heights[:3]) - min(heights[:3]) > 100  # pixels of the 216 that the axis has
    assert max(heights[:3]) < heights[3] < BOTTOM  # the mark is inside
    corners = re.findall(r"[\d.]+,([\d.]+)", re.findall(r'points="([^"]*)" class="front"', figure)[0])
    assert max(map(float, corners)) <= BOTTOM
    assert figure.count('class="below"') == 1
    assert "Below the axis, marked by an arrow at its foot: pruned (10.0 %)." in figure
    assert ">pruned 10.0 %</text>" in figure
    ticks = [int(tick) for tick in re.findall(r">(\d+) %</text>", figure)]
    assert min(ticks) >= 75


@pytest.mark.parametrize("pruned", [0.70, 0.82])
def test_a_pruned_network_near_the_others_is_drawn_as_they_are(pruned: float) -> None:
    figure = drawn(pruned)
    assert "below" not in figure.lower()
    heights = [float(y) for y in re.findall(r'transform="translate\([\d.]+ ([\d.]+)\)" fill', figure)[:4]]
    gains = [gain for _, gain in CHAIN.values()] + [pruned]
    assert sorted(range(4), key=heights.__getitem__) == sorted(range(4), key=lambda place: -gains[place])


def entry(name: str, role: str, top1: float | None, *, macs: int = 9_900_000, data: str = "shards/val") -> ModelEntry:
    return ModelEntry(
        name=name,
        role=role,
        file=Path("model.safetensors"),
        network=name,
        sha256=name,
        parameters=1000,
        macs=macs,
        bytes=4000,
        image_size=64,
        milliseconds=1.0,
        runtime="a runtime",
        mean_top1=top1,
        top1={} if top1 is None else {"age": top1},
        data=data,
        precision="fp32",
    )


def test_the_lowest_mean_absolute_error_is_the_best_and_a_model_without_one_has_none() -> None:
    errors: list[dict[str, float | None]] = [{"age": 2.5}, {"age": 1.25}, {"age": None}, {}]
    entries = [replace(entry(str(place), "trained", 0.8), errors=one) for place, one in enumerate(errors)]
    section = results_section(entries, {str(place): place for place in range(4)}, sentences=[])
    assert "age, mean absolute error" in section
    assert re.findall(r"<td[^>]*>(?:<span class=\"(best)\">)?([\d.]+|\u2013)(?:</span>)?</td></tr>", section) == [
        ("", "2.500"),
        ("best", "1.250"),
        ("", "\u2013"),
        ("", "\u2013"),
    ]
    assert "The mean absolute error of an ordered task is between" in section
    plain = results_section([entry("0", "trained", 0.8)], {"0": 0}, sentences=[])
    assert "absolute" not in plain


@pytest.mark.parametrize(("role", "count"), [(PRUNED, 3), ("pruned, fine-tuned", 0)])
def test_only_a_network_that_was_not_trained_after_pruning_may_fall_off(role: str, count: int) -> None:
    entries = [entry("teacher", "teacher", 0.9), entry("student", "trained", 0.8), entry("narrow", role, 0.1)]
    section = results_section(entries, {one.name: place for place, one in enumerate(entries)}, sentences=[])
    assert section.count("Below the axis") == count  # of size, of work and of time


def test_pruned_networks_alone_have_their_axis() -> None:
    points = [Point("a", 1e6, 0.1, 0, may_fall_off=True), Point("b", 2e6, 0.6, 1, may_fall_off=True)]
    assert "below" not in scatter_chart(points, title="t", x_label="macs", x_format=short).lower()


@pytest.mark.parametrize("num_classes", [3, 40])
def test_a_confusion_shows_each_pair_that_occurs(num_classes: int) -> None:
    matrix = np.eye(num_classes, dtype=np.int64) * 5
    matrix[0, 2] = 7
    classes = [f"class<{number}>" for number in range(num_classes)]
    figure = confusion_figure(matrix, classes, title="age")
    if num_classes == 3:
        assert figure.count('class="cell"') == 9
    else:
        assert figure.count('class="hit"') == 40
        assert figure.count('class="miss"') == 1
        assert "class&lt;0&gt; taken for class&lt;2&gt;: 7" in figure
    pairs = mistaken_pairs(matrix, classes)
    assert "7 (58 %)" in pairs
    assert "No photo was mistaken" in mistaken_pairs(np.eye(3, dtype=np.int64), classes[:3])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (short(2_720_000), "2.72M"),
        (short(999), "999"),
        (percent(0.8123), "81.2 %"),
        (megabytes(918_038), "0.92 MB"),
        (megabytes(23_456), "23.5 kB"),
    ],
)
def test_numbers_are_written_as_people_read_them(written: str, expected: str) -> None:
    assert written == expected


def test_the_classes_of_a_task_come_worst_first_many_of_them_folded_and_those_without_photos_named() -> None:
    matrix = np.diag(np.arange(1, 11)) + 1
    names = [f"kind{number}" for number in range(10)]
    scores = class_scores(matrix, matrix.sum(axis=1), names)
    html = class_figure(scores, title="Classes of item")
    open_rows, folded = html.split("<details>")
    assert re.findall(r"<td[^>]*>(kind\d)", open_rows) == names[:8]
    assert re.findall(r"<td[^>]*>(kind\d)", folded) == names
    assert "All 10 classes" in folded
    few = class_figure(class_scores(np.diag([3, 0]), np.array([4, 0]), ["<cat>", "dog"]), title="Classes of pet")
    assert "<details>" not in few
    assert "&lt;cat&gt;" in few
    assert "100.0 %" in few  # precision
    assert "75.0 %" in few  # recall
    assert "No photo of dog" in few
