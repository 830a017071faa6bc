"""Each importer gives the tasks, labels and published splits of its data set, and names what does not fit."""

import gzip
import json
import os
import pickle
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.errors import BadArgument, DataError
from data.images.decode import decode_image
from data.index.labels import order_classes
from data.sources import SOURCES, Source, open_source
from data.sources.source import make_keys
from tests.photos import class_folders, jpeg, pixels

GROCERY = Path(__file__).resolve().parents[4] / "shared" / "data" / "grocery"


def labels_of(source: Source, task: str) -> dict[str, str | None]:
    """key -> class name."""
    names, column = source.tasks[task], list(source.tasks).index(task)
    return {
        record.key: names[record.labels[column]] if record.labels[column] >= 0 else None for record in source.records
    }


# -- one small data set of each kind, for the contract ---------------------------------------------------------------


def make_folder(root: Path) -> str:
    return f"folder:{class_folders(root / 'photos')}"


def make_manifest(root: Path, text: str = "image,age,sex\na.jpg,old,f\nb.jpg,,m\n", name: str = "list.csv") -> str:
    for number, photo in enumerate("abcd"):
        (root / f"{photo}.jpg").write_bytes(jpeg(number))
    (root / name).write_text(text)
    return f"manifest:{root / name}"


def make_food11(root: Path, folders: tuple[str, ...] = ("training", "validation", "evaluation")) -> str:
    for folder in folders:
        (root / folder).mkdir()
        for label in (0, 3, 10):
            (root / folder / f"{label}_7.jpg").write_bytes(jpeg(label))
    return f"food11:{root}"


