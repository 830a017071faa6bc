"""`python -m train.suspects`: planted wrong labels come first, and what it writes can be used."""

import csv
import json
import random
from pathlib import Path

import pytest
import yaml

from data import correct
from data.index import load_index
from data.shards.external_tars import index_tars
from launch.exit_codes import ExitCode
from tests.conftest import TINY_TASKS, jpeg_bytes
from tests.photos import write_tar
from tests.tiny_models import save_tiny_model
from train import predict, suspects

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(600)]

COLOURS = TINY_TASKS["colour"]
NUM_PHOTOS, NUM_WRONG = 96, 9
CONFIG = {
    "run": {"dir": "not/this"},
    "data": {"train": "not/this", "val": "not/this", "image_size": 32, "eval_size": 32, "workers": 0},
    "model": {"backbone": "food11_student", "head": {"kind": "multi-fc"}},
    "optimizer": {"lr": 0.05},
    "schedule": {"epochs": 1, "warmup_epochs": 0},
    "batch_size": 12,
    "tracking": {"evaluate_every": 8, "wandb": {"mode": "disabled"}},
}


def run(*arguments: object) -> int:
    return suspects.main([*map(str, arguments), "--workers", "0", "--device", "cpu"])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_photos(folder: Path, number_of_photos: int, wrong: dict[int, str]) -> Path:
    """A table of photos of one colour each; wrong: number -> what its label says instead."""
    lines = ["image,colour"]
    for number in range(number_of_photos):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg_bytes(colour=number % 3, tone=0, seed=number))
        lines.append(f"{number:03d}.jpg,{wrong.get(number, COLOURS[number % 3])}")
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder / "photos.csv"


