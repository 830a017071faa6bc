"""Where the classes of an ordered task stand, and what is said where nobody can know."""

import re

import pytest
import yaml

from train.evaluation.class_values import agreed_values, as_yaml, values_of_classes

GROUPS = ("adult", "child", "old", "young")


def test_numbers_are_their_own_values() -> None:
    assert values_of_classes(("20", "21", "30"), True) == (20, 21, 30)
    assert values_of_classes(("+1.5", "-3", "007"), True) == (1.5, -3, 7)
    assert values_of_classes(("30", "20", "21"), ["20", "21", "30"]) == (30, 20, 21)
    assert values_of_classes(("30", "20", "21"), ["30", "21", "20"]) == (30, 20, 21)


def test_other_names_count_in_steps_of_the_given_order() -> None:
    assert values_of_classes(GROUPS, ["child", "young", "adult", "old"]) == (2, 0, 3, 1)
    assert values_of_classes(("0-2", "4-6", "60+"), ["60+", "4-6", "0-2"]) == (2, 1, 0)


@pytest.mark.parametrize(
    ("classes", "order", "message"),
    [
        (GROUPS, True, "not all numbers, so their order must be given; write ordered: [adult, child, old, young] with"),
        (("20", "21", "old"), True, "write ordered: ['20', '21', old] with the names from the lowest to the highest"),
        (("1", "inf"), True, "not all numbers"),
        (("1", "9" * 400), True, "not all numbers"),
        (GROUPS, ["child", "adult", "old"], "the list lacks 'young'; write ordered: [adult, child, old, young] with"),
        (("a", "b"), ["a", "b", "c"], "the list has 'c' (no class of the data); write ordered: [a, b]"),
        (("a", "b"), ["a", "b", "a"], "the list has 'a' twice"),
        (("a", "b"), ["a", "a", "c"], "the list lacks 'b' and has 'c' (no class of the data) and has 'a' twice"),
        (("20", "21", "30"), ["21", "20", "30"], "numbers, which have another order; write ordered: true"),
    ],
)
def test_an_order_that_does_not_fit_is_refused_with_what_to_write(
    classes: tuple[str, ...], order: bool | list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        values_of_classes(classes, order)  # type: ignore[arg-type]


def test_what_is_to_be_written_reads_back_as_the_names() -> None:
    names = ["no", "1", "1e3", "a, b", "null", "\u00e4lter", "x" * 300]
    assert yaml.safe_load(as_yaml(names)) == {"ordered": names}
    assert "\n" not in as_yaml(names)


def test_models_agree_where_none_contradicts() -> None:
    assert agreed_values([{"a": 0.0, "b": 1.0}, {}, {"b": 1.0, "c": 2.0}]) == {"a": 0, "b": 1, "c": 2}
    assert agreed_values([{}, {}]) == {}
    assert agreed_values([{"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0}]) is None
