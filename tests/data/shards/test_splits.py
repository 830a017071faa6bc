"""Splits: the share that was asked for, stratified over all tasks, with no class, group or fold broken."""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from data.errors import BadArgument
from data.shards.splits import Splits, assign_splits, shuffle
from data.sources import Record

FEW = ("a", "b", "c", "d", "e")


def records(*columns: Sequence[int], splits: Sequence[str] = (), number: int = 0) -> list[Record]:
    """A record for each place of the columns of labels; `number` of them where there are no columns."""
    labels = list(zip(*columns, strict=True)) or [()] * number
    return [
        Record(f"photos/{place:06d}", tuple(map(int, row)), splits[place] if splits else "", place)
        for place, row in enumerate(labels)
    ]


def tasks_of(*num_classes: int) -> dict[str, tuple[str, ...]]:
    return {f"task{at}": tuple(f"c{number}" for number in range(count)) for at, count in enumerate(num_classes)}


def divide(
    photos: Sequence[Record],
    *num_classes: int,
    fraction: float | None = None,
    folds: tuple[int, int] | None = None,
    split: str | None = None,
    unit: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
) -> Splits:
    number, fold = folds or (None, None)
    units = None if unit is None else np.asarray(unit, np.int64)
    return assign_splits(
        photos,
        tasks_of(*num_classes),
        split=split,
        fraction=fraction,
        seed=seed,
        folds=number,
        fold=fold,
        unit=units,
    )


def counts(part: Sequence[Record], task: int = 0) -> Counter[int]:
    return Counter(record.labels[task] for record in part if record.labels[task] >= 0)


def keys(part: Sequence[Record]) -> set[str]:
    return {record.key for record in part}


def largest_distance(photos: Sequence[Record], held: Sequence[Record], fraction: float) -> float:
    """How far any class of any task is from its share, in samples."""
    distances = []
    for task in range(len(photos[0].labels)):
        found = counts(held, task)
        distances += [abs(found[label] - fraction * count) for label, count in counts(photos, task).items()]
    return max(distances)


# -- order -----------------------------------------------------------------------------------------------------------


def test_the_order_is_that_of_the_hash_of_seed_and_key() -> None:
    photos = records(number=2000)
    for seed in (0, 7):
        digest = lambda key: hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()  # noqa: E731, B023
        assert [record.key for record in shuffle(photos, seed=seed)] == sorted(keys(photos), key=digest)
    order = [record.key[-2:] for record in shuffle(records(number=8), seed=0)]
    assert order == ["04", "02", "05", "01", "06", "07", "00", "03"], "shards that were built must keep their order"


def test_the_parts_keep_the_order_of_the_shuffle() -> None:
    photos = records([number % 5 for number in range(300)])
    order = [record.key for record in shuffle(photos, seed=3)]
    for part in divide(photos, 5, fraction=0.3, seed=3).parts.values():
        assert [record.key for record in part] == [key for key in order if key in keys(part)]