class Planted:
    """A call over photos some of whose labels are wrong."""

    def __init__(self, folder: Path) -> None:
        chance = random.Random(0)
        numbers = chance.sample(range(NUM_PHOTOS), NUM_WRONG)
        self.wrong = {number: COLOURS[(number + chance.choice((1, 2))) % 3] for number in numbers}
        table = write_photos(folder, NUM_PHOTOS, self.wrong)
        self.out = folder / "out"
        words = ["--config", folder / "run.yaml", "--source", table, "--folds", 2, "--out", self.out, "--top", 8]
        self.words = [*words, "--build=--no-near-duplicates", "schedule.epochs=8"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    done = Planted(tmp_path_factory.mktemp("planted"))
    assert run(*done.words) == ExitCode.DONE
    return done


def test_most_of_the_planted_labels_are_in_the_worst_tenth(planted: Planted) -> None:
    rows = read_csv(planted.out / "suspects.csv")
    assert sorted(row["image"] for row in rows) == [f"{number:03d}" for number in range(NUM_PHOTOS)]
    worst = {int(row["image"]) for row in rows[: NUM_PHOTOS // 10]}
    assert len(worst & planted.wrong.keys()) >= 0.8 * NUM_WRONG
    for row in rows:
        number = int(row["image"])
        assert row["label"] == planted.wrong.get(number, COLOURS[number % 3])


def test_every_photo_is_judged_by_the_model_that_has_not_seen_it(planted: Planted) -> None:
    for fold in (0, 1):
        index = load_index(planted.out / f"fold-{fold}" / "shards" / "val")
        rows = [index.load_shard(number) for number in range(len(index.shards))]
        held_out = {one.key(number) for one in rows for number in range(len(one))}
        assert held_out == {row["image"] for row in read_csv(planted.out / "suspects.csv") if row["fold"] == str(fold)}
        result = planted.out / f"fold-{fold}" / "run" / "config.yaml"
        assert yaml.safe_load(result.read_text())["data"]["train"].endswith(f"fold-{fold}/shards/train")


def test_the_corrections_are_taken_by_data_correct(planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    path = planted.out / "corrections.csv"
    fixes = read_csv(path)
    assert len(fixes) == 8
    right = [row for row in fixes if row["label"] == COLOURS[int(row["image"]) % 3]]
    assert len(right) >= 6
    shards = planted.out / "fold-0" / "shards"
    assert correct.main([str(shards), str(path), "--dry-run"]) == ExitCode.DONE
    assert "8 labels would change, 0 were so already" in capsys.readouterr().out


def test_the_page_shows_the_corrections_in_their_order(planted: Planted) -> None:
    page = (planted.out / "suspects.html").read_text()
    fixes = read_csv(planted.out / "corrections.csv")
    places = [page.index(f"{number}. {row['image']}, colour</div>") for number, row in enumerate(fixes, start=1)]
    assert places == sorted(places)
    assert page.count("data:image/jpeg;base64,") == len(fixes)
    assert "http" not in page


def test_the_same_command_again_trains_nothing(planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    before = (planted.out / "suspects.csv").read_bytes()
    assert run(*planted.words) == ExitCode.DONE
    said = capsys.readouterr().out
    assert said.count(": done before") == 4
    assert ": done in" not in said
    assert (planted.out / "suspects.csv").read_bytes() == before


# Models that are trained already.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "a", seed=1)


def test_a_model_s_probabilities_are_those_that_it_predicts(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    val = tiny_shards / "val"
    assert run("--model", model, "--data", val, "--out", tmp_path / "out", "--no-thumbnails") == ExitCode.DONE
    table = tmp_path / "predictions.csv"
    words = ["--model", model, "--data", val, "--out", table, "--probabilities", "--workers", 0, "--device", "cpu"]
    predict.main([*map(str, words)])
    predicted = {row["key"]: row for row in read_csv(table)}
    rows = read_csv(tmp_path / "out" / "suspects.csv")
    index = load_index(val)
    assert len(rows) == sum(int((index.load_shard(number).labels >= 0).sum()) for number in range(len(index.shards)))
    for row in rows:
        of_photo = predicted[row["image"]]
        assert row["answer"] == of_photo[row["task"]]
        assert float(row["probability_of_label"]) == pytest.approx(float(of_photo[f"{row['task']}={row['label']}"]))
        assert row["fold"] == "0"
    assert "data:image" not in (tmp_path / "out" / "suspects.html").read_text()


def shards_of(folder: Path, labels: list[dict[str, str]]) -> Path:
    members = []
    for number, one in enumerate(labels):
        members.append((f"{number}.jpg", jpeg_bytes(colour=number % 3, tone=0, seed=number)))
        members.append((f"{number}.json", json.dumps(one).encode()))
    folder.mkdir()
    index_tars([write_tar(folder / "a.tar", members)], tasks=TINY_TASKS, cls_task="class")
    return folder


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([{}, {}, {}], "task 'colour' has no label, task 'tone' has no label"),
        ([{"colour": "red"}] * 3, "task 'colour' has one class, 'red'"),
    ],
)
def test_labels_that_nothing_can_contradict_are_refused(
    labels: list[dict[str, str]], said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shards_of(tmp_path / "data", labels)
    assert run("--model", model, "--data", data, "--out", tmp_path / "out") == ExitCode.BAD_DATA
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_task_of_one_class_is_named_and_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shards_of(tmp_path / "data", [{"colour": COLOURS[number % 3], "tone": "dark"} for number in range(6)])
    assert run("--model", model, "--data", data, "--out", tmp_path / "out") == ExitCode.DONE
    assert "note: task 'tone' has one class, 'dark': not judged" in capsys.readouterr().out
    assert {row["task"] for row in read_csv(tmp_path / "out" / "suspects.csv")} == {"colour"}


def test_a_photo_belongs_to_one_model(
    model: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", model, "--data", tiny_shards / "val"]
    assert run(*words, *words, "--out", tmp_path / "out") == ExitCode.BAD_DATA
    assert "the photo 'sample1000' is in" in capsys.readouterr().err


def test_photos_that_a_model_was_trained_on_are_refused(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tiny_shards / "train"
    trained = save_tiny_model(tmp_path / "a", seed=1, provenance={"data": {"train": str(train)}})
    assert run("--model", trained, "--data", train, "--out", tmp_path / "out") == ExitCode.BAD_DATA
    assert "was trained on these photos" in capsys.readouterr().err


# What cannot be asked for.


def test_more_folds_than_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_photos(tmp_path, 6, {})
    words = ["--config", tmp_path / "run.yaml", "--source", table, "--out", tmp_path / "out", "--folds", 9]
    assert run(*words) == ExitCode.BAD_CONFIG
    assert "--folds 9: 3 of them would be empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs --config and --source, or --model and --data"),
        (["--config", "a.yaml"], "needs --config and --source"),
        (["--model", "a"], "1 --model and 0 --data"),
        (["--model", "a", "--data", "b", "--source", "c"], "leave out --config, --source"),
        (["--config", "a", "--source", "b", "--folds", "1"], "--folds 1: must be at least 2"),
    ],
)
def test_words_that_do_not_fit(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*words, "--out", "x")
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_wrong_config_is_told_before_anything_is_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_photos(tmp_path, 6, {})
    words = ["--config", tmp_path / "run.yaml", "--source", table, "--out", tmp_path / "out"]
    assert run(*words, "optimizer.rl=1") == ExitCode.BAD_CONFIG
    assert "unknown key 'optimizer.rl'" in capsys.readouterr().err
    assert run(*words, "run.dir=mine") == ExitCode.BAD_CONFIG
    assert "run.dir=mine: every fold has its own; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
