"""`python -m train.predict`: every photo gets its row, in order, with the right answer or the reason why not."""

import csv
import errno
import io
import json
import math
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from data.errors import BadSample
from data.loading.image_sets import open_images
from data.names import as_text
from data.shards.external_tars import index_tars
from launch.exit_codes import ExitCode
from models.artifact import load_artifact, load_artifact_meta
from tests.conftest import TINY_TASKS, RankRun, jpeg_bytes
from tests.tiny_models import SIZE, save_tiny_model
from train import predict
from train.evaluation.prediction import Prediction, PredictionTable, bare

pytestmark = pytest.mark.usefixtures("one_thread")

Rows = list[dict[str, str]]


def run(*arguments: str | Path, workers: int = 0) -> ExitCode:
    return predict.main([*map(str, arguments), "--workers", str(workers), "--device", "cpu"])


def read_csv(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def probabilities_by_hand(folder: Path, jpegs: list[bytes], *, mirrored: bool = False) -> dict[str, np.ndarray]:
    """The model's answers for photos of its own size, without any of the code under test but the network."""
    model, meta = load_artifact(folder)
    pixels = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs])
    if mirrored:
        pixels = pixels[:, :, ::-1].copy()
    scaled = (pixels / 255 - meta.preprocessing["mean"]) / meta.preprocessing["std"]
    image = torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return {task: logits.softmax(dim=1).numpy() for task, logits in model(image).items()}


def table_of(rows: Rows, tasks: Mapping[str, tuple[str, ...]] = TINY_TASKS) -> dict[str, np.ndarray]:
    return {
        task: np.array([[float(row[f"{task}={name}"]) for name in names] for row in rows])
        for task, names in tasks.items()
    }


