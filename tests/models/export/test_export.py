"""`python -m models.export`: files that compute what the model computes, and a gate that names what was lost."""

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from data.images.decode import decode_image
from data.index import load_index
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import FileImages, ShardImages
from data.shards.external_tars import index_tars
from launch.exit_codes import ExitCode
from models.artifact import load_artifact, save_artifact
from models.errors import ModelError
from models.export import __main__ as export
from models.export import options as export_options
from models.export import output_folder
from models.export.calibration import Int8Choice, best_method, worst_parts
from models.export.report import gate_message
from models.export.sensitivity import measure_storage_sensitivity
from models.formats.loading import load_model
from models.formats.onnx_graph import layer_nodes
from models.formats.quantization import Ranges
from models.preprocessing import Normalise
from prune import __main__ as prune
from tests.conftest import TINY_TASKS, jpeg_bytes
from tests.edited_json import edit_json
from tests.photos import natural_photo
from tests.tiny_models import SIZE, save_tiny_model
from train import evaluate, predict
from train.evaluation.comparison import Comparison


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def knowing_model(folder: Path, shards: Path, *, outlier: float = 1.0) -> Path:
    """A model whose classifiers were fitted to the photos of `shards`, so that it has accuracy to lose.

    outlier: one channel of the last layer is this much larger and the classifiers undo it: nothing changes in float,
    but all channels share one scale in int8.
    """
    model, meta = load_artifact(save_tiny_model(folder, seed=1))
    (batch,) = eval_batches(ShardImages(load_index(shards)), sizes=[SIZE], num_views=1, batch_size=64, workers=0)
    normalise = Normalise(meta.preprocessing["mean"], meta.preprocessing["std"])
    classifiers: Any = model.heads.classifiers
    with torch.no_grad():
        features = model.forward_features(normalise(batch.image[SIZE][0]))
        known = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        for task, label in batch.label.items():
            rows = label >= 0
            wanted = 6 * torch.nn.functional.one_hot(label[rows], len(TINY_TASKS[task])).float()
            solution = torch.linalg.lstsq(known[rows], wanted, driver="gelsd").solution
            layer = classifiers.get_submodule(f"task_{task}")
            layer.weight.copy_(solution[:-1].T)
            layer.bias.copy_(solution[-1])
        norm = [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
        norm.weight[0] *= outlier
        norm.bias[0] *= outlier
        for task in TINY_TASKS:
            classifiers.get_submodule(f"task_{task}").weight[:, 0] /= outlier
    save_artifact(
        model, folder, tasks=meta.tasks, preprocessing=meta.preprocessing, metrics={}, provenance={}, ema=False
    )
    return folder


def run(*arguments: str | Path | int | float) -> int:
    return export.main([*map(str, arguments), "--workers", "0"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Path:
    return knowing_model(tmp_path_factory.mktemp("models") / "a", tiny_shards / "train")


@pytest.fixture(scope="module")
def exported(model: Path, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "new" / "folder"
    data = ("--data", tiny_shards / "train", "--gate", 0.1)
    assert run("--model", model, "--out", out, "--int8", "--calibrate", tiny_shards / "train", *data) == 0
    return out


def evaluated(path: Path, shards: Path, out: Path) -> dict[str, Any]:
    options = ["--model", str(path), "--data", str(shards), "--json", str(out), "--workers", "0", "--device", "cpu"]
    assert evaluate.main(options) == 0
    return json.loads(out.read_text())


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_graph_is_checked_its_outputs_are_the_tasks_and_any_batch_size_fits(exported: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        onnx.checker.check_model(onnx.load(exported / name), full_check=True)
        assert {entry.domain for entry in onnx.load(exported / name).opset_import} == {""}
        graph = session(exported / name)
        assert [output.name for output in graph.get_outputs()] == list(TINY_TASKS)
        images = np.random.default_rng(0).normal(size=(5, 3, SIZE, SIZE)).astype(np.float32)
        together = graph.run(None, {"image": images})
        for number in range(5):
            alone = graph.run(None, {"image": images[number : number + 1]})
            for one, all_of_them in zip(alone, together, strict=True):
                np.testing.assert_allclose(one[0], all_of_them[number], atol=1e-4)


def test_the_metadata_says_what_goes_in_and_what_comes_out(exported: Path) -> None:
    for name, precision in (("model.onnx", "fp32"), ("model.int8.onnx", "int8")):
        written = session(exported / name).get_modelmeta().custom_metadata_map
        assert json.loads(written["tasks"]) == {task: list(classes) for task, classes in TINY_TASKS.items()}
        assert json.loads(written["mean"]) == [0.5, 0.4, 0.3]
        assert json.loads(written["std"]) == [0.2, 0.25, 0.3]
        assert json.loads(written["image_size"]) == SIZE
        assert json.loads(written["precision"]) == precision


def test_no_file_tells_where_it_was_made(exported: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        content = (exported / name).read_bytes()
        assert str(Path(__file__).parents[3]).encode() not in content
        assert b"site-packages" not in content


def test_norms_are_folded_weights_are_signed_per_channel_and_activations_unsigned(exported: Path) -> None:
    whole = onnx.load(exported / "model.onnx")
    assert "BatchNormalization" not in Counter(node.op_type for node in whole.graph.node)
    small = onnx.load(exported / "model.int8.onnx")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in small.graph.initializer}
    pointwise = "model.backbone.layer1.3.weight"
    weight = next(value for name, value in constants.items() if name.startswith(pointwise) and "quantized" in name)
    assert weight.dtype == np.int8
    assert constants[f"{pointwise}_scale"].shape == (weight.shape[0],)
    zero_points = {constants[node.input[2]].dtype for node in small.graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {np.dtype(np.uint8)}


def test_evaluate_gives_the_same_for_the_folder_and_the_graph(
    model: Path, exported: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    own = evaluated(model, tiny_shards / "val", tmp_path / "own.json")
    graph = evaluated(exported / "model.onnx", tiny_shards / "val", tmp_path / "graph.json")
    assert graph["models"][0]["precision"] == "fp32"
    for task, values in own["tasks"].items():
        assert graph["tasks"][task]["confusion"] == values["confusion"]
        assert graph["tasks"][task]["loss"] == pytest.approx(values["loss"], rel=1e-4)
    small = evaluated(exported / "model.int8.onnx", tiny_shards / "val", tmp_path / "small.json")
    assert small["models"][0]["precision"] == "int8"
    assert small["models"][0]["sha256"] != own["models"][0]["sha256"]
    losses = [result["tasks"]["colour"]["loss"] for result in (own, small)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.3)


@pytest.mark.parametrize(("backbone", "head"), [("food11_student", "multi-fc"), ("mobilenetv2_050", "multi-shared-fc")])
def test_a_pruned_model_exports_as_narrow_as_it_is(backbone: str, head: str, tmp_path: Path) -> None:
    whole = save_tiny_model(tmp_path / "whole", seed=2, backbone=backbone, head=head)
    goal = ["--max-params", "60%", "--multiple", "4", "--floor", "4", "--score", "l2"]
    assert prune.main(["--model", str(whole), "--out", str(tmp_path / "narrow"), *goal]) == 0
    assert run("--model", tmp_path / "narrow", "--out", tmp_path / "out") == 0
    model, _ = load_artifact(tmp_path / "narrow")
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images))
    answers = session(tmp_path / "out" / "model.onnx").run(None, {"image": images})
    for task, logits in zip(TINY_TASKS, answers, strict=True):
        np.testing.assert_allclose(logits, expected[task], rtol=1e-3, atol=1e-3)
    weights = sum(int(np.prod(one.dims)) for one in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer)
    assert weights <= model.num_parameters <= 0.6 * load_artifact(whole)[0].num_parameters


def test_the_report_holds_size_time_and_accuracy_of_each_file(
    model: Path, exported: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    report = json.loads((exported / "export.json").read_text())
    assert report["command"].startswith(f"python -m models.export --model {model} --out {exported} --int8")
    assert list(report["variants"]) == ["torch fp32", "onnx fp32", "onnx int8"]
    for name, variant in report["variants"].items():
        folder = model if name == "torch fp32" else exported
        assert variant["bytes"] == (folder / variant["file"]).stat().st_size
        assert ("predicted_bytes" in variant) == (name == "onnx int8")
        assert 0 <= variant.get("predicted_bytes", variant["bytes"]) - variant["bytes"] < 0.02 * variant["bytes"]
        assert variant["milliseconds"] > 0
        measured = evaluated(
            model if name == "torch fp32" else exported / variant["file"], tiny_shards / "train", tmp_path / "r.json"
        )
        for task, values in measured["tasks"].items():
            assert variant["tasks"][task]["top1"] == values["top1"]
    assert report["variants"]["onnx fp32"]["tasks"]["colour"]["difference"] < 1e-3
    assert report["variants"]["onnx int8"]["tasks"]["colour"]["difference"] > 1e-3
    assert report["variants"]["onnx fp32"]["tasks"]["colour"]["agreement"] == 1
    assert set(report["quantisation"]["mean_top1_by_method"]) == {"minmax", "entropy", "percentile"}
    best = max(report["quantisation"]["mean_top1_by_method"].values())
    assert report["quantisation"]["mean_top1_by_method"][report["quantisation"]["method"]] == best
    assert report["gate"] == {"limit": 0.1, "lost": {}}
    assert report["variants"]["torch fp32"]["mean_top1"] > 0.9, "without accuracy to lose, no gate is tested"


def test_a_broken_scale_misses_the_gate_and_is_named_and_repaired_by_keeping_its_layers_in_float(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = knowing_model(tmp_path / "broken", tiny_shards / "train", outlier=1e5)
    options = ("--model", broken, "--int8", "--calibrate", tiny_shards / "train", "--method", "minmax")
    options += ("--data", tiny_shards / "train", "--gate", 0.05)
    assert run(*options, "--out", tmp_path / "a") == 1
    error = capfd.readouterr().err
    assert "the gate of 5 points of top-1 is missed" in error
    assert "onnx int8, task colour:" in error
    named = error.split("task colour:")[1].split("KL divergence")[1].split("): ")[1].split(" (")[0]
    assert named in ("backbone.layer4.3", "heads.classifiers.task_colour")
    report = json.loads((tmp_path / "a" / "export.json").read_text())
    assert report["gate"]["lost"]["onnx int8"]["colour"] > 0.05
    assert report["variants"]["onnx fp32"]["tasks"]["colour"]["agreement"] == 1
    names = "heads,backbone.layer4.3"
    assert run(*options, "--out", tmp_path / "b", "--keep-float", names) == 0
    assert run(*options, "--out", tmp_path / "c", "--keep-float", 4) == 0
    report = json.loads((tmp_path / "c" / "export.json").read_text())
    assert "backbone.layer4.3" in report["quantisation"]["float_layers"]


def test_the_example_predicts_a_photo_from_a_copied_folder_without_torch(
    model: Path, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "phone"
    shutil.copytree(exported, folder)
    photo = folder / "photo.jpg"
    photo.write_bytes(jpeg_bytes(colour=2, tone=1, seed=7))
    assert predict.main(
        ["--model", str(model), "--data", str(photo), "--out", str(tmp_path / "p.csv"), "--workers", "0",
         "--probabilities"]
    ) == 0  # fmt: skip
    row = dict(zip(*(line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()), strict=True))
    for name in ("model.onnx", "model.int8.onnx"):
        code = (
            "import runpy, sys\n"
            "for name in ('torch', 'onnx', 'cv2', 'models', 'data', 'train'): sys.modules[name] = None\n"
            f"sys.argv = ['predict.py', 'photo.jpg', '--model', '{name}']\n"
            "runpy.run_path('predict.py', run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        for task in TINY_TASKS:
            line = next(line for line in done.stdout.splitlines() if line.startswith(f"  {task}: "))
            first, share = line.split(": ")[1].split(", ")[0].rsplit(" ", 2)[:2]
            assert first == row[task]
            # Photos are resized by other libraries; this one has the network's size already.
            limit = 1.0 if name == "model.onnx" else 15.0
            assert float(share) == pytest.approx(100 * float(row[f"{task}_probability"]), abs=limit)


@pytest.mark.parametrize(
    ("width", "height", "orientation", "kind", "size"),
    [
        (701, 430, 6, "JPEG", 26),  # decoded at an eighth
        (430, 701, 8, "PNG", 40),  # blocks are averaged first
        (333, 501, 3, "JPEG", 40),  # at a quarter
        (349, 463, 5, "JPEG", 80),  # at a half
        (348, 348, 1, "JPEG", 128),  # whole, although three eighths would be enough
        (150, 91, 2, "PNG", 40),
        (90, 151, 7, "WEBP", 61),
        (61, 40, 4, "JPEG", 64),  # enlarged
    ],
)
def test_the_example_sees_the_pixels_that_evaluation_sees(
    tmp_path: Path, width: int, height: int, orientation: int, kind: str, size: int
) -> None:
    photo = tmp_path / "photo"
    write_structured_photo(photo, width, height, orientation=orientation, kind=kind)
    (batch,) = eval_batches(FileImages(tmp_path, ["photo"]), sizes=[size], num_views=1, batch_size=1, workers=0)
    own = runpy.run_path(str(output_folder.EXAMPLE))["load_photo"](str(photo), size)
    difference = np.abs(own.astype(int) - batch.image[size][0, 0].numpy().astype(int))
    assert difference.mean() < 0.3
    assert difference.max() <= 3


def test_a_trained_network_gives_the_example_the_answers_that_it_gives_evaluation(tmp_path: Path) -> None:
    """The hardest there is: a linear network that knows labels by heart which were drawn."""
    size, num_photos, num_classes = 40, 60, 10
    load_photo = runpy.run_path(str(output_folder.EXAMPLE))["load_photo"]
    generator = np.random.default_rng(0)
    shown = []
    for number in range(num_photos):
        height, width = generator.integers(60, 400, 2).tolist()
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        name = f"{number:02d}.jpg"
        natural_photo(number, height, width).save(tmp_path / name, "JPEG", exif=exif, quality=90)
        shown.append(name)
    (batch,) = eval_batches(
        FileImages(tmp_path, shown),
        sizes=[size],
        num_views=1,
        batch_size=num_photos,
        workers=0,
    )
    evaluated = batch.image[size][0].numpy().reshape(num_photos, -1) / 255
    exampled = np.stack([load_photo(str(tmp_path / name), size) for name in shown]).reshape(num_photos, -1) / 255
    labels = generator.integers(0, num_classes, num_photos)
    targets = np.eye(num_classes)[labels] - 1 / num_classes
    kernel = evaluated @ evaluated.T + 0.1 * np.eye(num_photos)
    weights = evaluated.T @ np.linalg.solve(kernel, targets)  # ridge regression
    answers = [(pixels @ weights).argmax(axis=1) for pixels in (evaluated, exampled)]
    assert (answers[0] == labels).all()
    assert (answers[0] == answers[1]).all()


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE), dtype=np.uint16))


def noise(mode: str) -> Image.Image:
    bands = np.random.default_rng(0).integers(0, 256, (len(mode), SIZE, SIZE), dtype=np.uint8)
    return Image.merge(mode, [Image.fromarray(band) for band in bands])


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (sixteen_bits(), {}),
        (noise("RGBA"), {}),
        (noise("LA"), {}),
        (noise("RGB").quantize(8), {"transparency": 3}),
    ],
)
def test_the_example_sees_unusual_pngs_as_evaluation_does(
    tmp_path: Path, made: Image.Image, options: dict[str, int]
) -> None:
    made.save(tmp_path / "photo.png", **options)
    expected = decode_image((tmp_path / "photo.png").read_bytes())
    own = runpy.run_path(str(output_folder.EXAMPLE))["load_photo"](str(tmp_path / "photo.png"), SIZE)
    assert expected.std() > 20
    np.testing.assert_array_equal(own, expected)


def write_structured_photo(path: Path, width: int, height: int, *, orientation: int, kind: str) -> None:
    """Colours that change every few pixels, so that a shift, a turn or another filter is seen."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC).save(path, kind, exif=exif, quality=90)


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_the_example_answers_like_predict_on_a_large_turned_photo(
    model: Path, exported: Path, tmp_path: Path, name: str
) -> None:
    photo = tmp_path / "photo.jpg"
    write_structured_photo(photo, 701, 430, orientation=6, kind="JPEG")
    options = ["--data", str(photo), "--out", str(tmp_path / "p.csv"), "--workers", "0", "--probabilities"]
    assert predict.main(["--model", str(exported / name), *options]) == 0
    row = dict(zip(*(line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()), strict=True))
    command = [sys.executable, "-I", str(exported / "predict.py"), str(photo), "--model", str(exported / name)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    for task, classes in TINY_TASKS.items():
        shares = dict(re.findall(r"(\w+) ([\d.]+) %", said.split(f"  {task}: ")[1].splitlines()[0]))
        assert next(iter(shares)) == row[task]
        for label in classes:
            # Pixels are 0.1 grey levels apart on average, and this model is steep; Pillow's own resizing of the
            # whole photo moves its answers by tens of points.
            assert float(shares[label]) == pytest.approx(100 * float(row[f"{task}={label}"]), abs=5.0)


@pytest.mark.parametrize("newer", ["ir_version", "opset"])
def test_a_runtime_that_is_too_old_for_a_graph_is_told_in_one_line_by_both_readers(
    exported: Path, tmp_path: Path, newer: str
) -> None:
    graph = onnx.load(exported / "model.int8.onnx")
    if newer == "ir_version":
        graph.ir_version = 99
    else:
        graph.opset_import[0].version = 99
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=r"onnxruntime .* cannot load it .*update onnxruntime"):
        load_model(path)
    command = [sys.executable, "-I", str(exported / "predict.py"), "any.jpg", "--model", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {path}: onnxruntime {onnxruntime.__version__} cannot run it (")


def test_the_example_refuses_a_graph_of_another_origin_in_one_line(exported: Path, tmp_path: Path) -> None:
    graph = onnx.load(exported / "model.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "model.onnx")
    command = [sys.executable, "-I", str(exported / "predict.py"), "a.jpg", "--model", str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the model does not say its 'image_size'")
    assert len(done.stderr.splitlines()) == 1


def test_the_example_names_a_file_that_is_no_photo_and_goes_on(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    Image.new("L", (50, 30), 200).save(tmp_path / "grey.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    command = [sys.executable, "-I", str(exported / "predict.py"), "notes.txt", "none.jpg", "huge.png", "grey.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: notes.txt: not a photo",
        "error: none.jpg: No such file or directory",
        "error: huge.png: image of 20000x20000 is larger than the limit of 64,000,000 pixels",
    ]
    assert done.stdout.startswith("grey.png\n  colour: ")


def test_preprocessing_inside_takes_pixels_and_gives_the_same(
    model: Path, exported: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    assert (
        run("--model", model, "--out", tmp_path / "in", "--preprocessing", "inside", "--data", tiny_shards / "val") == 0
    )
    entry = session(tmp_path / "in" / "model.onnx").get_inputs()[0]
    assert (entry.type, entry.shape[1:]) == ("tensor(uint8)", [SIZE, SIZE, 3])
    outside = evaluated(exported / "model.onnx", tiny_shards / "val", tmp_path / "a.json")
    inside = evaluated(tmp_path / "in" / "model.onnx", tiny_shards / "val", tmp_path / "b.json")
    for task, values in outside["tasks"].items():
        assert inside["tasks"][task]["confusion"] == values["confusion"]
        assert inside["tasks"][task]["loss"] == pytest.approx(values["loss"], rel=1e-4)
    photo = tmp_path / "in" / "photo.png"
    photo.write_bytes(jpeg_bytes(colour=1, tone=0, seed=3))
    answers = []
    for folder in (exported, tmp_path / "in"):
        command = [sys.executable, "-I", str(folder / "predict.py"), str(photo)]
        answers.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert answers[0] == answers[1]


def test_storage_alone_writes_the_8_bit_weights_and_no_graph(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "stored"
    assert run("--model", model, "--out", out, "--storage", "uint8", "--data", tiny_shards / "train") == 0
    assert sorted(os.listdir(out)) == ["export.json", "model.json", "model.uint8.safetensors"]
    variants = json.loads((out / "export.json").read_text())["variants"]
    result = evaluated(out / "model.uint8.safetensors", tiny_shards / "train", tmp_path / "r.json")
    assert variants["uint8 storage"]["tasks"]["colour"]["top1"] == result["tasks"]["colour"]["top1"]


def test_8_bit_storage_that_misses_the_gate_names_the_tensors_that_hurt_most(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = knowing_model(tmp_path / "broken", tiny_shards / "train", outlier=1e-5)
    before = (broken / "model.safetensors").read_bytes()
    options = ("--model", broken, "--storage", "uint8", "--data", tiny_shards / "train", "--gate", 0.05)
    assert run(*options, "--out", tmp_path / "out") == 1
    error = capfd.readouterr().err
    assert "uint8 storage, task colour:" in error
    named = error.split("tensors that hurt it most (KL divergence of each alone in 8 bits): ")[1].split(" (")[0]
    assert named == "heads.classifiers.task_colour.weight"
    assert "--keep-float" not in error
    assert (broken / "model.safetensors").read_bytes() == before


def test_tensors_are_as_they_were_after_each_was_tried_in_8_bits(model: Path) -> None:
    network, _ = load_artifact(model)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    photos = [np.random.default_rng(0).normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)]
    sensitivity = measure_storage_sensitivity(network, photos)
    assert set(sensitivity) == {name for name, tensor in before.items() if tensor.ndim > 1}
    assert max(one["colour"] for one in sensitivity.values()) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_layers_that_are_in_float_already_are_not_blamed(model: Path) -> None:
    sensitivity = {"stem": {"age": 0.9}, "head": {"age": 0.2}, "neck": {"age": 0.1}}
    graph, ranges = onnx.ModelProto(), Ranges("minmax", None)
    choice = Int8Choice(graph, graph, ranges, {}, ["stem"], sensitivity)
    network, _ = load_artifact(model)
    worst = worst_parts({"onnx int8": {"age": 0.1}}, int8=choice, model=network, batches=[])
    assert worst == {"onnx int8": {"age": [("head", 0.2), ("neck", 0.1)]}}
    assert "stem" not in gate_message({"onnx int8": {"age": 0.1}}, gate=0.01, worst=worst)


def test_a_program_that_misses_the_gate_says_that_its_layers_cannot_be_named() -> None:
    said = gate_message({"executorch int8": {"age": 0.1}}, gate=0.01, worst={})
    assert "executorch int8, task age: 10.00 points lost" in said
    assert "layers of an ExecuTorch program cannot be told apart" in said
    assert "hurt it most" not in said


def test_another_size_is_exported_and_held_to(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    assert run("--model", model, "--out", out, "--image-size", 32) == 0
    result = evaluated(out / "model.onnx", tiny_shards / "val", tmp_path / "r.json")
    assert result["models"][0]["image_size"] == 32
    options = ["--model", str(out / "model.onnx"), "--data", str(tiny_shards / "val"), "--image-size", "40"]
    assert evaluate.main([*options, "--workers", "0"]) == ExitCode.BAD_CONFIG
    with pytest.raises(ModelError, match="takes 32x32 images, not 40x40"):
        load_model(out / "model.onnx").model(torch.zeros(1, 3, 40, 40))


def test_a_layer_that_does_not_export_is_named(model: Path) -> None:
    from models.formats.onnx_graph import export_graph

    class Determinant(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features + torch.linalg.eigvals(features[:, :4, None] * features[:, None, :4]).real.sum()

    network, meta = load_artifact(model)
    network.heads.add_module("strange", Determinant())
    forward = network.heads.forward
    network.heads.forward = lambda features: forward(network.heads.strange(features))  # type: ignore[method-assign]
    with pytest.raises(
        ModelError, match=r"does not export to ONNX; layers that do not: heads\.strange \(Determinant\)"
    ):
        export_graph(network, meta, image_size=SIZE)


def test_layers_of_the_graph_carry_the_names_of_the_network(model: Path, exported: Path) -> None:
    network, _ = load_artifact(model)
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    expected = {name for name, module in network.named_modules() if isinstance(module, kinds)}
    assert set(layer_nodes(onnx.load(exported / "model.onnx"))) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--int8"], "--int8: needs --calibrate"),
        (["--gate", "0.01"], "--gate: needs --data"),
        (["--keep-float", "3"], "--keep-float: is for --int8, which is not asked for; add --int8 or leave it out"),
        (["--calibrate", "TRAIN"], "--calibrate: is for --int8, which is not asked for"),
        (["--samples", "64"], "--samples: is for --int8, which is not asked for"),
        (["--method", "best"], "--method: is for --int8, which is not asked for"),
        (["--format", "executorch", "--int8", "--calibrate", "TRAIN", "--method", "minmax"], "of the onnx format"),
        (["--format", "executorch", "--int8", "--calibrate", "TRAIN", "--keep-float", "1"], "of the onnx format"),
        (["--int8", "--calibrate", "TRAIN", "--keep-float", "LAYERS"], "would leave none of the LAYERS layers in int8"),
        (["--int8", "--calibrate", "TRAIN", "--keep-float", "backbone,heads"], "would leave none of the LAYERS layers"),
        (
            ["--storage", "uint8", "--preprocessing", "inside"],
            "--preprocessing inside: is for the onnx format; add --f",
        ),
        (["--int8", "--calibrate", "TRAIN", "--keep-float", "stem"], "there is no layer 'stem'; layers are backbone."),
        (["--int8", "--calibrate", "VAL"], "12 photos are too few to calibrate int8; give at least 16"),
        (["--out", "MODEL"], "holds a saved model (model.safetensors); name another folder"),
        (["--out", "OTHER"], "holds a saved model (model.safetensors); name another folder"),
        (["--out", "MODEL/model.json"], "model.json: is a file; name a folder"),
        (["--format", "executorch", "--int8", "--calibrate", "VAL"], "12 photos are too few to calibrate int8"),
        (["--int8", "--calibrate", "UNLABELLED"], "--method best compares methods by accuracy, and none of the photos"),
        (["--format", "executorch", "--preprocessing", "inside"], "--preprocessing inside: is for the onnx format"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(
    model: Path,
    tiny_shards: Path,
    unlabelled: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export_options, "require_executorch", lambda: None)
    places: dict[str, Path | str] = {
        "TRAIN": tiny_shards / "train",
        "VAL": tiny_shards / "val",
        "UNLABELLED": unlabelled,
        "MODEL": model,
    }
    places["MODEL/model.json"] = model / "model.json"
    num_layers = sum(isinstance(one, torch.nn.Conv2d | torch.nn.Linear) for one in load_artifact(model)[0].modules())
    places["LAYERS"], words = str(num_layers), words.replace("LAYERS", str(num_layers))
    places["OTHER"] = save_tiny_model(tmp_path / "other", seed=2)
    code = run("--model", model, "--out", tmp_path / "out", *(places.get(word, word) for word in arguments))
    assert code == (ExitCode.BAD_DATA if "UNLABELLED" in arguments else ExitCode.BAD_CONFIG)
    assert words in capfd.readouterr().err.splitlines()[0]
    load_artifact(model)
    load_artifact(places["OTHER"])


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 20 photos without a label."""
    folder = tmp_path_factory.mktemp("unlabelled")
    with tarfile.open(folder / "000000.tar", "w") as tar:
        for number in range(20):
            image = jpeg_bytes(colour=number % 3, tone=0, seed=number)
            for suffix, content in (("jpg", image), ("json", b"{}")):
                member = tarfile.TarInfo(f"sample{number:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    index_tars([folder / "000000.tar"], tasks=TINY_TASKS, cls_task="class")
    return folder


def test_photos_without_labels_give_no_accuracy_and_calibrate_by_a_named_method(
    model: Path, unlabelled: Path, tmp_path: Path
) -> None:
    options = ("--int8", "--calibrate", unlabelled, "--method", "minmax", "--data", unlabelled)
    assert run("--model", model, "--out", tmp_path / "out", *options) == 0
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [variant["mean_top1"] for variant in report["variants"].values()] == [None, None, None]
    assert report["variants"]["onnx int8"]["tasks"]["colour"]["agreement"] > 0


@pytest.mark.parametrize(
    "refused",
    [
        ("--calibrate", "val"),  # too few photos
        ("--calibrate", "train", "--method", "minmax", "--keep-float", "stem"),  # no such layer, said after model.onnx
    ],
)
def test_a_refused_export_leaves_an_earlier_one_as_it_was(
    exported: Path, tiny_shards: Path, tmp_path: Path, refused: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = save_tiny_model(tmp_path / "other", seed=9)
    options = [tiny_shards / word if word in ("train", "val") else word for word in refused]
    assert run("--model", other, "--out", out, "--int8", *options) == ExitCode.BAD_CONFIG
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_later_export_takes_the_place_of_an_earlier_one_but_leaves_none_of_its_files_beside_it(
    exported: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    other = save_tiny_model(tmp_path / "other", seed=9)
    assert run("--model", other, "--out", out) == ExitCode.BAD_CONFIG
    assert (
        "holds model.int8.onnx of an earlier export, which this one does not write; remove it" in capfd.readouterr().err
    )
    options = ("--int8", "--calibrate", tiny_shards / "train", "--method", "minmax")
    assert run("--model", other, "--out", out, *options) == 0
    names = ["export.json", "model.int8.onnx", "model.json", "model.onnx", "predict.py"]
    assert f"wrote {out}: {', '.join(names)}\n" in capfd.readouterr().out
    assert sorted(os.listdir(out)) == names
    for name in ("model.onnx", "model.int8.onnx"):
        load_model(out / name)  # which refuses one that was not made from the model.json beside it


def test_shards_of_other_tasks_are_refused_before_the_work(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = save_tiny_model(tmp_path / "other", seed=3, tasks={"mood": ("good", "bad")})
    for option in (["--int8", "--calibrate"], ["--data"]):
        code = run("--model", other, "--out", tmp_path / "out", *option, tiny_shards / "train")
        assert code == ExitCode.BAD_DATA
        assert (
            f"{option[-1]} {tiny_shards}/train: its tasks are colour, tone, the model's are mood"
            in capfd.readouterr().err
        )
    assert not (tmp_path / "out").exists()


def test_a_cut_graph_a_foreign_graph_and_a_foreign_model_json_are_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    path = folder / "model.int8.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-500])
    with pytest.raises(ModelError, match=r"model\.int8\.onnx: is not the file that export\.json beside it"):
        load_model(path)
    edit_json(folder / "export.json", files={})  # as earlier versions wrote it
    with pytest.raises(ModelError, match=r"model\.int8\.onnx: onnxruntime .* cannot load it"):
        load_model(path)
    foreign = onnx.load(exported / "model.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    with pytest.raises(ModelError, match=r"foreign\.onnx: its metadata is not that of models\.export"):
        load_model(folder / "foreign.onnx")
    other = save_tiny_model(tmp_path / "other", seed=9)
    shutil.copyfile(other / "model.json", folder / "model.json")
    with pytest.raises(ModelError, match="was made from another model"):
        load_model(folder / "model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_a_graph_with_one_wrong_bit_is_never_measured(name: str, exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    path = folder / name
    loaded = load_model(path)
    assert loaded.model(torch.zeros(1, 3, loaded.image_size, loaded.image_size))
    flip_weight(path)
    command = [sys.executable, "-I", str(folder / "predict.py"), "photo.jpg", "--model", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name}: is not the file that export.json beside it lists" in done.stderr
    with pytest.raises(
        ModelError, match=rf"{re.escape(str(path))}: is not the file that export.json .* export the mod"
    ):
        load_model(path)
    (folder / "export.json").unlink()
    load_model(path)  # which is why: nothing else shows it


def flip_weight(path: Path) -> None:
    """A bit of a number in the file's largest tensor."""
    largest = max(onnx.load(path).graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    content = bytearray(path.read_bytes())
    content[content.index(largest) + len(largest) // 2] ^= 4
    path.write_bytes(content)


def test_a_damaged_export_json_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    path = folder / "export.json"
    path.write_bytes(path.read_bytes().replace(b'"image_size": 40', b'"image_size": 41'))
    with pytest.raises(
        ModelError, match=r"export\.json: cannot be read .* is damaged, or was changed .*; export the mod"
    ):
        load_model(folder / "model.onnx")


def test_only_what_an_export_made_is_replaced_or_swept(
    model: Path, exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"mine")
    assert run("--model", model, "--out", out) == ExitCode.BAD_CONFIG
    assert "holds a model.onnx that no export.json speaks of" in capfd.readouterr().err
    assert (out / "model.onnx").read_bytes() == b"mine"
    shutil.rmtree(out)
    shutil.copytree(exported, out)
    (out / "model.int8.onnx").unlink()
    with (out / "predict.py").open("a") as file:
        file.write("# my own line\n")
    assert run("--model", model, "--out", out) == ExitCode.BAD_CONFIG
    assert "its predict.py was changed since it was exported; move it away" in capfd.readouterr().err
    (out / "predict.py").unlink()
    (out / "model.onnx").write_bytes(b"damaged")
    (out / "notes.txt").write_text("mine")
    for name, inside in ((".export-k3v9_x0a", "model.onnx"), (".export-mynotes1", "notes.txt")):
        (out / name).mkdir()
        (out / name / inside).write_bytes(b"x")
    assert run("--model", model, "--out", out) == 0
    names = [".export-mynotes1", "export.json", "model.json", "model.onnx", "notes.txt", "predict.py"]
    assert sorted(os.listdir(out)) == names
    load_model(out / "model.onnx")


def comparison(top1: float, loss: float) -> Comparison:
    return Comparison({"age": {"top1": top1, "loss": loss, "count": 9}, "none": {"count": 0}}, {}, {}, {})


def test_the_most_accurate_calibration_is_taken_and_the_lowest_loss_among_equals() -> None:
    assert best_method({"a": comparison(0.7, 0.1), "b": comparison(0.8, 0.9), "c": comparison(0.75, 0.1)}) == "b"
    assert best_method({"a": comparison(0.8, 0.5), "b": comparison(0.8, 0.4), "c": comparison(0.8, 0.6)}) == "b"


def test_a_gate_over_a_task_without_labels_is_no_gate(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_model(tmp_path / "a", seed=1, tasks={**TINY_TASKS, "mood": ("good", "bad")})
    options = ("--model", model, "--storage", "uint8", "--data", tiny_shards / "val")
    assert run(*options, "--out", tmp_path / "b", "--gate", 0.9) == ExitCode.BAD_DATA
    assert "is labelled for task 'mood', so nobody knows what it loses" in capfd.readouterr().err
    assert run(*options, "--out", tmp_path / "c") == 0


def test_executorch_is_asked_for_by_name_where_it_is_missing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    assert run("--model", model, "--out", tmp_path / "out", "--format", "executorch") == ExitCode.BAD_CONFIG
    assert "pip install 'executorch>=1.5,<1.6'" in capfd.readouterr().err


def test_executorch_programs_answer_like_the_model(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="executorch is no dependency: pip install 'executorch>=1.5,<1.6'")
    out = tmp_path / "out"
    options = ("--format", "executorch", "--int8", "--calibrate", tiny_shards / "train")
    assert run("--model", model, "--out", out, *options, "--data", tiny_shards / "train", "--gate", 0.1) == 0
    own = evaluated(model, tiny_shards / "val", tmp_path / "own.json")
    program = evaluated(out / "model.pte", tiny_shards / "val", tmp_path / "program.json")
    for task, values in own["tasks"].items():
        assert program["tasks"][task]["confusion"] == values["confusion"]
    assert (
        evaluated(out / "model.int8.pte", tiny_shards / "val", tmp_path / "r.json")["models"][0]["precision"] == "int8"
    )


def test_executorch_programs_keep_to_the_number_of_threads(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="executorch is no dependency: pip install 'executorch>=1.5,<1.6'")
    from executorch.extension.pybindings import portable_lib

    assert run("--model", model, "--out", tmp_path / "out", "--format", "executorch") == 0
    for threads in (2, 1):
        load_model(tmp_path / "out" / "model.pte", threads=threads)
        assert portable_lib._threadpool_get_thread_count() == threads