def original_pickle(content: dict) -> bytes:
    """As numpy 1 under an old protocol wrote it."""
    return pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def make_cifar10(root: Path) -> str:
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        rows = np.stack([pixels(number, 32, 32).transpose(2, 0, 1).reshape(-1) for number in range(4)])
        names = [f"{name}_{number}.png".encode() for number in range(4)]
        content = {b"data": rows, b"labels": [0, 1, 9, 3], b"filenames": names, b"batch_label": b"x"}
        (root / name).write_bytes(original_pickle(content))
    return f"cifar10:{root}"


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def make_fashion(root: Path) -> str:
    for prefix, count in (("train", 5), ("t10k", 2)):
        images = np.arange(count * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(count, 28, 28)
        (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (root / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
    return f"fashion-mnist:{root}"


def make_elpv(root: Path) -> str:
    (root / "images").mkdir()
    lines = []
    for number, (probability, kind) in enumerate(
        [("0.0", "mono"), ("0.3333", "poly"), ("0.66667", "poly"), ("1", "mono")]
    ):
        (root / "images" / f"cell{number}.png").write_bytes(jpeg(number))
        lines.append(f"images/cell{number}.png  {probability}   {kind}\n")
    (root / "labels.csv").write_text("".join(lines))
    return f"elpv:{root}"


def make_grocery(root: Path) -> str:
    (root / "classes.csv").write_text(
        "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)\nGala,0,Apple,0\nLeek,1,Leek,1\n"
    )
    for split in ("train", "val"):
        names = [(f"{split}/Fruit/Apple/Gala/a.jpg", 0, 0), (f"{split}/Vegetables/Leek/b.jpg", 1, 1)]
        (root / f"{split}.txt").write_text("".join(f"{name}, {fine}, {coarse}\n" for name, fine, coarse in names))
        for name, fine, _ in names:
            (root / name).parent.mkdir(parents=True)
            (root / name).write_bytes(jpeg(fine))
    return f"grocery:{root}"


MAKERS = {
    "folder": make_folder,
    "manifest": make_manifest,
    "food11": make_food11,
    "cifar10": make_cifar10,
    "fashion-mnist": make_fashion,
    "elpv": make_elpv,
    "grocery": make_grocery,
}


@pytest.mark.parametrize("kind", list(SOURCES))
def test_every_source_keeps_the_contract(kind, tmp_path):
    text = MAKERS[kind](tmp_path)
    source = open_source(text)
    assert open_source(text).records == source.records, "the list of records is not deterministic"
    keys = [record.key for record in source.records]
    assert len(set(keys)) == len(keys) > 0
    assert all("." not in key.rpartition("/")[2] for key in keys)
    for record in source.records:
        assert record.split in ("", "train", "val", "test")
        assert len(record.labels) == len(source.tasks)
        for label, names in zip(record.labels, source.tasks.values(), strict=True):
            assert -1 <= label < len(names)
        assert decode_image(source.image_bytes(record)).ndim == 3


@pytest.mark.parametrize("kind", list(SOURCES))
def test_every_source_names_a_missing_path(kind, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        open_source(f"{kind}:{tmp_path / 'nowhere'}")


def test_unknown_kind_lists_the_kinds():
    with pytest.raises(BadArgument, match="folder, manifest, food11, cifar10, fashion-mnist, elpv, grocery"):
        open_source("imagenet:/x")


def test_task_option_names_single_tasks_only(tmp_path):
    assert list(open_source(make_folder(tmp_path), task="species").tasks) == ["species"]
    with pytest.raises(BadArgument, match="elpv names its tasks itself"):
        open_source("elpv:", task="species")


# -- folder ----------------------------------------------------------------------------------------------------------


def test_folder_with_splits_shares_its_classes(tmp_path):
    class_folders(tmp_path / "train", classes=3)
    class_folders(tmp_path / "validation", classes=2)
    source = open_source(f"folder:{tmp_path}")
    assert source.tasks == {"class": ("class0", "class1", "class2")}
    assert Counter(record.split for record in source.records) == {"train": 24, "val": 16}


def test_folder_tells_skipped_files_and_keeps_empty_classes(tmp_path):
    class_folders(tmp_path)
    (tmp_path / "class1" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    source = open_source(f"folder:{tmp_path}")
    assert "empty" in source.tasks["class"]
    (note,) = source.notes
    assert "notes.txt" in note


def test_folders_behind_links_are_classes_and_one_name_in_two_spellings_is_one(tmp_path):
    photos, store = class_folders(tmp_path / "photos", classes=1), class_folders(tmp_path / "store", classes=2)
    (photos / "linked").symlink_to(store / "class1")
    (photos / "linked" / "up").symlink_to(store / "class1")
    (photos / "linked" / "home").symlink_to(photos)
    (photos / "class0" / "all").symlink_to(photos)
    (photos / "everything").symlink_to(photos)
    for spelling in ("é", "e\u0301"):
        (photos / spelling).mkdir()
        (photos / spelling / "a.jpg").write_bytes(jpeg(1))
    (photos / "loose.jpg").write_bytes(jpeg(2))
    (photos / ".cache").mkdir()
    source = open_source(f"folder:{photos}")
    assert source.tasks == {"class": ("class0", "linked", "é")}
    assert Counter(record.labels[0] for record in source.records) == {0: 8, 1: 8, 2: 2}
    assert source.notes == (
        "1 passed over that are hidden: .cache",
        "4 passed over that lead to a folder that is read already: everything, class0/all, linked/home and 1 more",
        "1 images lie in no class folder, as loose.jpg",
        "2 folders have one name in two spellings and are one class: é",
    )


def test_a_class_folder_called_na_stays_a_class(tmp_path):
    assert open_source(f"folder:{folders_named(['NA', 'nan', 'yes'], tmp_path)}").tasks["class"] == ("NA", "nan", "yes")


def test_keys_stay_apart_and_lose_dots():
    assert make_keys(["a/x.jpg", "a/x.png", "a/x.1.jpg", "a/x_1.jpg", "../b.jpg"]) == [
        "a/x",
        "a/x_2",
        "a/x_1",
        "a/x_1_2",
        "_/b",
    ]


# -- the order of classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "classes"),
    [
        (lambda names, root: f"folder:{folders_named(names, root)}", ("0", "1", "2", "10")),
        (lambda names, root: f"cifar10:{folders_named(names, root)}", ("0", "1", "2", "10")),
        (
            lambda names, root: make_manifest(
                root, "image,n\n" + "".join(f"{photo}.jpg,{name}\n" for photo, name in zip("abcd", names, strict=True))
            ),
            ("0", "1", "2", "10"),
        ),
        (
            lambda names, root: make_manifest(
                root,
                "\n".join(
                    json.dumps({"image": f"{photo}.jpg", "n": name}) for photo, name in zip("abcd", names, strict=True)
                ),
                "list.jsonl",
            ),
            ("0", "1", "2", "10"),
        ),
    ],
    ids=["folder", "cifar10", "csv", "jsonl"],
)
def test_classes_named_by_numbers_are_in_the_order_of_the_numbers(make, classes, tmp_path):
    (tasks,) = open_source(make(["10", "0", "2", "1"], tmp_path)).tasks.values()
    assert tasks == classes


def folders_named(names: list[str], root: Path) -> Path:
    for number, name in enumerate(names):
        (root / "photos" / name).mkdir(parents=True)
        (root / "photos" / name / "a.jpg").write_bytes(jpeg(number))
    return root / "photos"


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["1.5", "10", "-2", "0.25"], ("-2", "0.25", "1.5", "10")),
        (["10", "9", "nine"], ("10", "9", "nine")),
        (["01", "1", "2"], ("01", "1", "2")),
    ],
)
def test_only_numbers_are_ordered_by_value(names, ordered):
    assert order_classes(names) == ordered


# -- food-11, CIFAR-10, Fashion-MNIST, ELPV, Grocery -----------------------------------------------------------------


def test_food11_original_layout(tmp_path):
    source = open_source(make_food11(tmp_path))
    assert Counter(record.split for record in source.records) == {"train": 3, "val": 3, "test": 3}
    assert labels_of(source, "class")["training/10_7"] == "vegetable or fruit"


def test_food11_course_copy_has_an_unlabelled_test(tmp_path):
    text = make_food11(tmp_path, ("train", "valid"))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0001.jpg").write_bytes(jpeg(1))
    source = open_source(text)
    assert [record.labels for record in source.records if record.split == "test"] == [(-1,)]
    assert "no class in their names" in source.notes[0]


@pytest.mark.parametrize("name", ["photo.jpg", "11_1.jpg"])
def test_food11_names_a_file_that_does_not_fit(name, tmp_path):
    text = make_food11(tmp_path)
    (tmp_path / "training" / name).write_bytes(jpeg(1))
    with pytest.raises(DataError, match=name):
        open_source(text)


def test_cifar10_pixels_are_exact(tmp_path):
    source = open_source(make_cifar10(tmp_path))
    assert Counter(record.split for record in source.records) == {"train": 20, "test": 4}
    record = source.records[2]
    assert source.tasks["class"][record.labels[0]] == "truck"
    assert (decode_image(source.image_bytes(record)) == pixels(2, 32, 32)).all()


def test_cifar10_never_runs_what_a_pickle_asks_for(tmp_path):
    target = tmp_path / "was-here"

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(target),)

    make_cifar10(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Attack()}, protocol=2))
    with pytest.raises(DataError, match=r"data_batch_3: .*it asks for posix.mkdir"):
        open_source(f"cifar10:{tmp_path}")
    assert not target.exists()