def test_the_order_of_the_records_changes_nothing() -> None:
    chance = random.Random(0)
    photos = records([chance.randrange(7) for _ in range(400)], [chance.randrange(2) for _ in range(400)])
    unit = [number // 3 if number < 200 else number for number in range(400)]
    mixed = list(range(400))
    chance.shuffle(mixed)
    for options in ({"fraction": 0.2}, {"folds": (4, 2)}):
        once = divide(photos, 7, 2, unit=unit, **options)
        # Other numbers for the same units, too.
        again = divide([photos[at] for at in mixed], 7, 2, unit=[5000 - unit[at] for at in mixed], **options)
        assert once == again
        assert once != divide(photos, 7, 2, unit=unit, seed=1, **options)


# -- the share and the strata ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "fraction", "held"),
    [
        ([number // 3 for number in range(120)], 0.2, 24),  # 40 classes of 3
        ([number // 6 for number in range(600)], 0.25, 150),
        ([0] * 100 + [1] * 2 + [2] * 3, 0.1, 11),
        ([0] * 10, 0.25, 3),  # half up
        ([0] * 10, 0.01, 1),
        ([0] * 2, 0.99, 1),
        ([-1] * 50, 0.2, 10),
    ],
)
def test_the_share_is_exact(labels: list[int], fraction: float, held: int) -> None:
    parts = divide(records(labels), 100, fraction=fraction).parts
    assert (len(parts["train"]), len(parts["val"])) == (len(labels) - held, held)
    assert keys(parts["train"]).isdisjoint(keys(parts["val"]))


def test_photos_without_tasks_are_drawn_at_random() -> None:
    splits = divide(records(number=103), fraction=0.25)
    assert (len(splits.parts["val"]), splits.notes) == (26, ())


def test_every_combination_of_frequent_classes_keeps_its_share() -> None:
    photos = records([number % 3 for number in range(600)], [number % 2 for number in range(600)])
    held = divide(photos, 3, 2, fraction=0.2).parts["val"]
    assert Counter(record.labels for record in held) == {record.labels: 20 for record in photos}


def test_small_classes_take_turns() -> None:
    held = divide(records([number // 3 for number in range(120)]), 40, fraction=0.2).parts["val"]
    assert set(counts(held).values()) == {1}


def test_a_few_rare_classes_are_rounded_up() -> None:
    photos = records([0] * 2970 + [1 + number // 3 for number in range(30)])
    for seed in range(5):
        held = counts(divide(photos, 11, fraction=0.2, seed=seed).parts["val"])
        assert sorted(held) == list(range(11)), "every class of three is due 0.6 of a sample"
        assert held.total() == 600


def test_forty_yes_no_tasks_are_all_stratified() -> None:
    chance = np.random.default_rng(0)
    columns = (chance.random((40, 1000)) < chance.uniform(0.02, 0.98, 40)[:, None]).astype(int)
    photos = records(*columns)
    assert len({record.labels for record in photos}) > 990
    held = divide(photos, *[2] * 40, fraction=0.2).parts["val"]
    assert len(held) == 200
    assert largest_distance(photos, held, 0.2) < 3, "at random it is 12"


def test_two_tasks_with_thousands_of_small_classes() -> None:
    chance = np.random.default_rng(0)
    photos = records(*chance.integers(0, 2000, (2, 10_000)))
    held = divide(photos, 2000, 2000, fraction=0.2).parts["val"]
    assert len(held) == 2000
    assert largest_distance(photos, held, 0.2) < 2, "at random it is 6"


def test_ten_thousand_classes_of_all_sizes() -> None:
    labels = np.minimum(np.random.default_rng(0).zipf(1.3, 30_000), 10_000) - 1
    photos = records(labels.tolist())
    splits = divide(photos, 10_000, fraction=0.2)
    held, kept = counts(splits.parts["val"]), counts(splits.parts["train"])
    assert held.total() == 6000
    assert set(kept) == set(labels.tolist()), "every class is learnt"
    assert all(held[label] for label, count in counts(photos).items() if count >= 10)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.6])
def test_no_class_of_any_task_is_held_out_whole(fraction: float) -> None:
    chance = np.random.default_rng(1)
    columns = [np.where(chance.random(900) < 0.1, -1, chance.integers(0, size, 900)) for size in (300, 250, 3)]
    photos = records(*columns)
    parts = divide(photos, 300, 250, 3, fraction=fraction).parts
    for task in range(3):
        assert set(counts(parts["train"], task)) == set(counts(photos, task))
    assert len(parts["val"]) == fraction * 900


def test_classes_without_a_held_out_sample_are_named() -> None:
    photos = records([0] * 50 + [1, 2, 3] + [4] * 50)
    assert divide(photos, 6, fraction=0.2).notes == ("task 'task0': 3 classes have no held-out sample: c1, c2, c3",)
    many = divide(records([0] * 500 + list(range(1, 41))), 41, fraction=0.2).notes
    assert "40 classes have no held-out sample: c1, c2, " in many[0]
    assert many[0].endswith("c20 and 20 more")


def test_a_share_beyond_what_classes_can_give_is_refused() -> None:
    with pytest.raises(
        BadArgument, match=r"80 of 120 photos can be held out when every class keeps one .*ask for 0\.667"
    ):
        divide(records([number // 3 for number in range(120)]), 40, fraction=0.9)
    with pytest.raises(BadArgument, match=r"--holdout 0\.2: none of 50 photos can be held out, because each"):
        divide(records(range(50)), 50, fraction=0.2)
    with pytest.raises(BadArgument, match="none of 1 photos"):
        divide(records([0]), 1, fraction=0.5)


# -- units -----------------------------------------------------------------------------------------------------------


def held_units(splits: Splits, unit: Sequence[int]) -> set[int]:
    """The units that are held out; none of them is in train, too."""
    sides = {name: {unit[int(record.key[-6:])] for record in part} for name, part in splits.parts.items()}
    assert sides["train"].isdisjoint(sides["val"])
    return sides["val"]


def test_units_stay_whole_and_singles_fill_up() -> None:
    chance = np.random.default_rng(0)
    unit = [*chance.integers(0, 80, 600).tolist(), *range(1000, 1400)]
    photos = records(chance.integers(0, 4, 1000), chance.integers(0, 30, 1000))
    splits = divide(photos, 4, 30, fraction=0.2, unit=unit)
    held_units(splits, unit)
    assert len(splits.parts["val"]) == 200
    assert largest_distance(photos, splits.parts["val"], 0.2) < 3
    assert splits.notes == ("599 photos in 79 groups; the share held out is 0.200",)


def test_units_alone_are_stratified() -> None:
    chance = np.random.default_rng(0)
    person = chance.integers(0, 500, 4000)  # what a person is, is the same in all photos
    photos = records(chance.choice(2, 500, p=[0.8, 0.2])[person], chance.integers(0, 6, 500)[person])
    splits = divide(photos, 2, 6, fraction=0.2, unit=person)
    assert abs(len(splits.parts["val"]) - 800) <= 2
    held_units(splits, person.tolist())
    assert largest_distance(photos, splits.parts["val"], 0.2) < 25, "a person has 8 photos; at random it is 60"


def test_a_class_in_one_unit_stays_in_train() -> None:
    labels = [0] * 20 + [1] * 5 + [2] * 20
    unit = [*range(20), *[99] * 5, *range(30, 50)]
    for seed in range(5):
        splits = divide(records(labels), 3, fraction=0.4, unit=unit, seed=seed)
        assert set(counts(splits.parts["train"])) == {0, 1, 2}
        assert len(splits.parts["val"]) == 18
        assert "task 'task0': 1 class has no held-out sample: c1" in splits.notes


def test_units_of_one_class_are_not_all_held_out() -> None:
    photos = records([number // 10 for number in range(200)])
    unit = [number // 5 for number in range(200)]  # two for each class
    with pytest.raises(BadArgument, match="100 of 200 photos can be held out when every class keeps one in train"):
        divide(photos, 20, fraction=0.6, unit=unit)
    assert set(counts(divide(photos, 20, fraction=0.5, unit=unit).parts["train"]).values()) == {5}


def test_units_of_many_sizes_come_close_to_the_share() -> None:
    chance = np.random.default_rng(0)
    unit = np.repeat(np.arange(60), chance.integers(2, 40, 60))
    photos = records(chance.integers(0, 25, 60)[unit])
    for fraction in (0.1, 0.2, 0.3):
        assert abs(len(divide(photos, 25, fraction=fraction, unit=unit).parts["val"]) - fraction * len(unit)) < 2


def test_units_that_allow_no_share_nearby_are_refused_with_those_that_they_do() -> None:
    unit = [0] * 31 + [1] * 19 + [2] * 35 + [3] * 15
    photos = [record._replace(group=f"person {at}") for record, at in zip(records([0] * 100), unit, strict=True)]
    with pytest.raises(
        BadArgument, match=r"nearest that can be had is 0\.19 and 0\.31; .* group \(person 2\) holds 35"
    ):
        divide(photos, 1, fraction=0.25, unit=unit)
    for share in (0.15, 0.3, 0.35, 0.5):
        assert abs(len(divide(photos, 1, fraction=share, unit=unit).parts["val"]) - 100 * share) <= 1


def test_units_are_combined_where_placing_the_largest_first_misses_the_share() -> None:
    unit = [0] * 40 + [1] * 30 + [2] * 30 + [3] * 25
    held = divide(records([0] * 125), 1, fraction=60 / 125, unit=unit)
    assert held_units(held, unit) == {1, 2}


def test_one_unit_larger_than_all_else_stays_in_train() -> None:
    unit = [0] * 900 + list(range(1, 101))
    splits = divide(records([number % 3 for number in range(1000)]), 3, fraction=0.08, unit=unit)
    assert len(splits.parts["val"]) == 80
    with pytest.raises(BadArgument, match=r"the nearest that can be had is 0\.1 and 0\.9; .* 900 of 1,000 photos"):
        divide(records([number % 3 for number in range(1000)]), 3, fraction=0.3, unit=unit)


def test_all_in_one_unit_is_refused() -> None:
    with pytest.raises(BadArgument, match="none of 50 photos can be held out"):
        divide(records([number % 5 for number in range(50)]), 5, fraction=0.2, unit=[7] * 50)


# -- folds -----------------------------------------------------------------------------------------------------------


def test_folds_are_disjoint_equal_and_cover_all() -> None:
    chance = np.random.default_rng(0)
    photos = records(chance.integers(0, 4, 403), chance.integers(0, 20, 403))
    folds = [divide(photos, 4, 20, folds=(5, fold)).parts for fold in range(5)]
    assert Counter(record.key for parts in folds for record in parts["val"]) == {key: 1 for key in keys(photos)}
    assert sorted(len(parts["val"]) for parts in folds) == [80, 80, 81, 81, 81]
    for parts in folds:
        assert keys(parts["train"]) == keys(photos) - keys(parts["val"])
        assert largest_distance(photos, parts["val"], 1 / 5) < 3


def test_small_classes_are_spread_over_the_folds_and_single_samples_stay_in_train() -> None:
    labels = [number // 2 for number in range(100)] + [50, 51, 52]
    folds = [divide(records(labels), 53, folds=(3, fold)) for fold in range(3)]
    held = [counts(splits.parts["val"]) for splits in folds]
    assert sum(held, Counter()) == {label: 2 for label in range(50)}
    assert all(set(fold.values()) == {1} for fold in held), "no fold holds both samples of a class"
    assert "3 photos stay in train in every fold: a class would not be learnt without them" in folds[0].notes


def test_no_fold_holds_a_whole_class_of_any_task() -> None:
    chance = np.random.default_rng(0)
    photos = records(*chance.integers(0, 3000, (2, 9000)))
    folds = [divide(photos, 3000, 3000, folds=(3, fold)).parts for fold in range(3)]
    for task in range(2):
        learnt = set(counts(photos, task))
        assert all(set(counts(parts["train"], task)) == learnt for parts in folds)
    sizes = [len(parts["val"]) for parts in folds]
    assert max(sizes) - min(sizes) < 20, "classes of two samples do not pile up in the last fold"


def test_folds_keep_units_whole() -> None:
    unit = np.minimum(np.arange(100) // 4, 20)  # the last one holds 20
    photos = records([number % 5 for number in range(100)])
    folds = [divide(photos, 5, folds=(4, fold), unit=unit) for fold in range(4)]
    found = [held_units(splits, unit.tolist()) for splits in folds]
    assert sorted(number for units in found for number in units) == list(range(21))
    assert sorted(len(splits.parts["val"]) for splits in folds) == [24, 24, 24, 28]
    assert any("folds hold from 24 to 28 photos" in note for note in folds[0].notes)


def test_more_folds_than_units_are_refused() -> None:
    with pytest.raises(BadArgument, match=r"--folds 5: 2 of them would be empty: 9 photos in 3 groups can be held out"):
        divide(records([0] * 9), 1, folds=(5, 0), unit=[0, 1, 2] * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": (5, 5)}, "--fold 5: must lie between 0 and 4"),
        ({"folds": (1, 0)}, "--folds 1: must be at least 2"),
        ({"folds": (3, None)}, "--folds and --fold belong together"),
        ({"folds": (5, 0), "fraction": 0.2}, "leave one out"),
        ({"fraction": 1.5}, "must lie between 0 and 1"),
        ({"folds": (5, 0), "split": "val"}, "--split val with --folds"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        divide(records([0] * 9), 1, **options)


# -- published splits ------------------------------------------------------------------------------------------------


PUBLISHED = ["train"] * 60 + ["val"] * 20 + ["test"] * 20


def test_published_splits_are_kept_and_test_is_left_alone() -> None:
    photos = records([number % 2 for number in range(100)], splits=PUBLISHED)
    sizes = lambda splits: {name: len(part) for name, part in splits.parts.items()}  # noqa: E731
    assert sizes(divide(photos, 2)) == {"train": 60, "val": 20, "test": 20}
    assert sizes(divide(photos, 2, split="test")) == {"test": 20}
    assert sizes(divide(photos, 2, split="train", fraction=0.25)) == {"train": 45, "val": 15}
    for anew in (divide(photos, 2, fraction=0.5), divide(photos, 2, folds=(2, 1))):
        assert sizes(anew) == {"train": 40, "val": 40, "test": 20}
        assert {record.split for record in anew.parts["test"]} == {"test"}
    with pytest.raises(BadArgument, match="publishes only test, nothing to train on"):
        divide(photos[80:], 2, fraction=0.5)
    with pytest.raises(BadArgument, match="--split dev: the source publishes test, train, val"):
        divide(photos, 2, split="dev")


def test_a_photo_without_a_published_split_belongs_to_train_alone() -> None:
    photos = records([0] * 100, splits=[*PUBLISHED[:99], ""])
    assert len(divide(photos, 1).parts["train"]) == 61
    assert len(divide(photos, 1, split="test").parts["test"]) == 19


def test_units_and_published_splits() -> None:
    photos = records([number % 2 for number in range(100)], splits=PUBLISHED)
    unit = [*range(78), 78, 78, 78, 78, *range(82, 100)]  # two photos in val, two in test
    with pytest.raises(BadArgument, match=r"--group with published splits .* add --holdout to draw anew"):
        divide(photos, 2, unit=unit)
    splits = divide(photos, 2, unit=unit, fraction=0.25)
    assert (len(splits.parts["test"]), len(splits.parts["val"])) == (20, 20)
    assert splits.notes[0] == (
        "1 group lies in other published splits, too (test), which stay as they are; 2 photos of it are in train or val"
    )
