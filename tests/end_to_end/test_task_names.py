"""Whatever tasks and classes are called: it works from the build to the exported file, or the build refuses it."""

import csv
import json
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from data.build import main as build
from data.errors import DataError
from data.index import INDEX_NAME, load_index
from data.index.__main__ import main as index
from data.index.labels import check_names
from models.artifact import load_artifact
from models.export import __main__ as export
from models.formats.onnx_graph import export_graph, output_names, save_graph
from models.formats.onnx_model import OnnxModel
from models.formats.quantization import measure_ranges, prepare, quantise
from models.heads import build_head, task_module
from tests.conftest import jpeg_bytes
from tests.edited_json import read_json
from tests.photos import write_tar
from tests.small_run import train_small
from tests.tiny_models import SIZE, save_tiny_model
from train import evaluate, predict
from train.errors import ConfigError
from train.evaluation.prediction import column_names
from train.setup.losses import check_measure_names

# Names of torch's values, of columns, of modules and their attributes, of other outputs; markup, paths, formulas.
ODD = (
    *("view", "key", "items", "error", "image", "linear", "val_1", "relu", "getitem", "preprocess_mean", "output_0"),
    *("type", "forward", "training", "named_modules", "hair color", "a.b", "a_b", "odd_a_2e_b", "a", "a_probability"),
    *(
        "task_image",
        "日本 語",
        "[/b]",
        "<i>x</i>",
        "a/b",
        "../up",
        "=1+1",
        "%s{}",
        "'\"",
        "x" * 80,
        "-",
        "1",
        "A",
        "a=red",
    ),
    *("view_scale", "a_quantized", "a_QuantizeLinear_Output", "loss", "mean_top1", "e\u0301", "\u00e9"),
)
ODDEST = (
    "view",
    "key",
    "items",
    "image",
    "hair color",
    "a.b",
    "a",
    "a_probability",
    "日本 語",
    "[/b]",
    "../up",
    "=1+1",
)
ODD_CLASSES = ("red", "=2", "[/i]", 'a,b "c"', "é")


def random_names(seed: int, count: int) -> list[str]:
    """Distinct ones out of few characters, so that many differ in one character only."""
    draw = random.Random(seed)
    return list(dict.fromkeys("".join(draw.choices("aA_.-2e= é", k=draw.randint(1, 5))) for _ in range(count)))


def test_every_task_has_a_module_and_an_output_of_its_own() -> None:
    names = [*ODD, *random_names(0, 3000)]
    names += [task_module(name) for name in names]
    names = list(dict.fromkeys(names))
    modules = [task_module(name) for name in names]
    assert len(set(modules)) == len(modules)
    assert not any("." in module for module in modules)
    outputs = output_names(names)
    assert len(set(outputs)) == len(outputs)
    assert "image" not in outputs  # the input
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", output) for output in outputs)


def test_plain_names_stay_what_they_were_in_saved_models() -> None:
    plain = ["age", "Hair-2", "a_b", "7", "view"]
    assert [task_module(name) for name in plain] == [f"task_{name}" for name in plain]
    assert output_names(plain) == plain
    head = build_head(kind="multi-embedding", num_features=4, tasks={"age": 2, "hair color": 3}, width=2)
    assert {name.split(".")[1] for name in head.state_dict()} == {"task_age", "odd_hair_20_color"}


@pytest.mark.parametrize("seed", range(20))
def test_no_two_columns_of_a_table_are_called_the_same(seed: int) -> None:
    draw = random.Random(seed)
    tasks = {name: draw.sample(ODD_CLASSES, 3) for name in draw.sample([*ODD, *random_names(seed, 50)], 30)}
    for every in (False, True):
        columns = column_names(tasks, all_probabilities=every)
        assert len(set(columns)) == len(columns) == 2 + len(tasks) * (5 if every else 2)


@pytest.mark.parametrize(
    ("tasks", "columns"),
    [
        ({"a": "xy", "b": "x"}, ["key", "a", "a_probability", "b", "b_probability", "error"]),
        ({"key": "xy"}, ["key", 'class "key"', 'probability "key"', "error"]),
        (
            {"a": "xy", "a_probability": "x"},
            ["key", 'class "a"', 'probability "a"', 'class "a_probability"', 'probability "a_probability"', "error"],
        ),
    ],
)
def test_columns_have_plain_names_where_these_are_clear(tasks: Mapping[str, Sequence[str]], columns: list[str]) -> None:
    assert column_names(tasks, all_probabilities=False) == columns


def manifest(folder: Path, tasks: Mapping[str, Sequence[str]]) -> Path:
    """Photos whose classes take turns."""
    folder.mkdir()
    rows = []
    for number in range(16):
        name = f"{number}.jpg"
        (folder / name).write_bytes(jpeg_bytes(colour=number % 3, tone=number % 2, seed=number))
        rows.append({"image": name, **{task: names[number % len(names)] for task, names in tasks.items()}})
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_odd_names_are_built_as_they_are(tmp_path: Path) -> None:
    # An accent in two spellings is one name.
    names = [name for name in ODD if name not in ("image", "e\u0301")]
    tasks = {name: ODD_CLASSES[: 2 + number % 4] for number, name in enumerate(names)}
    source = manifest(tmp_path / "photos", tasks)
    assert build(["--source", f"manifest:{source}", "--out", str(tmp_path / "shards"), "--workers", "1"]) == 0
    built = load_index(tmp_path / "shards/train").tasks
    assert {task: sorted(names) for task, names in tasks.items()} == {
        task: list(names) for task, names in built.items()
    }