def photo(number: int) -> bytes:
    return jpeg_bytes(colour=number % 3, tone=number // 3 % 2, seed=number)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "a", seed=1)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Nine photos in three folders; sorted by path they are numbers 0 to 8."""
    folder = tmp_path / "album"
    for number, name in enumerate(
        ["1.jpg", "2.JPG", "b/1.jpeg", "b/c/9.jpg", "d 1.jpg", "e.jpg", "f.jpg", "g.jpg", "ü.jpg"]
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    return folder


KEYS = ["1.jpg", "2.JPG", "b/1.jpeg", "b/c/9.jpg", "d 1.jpg", "e.jpg", "f.jpg", "g.jpg", "ü.jpg"]


def test_a_folder_of_photos_becomes_a_table_in_path_order(model: Path, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "predictions.csv"
    assert run("--model", model, "--data", album, "--out", out, "--probabilities", "--batch-size", 4) == 0
    rows = read_csv(out)
    assert [row["key"] for row in rows] == KEYS
    expected = probabilities_by_hand(model, [photo(number) for number in range(9)])
    for task, values in table_of(rows).items():
        np.testing.assert_allclose(
            values, expected[task], atol=2e-3
        )  # decoders of one library, resized by another path
        best = values.argmax(axis=1)
        assert len(set(best.tolist())) > 1, "the answers are all alike: this test would not see a mixed-up order"
        assert [row[task] for row in rows] == [TINY_TASKS[task][at] for at in best]
        assert [float(row[f"{task}_probability"]) for row in rows] == values.max(axis=1).tolist()
    assert {row["error"] for row in rows} == {""}


def test_workers_and_batch_size_change_nothing(model: Path, album: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--data", album, "--tta", 4, "--probabilities")
    run(*options, "--out", tmp_path / "one.csv")
    run(*options, "--out", tmp_path / "two.csv", "--batch-size", 2, workers=2)
    one, two = read_csv(tmp_path / "one.csv"), read_csv(tmp_path / "two.csv")
    assert [row["key"] for row in one] == [row["key"] for row in two]
    for task, values in table_of(one).items():
        np.testing.assert_allclose(values, table_of(two)[task], atol=2e-6)


def test_without_probabilities_the_columns_are_key_class_probability_and_error(
    model: Path, album: Path, tmp_path: Path
) -> None:
    run("--model", model, "--data", album, "--out", tmp_path / "out.csv")
    assert list(read_csv(tmp_path / "out.csv")[0]) == [
        "key", "colour", "colour_probability", "tone", "tone_probability", "error",
    ]  # fmt: skip


def test_photos_that_cannot_be_used_are_listed_in_their_place_and_counted(
    model: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "b" / "1.jpeg").write_bytes(photo(2)[:200])
    (album / "f.jpg").write_bytes(b"")
    (album / "gone.png").symlink_to(album / "nowhere.png")
    (album / "notes.txt").write_text("no photo")
    assert run("--model", model, "--data", album, "--out", tmp_path / "out.csv", "--batch-size", 3) == 0
    rows = read_csv(tmp_path / "out.csv")
    assert [row["key"] for row in rows] == sorted([*KEYS, "gone.png"])
    failed = {row["key"]: row["error"] for row in rows if row["error"]}
    assert set(failed) == {"b/1.jpeg", "f.jpg", "gone.png"}
    assert "empty" in failed["f.jpg"]
    assert "cannot be read (No such file" in failed["gone.png"]
    assert all(row["colour"] == row["tone"] == row["tone_probability"] == "" for row in rows if row["error"])
    output = capsys.readouterr().out
    assert "notes.txt" in output
    assert output.splitlines()[-1] == f"wrote {tmp_path / 'out.csv'}: 7 photos predicted, 3 could not be used"
    good = [row for row in rows if not row["error"]]
    others = probabilities_by_hand(model, [photo(number) for number in (0, 1, 3, 4, 5, 7, 8)])
    assert [row["colour"] for row in good] == [TINY_TASKS["colour"][at] for at in others["colour"].argmax(axis=1)]


def test_no_key_and_no_error_is_a_formula_and_keys_come_back(model: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    names = ["=1+2.jpg", "+1.jpg", "-1.jpg", "@a.jpg", "\t=1.jpg", "\r=1.jpg", "'=1.jpg", "\uff1d1.jpg", "a=1.jpg"]
    for name in names:
        (album / name).write_bytes(photo(0))
    assert run("--model", model, "--data", album, "--out", tmp_path / "out.csv") == 0
    cells = [row["key"] for row in read_csv(tmp_path / "out.csv")]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r\n\uff1d"]
    assert [bare(cell) for cell in cells] == [as_text(name) for name in sorted(names)]
    assert "a=1.jpg" in cells
    table = PredictionTable(tmp_path / "errors.csv", tasks={}, all_probabilities=False)
    with table:
        table.write(table.row(Prediction("a", {}, '=HYPERLINK("http://x")')))
    assert read_csv(tmp_path / "errors.csv") == [{"key": "a", "error": '\'=HYPERLINK("http://x")'}]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_has_a_row_that_says_why(
    model: Path, album: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "locked").mkdir()
    (album / "locked" / "1.jpg").write_bytes(photo(0))
    (album / "loop.jpg").symlink_to(album / "loop.jpg")
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, album / "locked"))  # root is let in everywhere
    assert run("--model", model, "--data", album, "--out", tmp_path / "out.csv", workers=workers) == 0
    failed = {row["key"]: row["error"] for row in read_csv(tmp_path / "out.csv") if row["error"]}
    assert failed == {
        "locked/": "cannot be read (Permission denied)",
        "loop.jpg": "cannot be read (Too many levels of symbolic links)",
    }


def refusing(scandir: Callable, folder: Path) -> Callable:
    def refuse(path: str | Path = ".") -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    return refuse


def test_a_photo_that_vanishes_while_others_are_read_has_a_row(model: Path, album: Path, tmp_path: Path) -> None:
    photos, _ = open_images(str(album))
    (album / "g.jpg").unlink()
    with pytest.raises(BadSample, match=r"cannot be read \(No such file or directory\)"):
        photos.read(0, KEYS.index("g.jpg"))


def test_one_photo_is_enough_and_one_broken_photo_is_an_error_with_a_row(
    model: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    assert run("--model", model, "--data", album / "b" / "1.jpeg", "--out", out) == 0
    assert [row["key"] for row in read_csv(out)] == ["1.jpeg"]
    (album / "g.jpg").write_bytes(b"no photo")
    assert run("--model", model, "--data", album / "g.jpg", "--out", out) == ExitCode.BAD_DATA
    assert [(row["key"], bool(row["error"])) for row in read_csv(out)] == [("g.jpg", True)]


def test_a_shard_folder_is_predicted_in_index_order(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert run("--model", model, "--data", tiny_shards / "train", "--out", out, "--batch-size", 7) == 0
    rows = read_csv(out)
    assert [row["key"] for row in rows] == [f"sample{number:04d}" for number in range(33)]
    expected = probabilities_by_hand(model, [photo(number) for number in range(33)])
    assert [row["colour"] for row in rows] == [TINY_TASKS["colour"][at] for at in expected["colour"].argmax(axis=1)]


def test_the_second_view_is_the_mirror_image_and_probabilities_are_averaged(
    model: Path, album: Path, tmp_path: Path
) -> None:
    run("--model", model, "--data", album, "--out", tmp_path / "out.csv", "--probabilities", "--tta", 2)
    jpegs = [photo(number) for number in range(9)]
    plain, mirror = probabilities_by_hand(model, jpegs), probabilities_by_hand(model, jpegs, mirrored=True)
    for task, values in table_of(read_csv(tmp_path / "out.csv")).items():
        np.testing.assert_allclose(values, (plain[task] + mirror[task]) / 2, atol=1e-4)
        assert np.abs(plain[task] - mirror[task]).max() > 0.01


def test_an_ensemble_is_the_mean_of_its_members_whatever_their_sizes_and_class_orders(
    model: Path, album: Path, tmp_path: Path
) -> None:
    shuffled = {"tone": ("bright", "dark"), "colour": ("blue", "red", "green")}
    other = save_tiny_model(
        tmp_path / "b", seed=2, tasks=shuffled, head="multi-se", size=24, mean=(0.1, 0.2, 0.6), std=(0.5, 0.5, 0.5)
    )
    options = ("--data", album, "--probabilities", "--tta", 3)
    run("--model", model, *options, "--out", tmp_path / "a.csv")
    run("--model", other, *options, "--out", tmp_path / "b.csv")
    run("--model", model, "--model", other, *options, "--out", tmp_path / "both.csv")
    a, b, both = (table_of(read_csv(tmp_path / f"{name}.csv")) for name in ("a", "b", "both"))
    for task in TINY_TASKS:
        np.testing.assert_allclose(both[task], (a[task] + b[task]) / 2, atol=2e-6)
        assert np.abs(a[task] - b[task]).max() > 0.05


def test_a_model_that_gives_no_numbers_is_an_error_per_photo(album: Path, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "nan", seed=1, std=(1e-40, 1.0, 1.0))
    assert run("--model", folder, "--data", album, "--out", tmp_path / "out.csv") == ExitCode.EXPLODED
    assert {row["error"] for row in read_csv(tmp_path / "out.csv")} == {
        "the model's answer is not a number; try --precision fp32"
    }


def unlabelled_shards(folder: Path, num_shards: int = 2) -> Path:
    folder.mkdir()
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:06d}.tar", "w") as tar:
            for number in range(3):
                for suffix, content in (("jpg", photo(number)), ("json", json.dumps({"tone": None}).encode())):
                    member = tarfile.TarInfo(f"s{shard}{number}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    index_tars(sorted(folder.glob("*.tar")), tasks=TINY_TASKS, cls_task="class")
    return folder


def test_an_unlabelled_split_is_predicted(model: Path, tmp_path: Path) -> None:
    folder = unlabelled_shards(tmp_path / "test")
    assert run("--model", model, "--data", folder, "--out", tmp_path / "out.csv") == 0
    assert [row["key"] for row in read_csv(tmp_path / "out.csv")] == ["s00", "s01", "s02", "s10", "s11", "s12"]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(
    model: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unlabelled_shards(tmp_path / "test")
    (folder / "000001.idx").unlink()
    out = tmp_path / "out" / "out.csv"
    out.parent.mkdir()
    out.write_text("old")
    code = run("--model", model, "--data", folder, "--out", out, "--batch-size", 3, workers=workers)
    assert code == ExitCode.BAD_DATA
    assert out.read_text() == "old"
    assert os.listdir(out.parent) == ["out.csv"]
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"error: {folder}/000001.idx: cannot be read")
    assert len(errors) == 2


def test_a_folder_that_links_to_itself_is_walked_once(model: Path, album: Path, tmp_path: Path) -> None:
    (album / "loop").symlink_to(album)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").write_bytes(photo(0))
    (album / "linked").symlink_to(outside)
    assert run("--model", model, "--data", album, "--out", tmp_path / "out.csv") == 0
    assert [row["key"] for row in read_csv(tmp_path / "out.csv")] == sorted([*KEYS, "linked/x.jpg"])


def test_no_photos_is_an_error_that_says_where_they_are(
    model: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model", model, "--data", tiny_shards, "--out", tmp_path / "o.csv") == ExitCode.BAD_DATA
    assert f"take one of {tiny_shards}/train, {tiny_shards}/val" in capsys.readouterr().err
    assert run("--model", model, "--data", tmp_path / "none", "--out", tmp_path / "o.csv") == ExitCode.BAD_DATA
    assert "no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


def test_a_missing_model_is_named(album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", tmp_path / "none", "--data", album, "--out", tmp_path / "o.csv") == ExitCode.BAD_CONFIG
    assert f"error: {tmp_path / 'none'}: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--tta", "0"), ("--batch-size", "-1"), ("--image-size", "big"), ("--out", ".")]
)
def test_a_wrong_argument_names_the_option(
    model: Path, album: Path, tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--model", model, "--data", album, "--out", tmp_path / "o.csv", option, value)
    assert stop.value.code == ExitCode.BAD_CONFIG
    assert f"argument {option}:" in capsys.readouterr().err


def test_ranks_share_the_photos_and_write_the_very_file_of_one_process(
    model: Path, album: Path, tmp_path: Path, run_ranks: Callable[..., RankRun]
) -> None:
    """Nine photos in batches of four: the last step has one for the first rank and none for the second."""
    (album / "b" / "1.jpeg").write_bytes(photo(2)[:200])
    options = ["--model", model, "--data", album, "--probabilities", "--tta", "3", "--batch-size", "4"]
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert run(*options, "--out", one) == 0
    result = run_ranks(2, ["-m", "train.predict", *map(str, [*options, "--device", "cpu", "--out", two])])
    assert result.exit_code == 0, result.output
    assert two.read_bytes() == one.read_bytes()
    assert [row["key"] for row in read_csv(two)] == KEYS
    assert f"wrote {two}: 8 photos predicted, 1 could not be used" in result.stdout[0]
    assert result.stdout[1] == ""


def test_ranks_that_see_other_photos_stop_before_they_wait_for_each_other(
    model: Path, album: Path, tmp_path: Path, run_ranks: Callable[..., RankRun]
) -> None:
    code = f"""
import os, sys
from train import predict
folder = {str(album)!r} if os.environ["HOROVOD_RANK"] == "0" else {str(album / "b")!r}
os.chdir(folder)
sys.exit(predict.main(["--model", {str(model)!r}, "--data", ".", "--out", {str(tmp_path / "o.csv")!r}]))
"""
    result = run_ranks(2, code=code)
    assert result.exit_code != 0
    assert "has photos of --data" in result.output
    assert not (tmp_path / "o.csv").exists()


def test_named_photos_are_answered_on_the_console_with_the_runner_up(
    model: Path, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [album / "e.jpg", album / "b" / "1.jpeg"]
    assert run("--model", model, *named) == 0
    expected = probabilities_by_hand(model, [photo(5), photo(2)])
    lines = []
    for number, path in enumerate(named):
        lines.append(str(path))
        for task, names in TINY_TASKS.items():
            values = expected[task][number]
            best, second = np.argsort(values)[::-1][:2]
            answer, runner_up = (f"{names[at]} {100 * values[at]:.1f} %" for at in (best, second))
            lines.append(f"  {task:<6}  {answer}, then {runner_up}")
    assert capsys.readouterr().out.splitlines() == lines


def test_of_named_photos_each_bad_one_is_told_with_its_reason(
    model: Path, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model", model, album / "nowhere.jpg") == ExitCode.BAD_DATA
    assert capsys.readouterr().out.splitlines() == [
        f"{album / 'nowhere.jpg'}: no prediction: cannot be read (No such file or directory)"
    ]
    (album / "f.jpg").write_bytes(b"")
    assert run("--model", model, album / "f.jpg", album / "e.jpg") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{album / 'f.jpg'}: no prediction: image is empty (0 bytes)"
    assert second == str(album / "e.jpg")
    assert run("--model", model, album) == ExitCode.BAD_DATA
    assert f"predict its photos with --data {album} --out" in capsys.readouterr().err


def test_named_photos_can_be_written_to_a_table(model: Path, album: Path, tmp_path: Path) -> None:
    assert run("--model", model, album / "e.jpg", "--out", tmp_path / "o.csv") == 0
    assert [row["key"] for row in read_csv(tmp_path / "o.csv")] == [str(album / "e.jpg")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "one of the two"),
        (["a.jpg", "--data", "b"], "one of the two"),
        (["--data", "b"], "--data needs --out CSV"),
        (["a.jpg", "--probabilities"], "--probabilities needs --out CSV"),
    ],
)
def test_photos_or_a_folder_with_a_file_to_write(
    model: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--model", model, *arguments)
    assert stop.value.code == ExitCode.BAD_CONFIG
    assert told in capsys.readouterr().err


def test_the_tiny_model_has_the_size_that_these_tests_assume(model: Path) -> None:
    assert load_artifact_meta(model).preprocessing["eval_size"] == SIZE
    assert math.isclose(sum(probabilities_by_hand(model, [photo(0)])["tone"][0]), 1, abs_tol=1e-5)
