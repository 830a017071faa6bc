"""Photos are answered from Python as the command answers them."""

import csv
from pathlib import Path

import pytest
import torch

from data.errors import DataError
from tests.conftest import TINY_TASKS, jpeg_bytes
from tests.tiny_models import save_tiny_model
from train import predict
from train.evaluation.ensemble import load_ensemble
from train.evaluation.photos import predict_photos

pytestmark = pytest.mark.usefixtures("one_thread")


def test_photos_have_the_answers_of_the_table_in_the_order_they_are_named(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "a", seed=1)
    photos = [tmp_path / f"{number}.jpg" for number in (3, 1, 2, 0)]
    for number, photo in enumerate(photos):
        photo.write_bytes(jpeg_bytes(colour=number % 3, tone=number % 2, seed=number))
    photos[2].write_bytes(b"")
    ensemble, _ = load_ensemble([str(model)], device=torch.device("cpu"))
    answers = predict_photos(ensemble, photos, batch_size=3)
    assert [answer.photo for answer in answers] == list(map(str, photos))
    out = tmp_path / "out.csv"
    named = list(map(str, photos))
    predict.main(["--model", str(model), *named, "--out", str(out), "--probabilities", "--batch-size", "3"])
    for answer, row in zip(answers, csv.DictReader(out.open()), strict=True):
        assert answer.error == row["error"]
        if answer.error:
            assert answer.probabilities == answer.classes == {}
            continue
        for task, names in TINY_TASKS.items():
            assert answer.classes[task] == row[task]
            assert [f"{answer.probabilities[task][name]:.6f}" for name in names] == [
                row[f"{task}={name}"] for name in names
            ]
    assert [bool(answer.error) for answer in answers] == [False, False, True, False]
    assert len({answer.classes["colour"] for answer in answers if not answer.error}) > 1


def test_a_folder_is_refused_in_words(tmp_path: Path) -> None:
    ensemble, _ = load_ensemble([str(save_tiny_model(tmp_path / "a", seed=1))], device=torch.device("cpu"))
    with pytest.raises(DataError, match="is a folder"):
        predict_photos(ensemble, [tmp_path])