def test_cifar10_as_folder_of_images(tmp_path):
    class_folders(tmp_path / "train")
    assert len(open_source(f"cifar10:{tmp_path}").records) == 24


def test_fashion_mnist_splits_and_broken_files(tmp_path):
    text = make_fashion(tmp_path)
    source = open_source(text)
    assert Counter(record.split for record in source.records) == {"train": 5, "test": 2}
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be unpacked"):
        open_source(text)


def test_elpv_package_has_the_published_counts():
    source = open_source("elpv:")
    counts = {
        task: Counter(record.labels[column] for record in source.records) for column, task in enumerate(source.tasks)
    }
    assert counts["level"] == {0: 1508, 1: 295, 2: 106, 3: 715}
    assert counts["type"] == {0: 1074, 1: 1550}
    assert counts["functional"] == {0: 1803, 1: 821}


def test_elpv_names_a_bad_line(tmp_path):
    text = make_elpv(tmp_path)
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("images/x.png 0.5 mono\n")
    with pytest.raises(DataError, match=r"line 5 .*0\.5 is none of"):
        open_source(text)


def test_grocery_tasks_and_a_bad_line(tmp_path):
    text = make_grocery(tmp_path)
    source = open_source(text)
    assert source.tasks == {
        "super": ("Fruit", "Packages", "Vegetables"),
        "coarse": ("Apple", "Leek"),
        "fine": ("Gala", "Leek"),
    }
    with (tmp_path / "val.txt").open("a") as file:
        file.write("val/Fruit/x.jpg, 5, 0\n")
    with pytest.raises(DataError, match=r"val\.txt: line 3: ids 5, 0 are not in classes\.csv"):
        open_source(text)


@pytest.mark.skipif(not GROCERY.is_dir(), reason="the Grocery Store photos are not at hand")
def test_grocery_as_published():
    source = open_source(f"grocery:{GROCERY}")
    assert [len(names) for names in source.tasks.values()] == [3, 43, 81]
    assert Counter(record.split for record in source.records) == {"train": 2640, "val": 296}