def test_odd_names_go_all_the_way(tmp_path: Path) -> None:
    tasks = {name: ODD_CLASSES[: 2 + number % 4] for number, name in enumerate(ODDEST)}
    shards, classes = tmp_path / "shards", tmp_path / "classes.json"
    classes.write_text(json.dumps(tasks))
    for split, count in (("train", 33), ("val", 12)):
        (shards / split).mkdir(parents=True)
        members: list[tuple[str, bytes]] = []
        for number in range(count):
            labels = {task: names[number % len(names)] for task, names in tasks.items()}
            image = jpeg_bytes(colour=number % 3, tone=number % 2, seed=number)
            members += [(f"{number}.jpg", image), (f"{number}.json", json.dumps(labels).encode())]
        write_tar(shards / split / "a.tar", members)
        assert index([str(shards / split), "--classes", str(classes), "--workers", "1"]) == 0
    outcome = train_small(shards, tmp_path, "schedule.epochs=1")
    assert outcome.exit_code == 0, outcome.stderr
    words = ["--model", str(outcome.run / "best"), "--data", str(shards / "val"), "--workers", "0"]
    table = tmp_path / "predictions.csv"
    assert predict.main([*words, "--out", str(table), "--probabilities"]) == 0
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    columns = {task: f"class {json.dumps(task, ensure_ascii=False)}" for task in tasks}
    assert all(row[columns[task]] in names for row in rows for task, names in tasks.items())
    out = tmp_path / "exported"
    assert export.main([*words, "--out", str(out), "--preprocessing", "inside"]) == 0
    assert [output.name for output in onnx.load(out / "model.onnx").graph.output] == output_names(list(tasks))
    measured = tmp_path / "measured.json"
    words[1] = str(out / "model.onnx")
    assert evaluate.main([*words, "--json", str(measured)]) == 0
    assert set(json.loads(measured.read_text())["tasks"]) == set(tasks)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg_bytes(colour=0, tone=0, seed=0))
    command = [sys.executable, str(out / "predict.py"), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(tasks)


def test_quantising_keeps_its_own_names_apart(tmp_path: Path) -> None:
    """Of the outputs of one convolution it makes names such as these tasks have."""
    tasks = {f"a{end}": ["x", "y"] for end in ("", "_scale", "_zero_point", "_quantized")}
    ends = ("QuantizeLinear_Input", "QuantizeLinear_Output", "DequantizeLinear_Output")
    tasks |= {f"{start}_{end}": ["x", "y"] for start in ("a", "view") for end in ends}
    folder = save_tiny_model(tmp_path / "model", seed=0, tasks=tasks, head="single-conv")
    model, meta = load_artifact(folder)
    graph = prepare(export_graph(model, meta, image_size=SIZE))
    photos = [np.random.default_rng(0).normal(size=(16, 3, SIZE, SIZE)).astype(np.float32)]
    small = quantise(graph, measure_ranges(graph, photos, method="minmax"))
    assert [output.name for output in small.graph.output] == list(tasks)
    path = tmp_path / "small.onnx"
    save_graph(small, path)
    answers = OnnxModel(path)(torch.from_numpy(photos[0]))
    with torch.no_grad():
        expected = model(torch.from_numpy(photos[0]))
    for task in tasks:
        assert (answers[task] - expected[task]).abs().max() < 0.1 * expected[task].abs().max()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"": ["a", "b"]}, "a task is called ''; give it a name"),
        ({" \u00a0": ["a", "b"]}, "give it a name"),
        ({"two\nlines": ["a", "b"]}, r"task 'two\nlines': its name holds '\n', which tables cannot show; rename it"),
        ({"half\ud83d": ["a", "b"]}, "which tables cannot show"),
        ({"x" * 81: ["a", "b"]}, "its name has 81 characters; 80 are allowed"),
        ({"age": ["a", " "]}, "task 'age' has a class without a name"),
    ],
)
def test_names_that_no_table_can_hold_are_refused_when_the_data_is_built_and_opened(
    tasks: dict[str, list[str]], message: str, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError) as caught:
        check_names(tasks)
    assert message in str(caught.value)
    content = read_json(tiny_shards / "val" / INDEX_NAME)
    (tmp_path / INDEX_NAME).write_text(json.dumps({**content, "tasks": tasks}))
    with pytest.raises(DataError) as caught:
        load_index(tmp_path)
    assert message in str(caught.value)
    # A cell is stripped, and what no table can show is spelt out.
    if not {"age", "two\nlines", "half\ud83d"} & tasks.keys():
        source = manifest(tmp_path / "photos", tasks)
        out = tmp_path / "shards"
        assert build(["--source", f"manifest:{source}", "--out", str(out), "--workers", "1"]) == 65
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_two_fields_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = manifest(tmp_path / "photos", {"e\u0301": ["a", "b"], "\u00e9": ["a", "b"]})
    assert build(["--source", f"manifest:{source}", "--out", str(tmp_path / "shards"), "--workers", "1"]) == 65
    assert "line 1 has two fields of one name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("terms", "tasks"), [(["a", "a.teacher", "a.teacher"], ["a", "a.teacher"]), (["top1", "loss"], ["top1", "loss"])]
)
def test_two_measures_of_one_name_are_refused_at_the_start(terms: list[str], tasks: list[str]) -> None:
    check_measure_names(["a", "a.teacher"], ["a", "b"])
    with pytest.raises(ConfigError, match="two measures of the logs would be called loss"):
        check_measure_names(terms, tasks)
