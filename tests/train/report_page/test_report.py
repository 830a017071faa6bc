"""`python -m train.report`: one page that holds what the folders hold, finished or not, and opens in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image

from data.images.augment import Operations
from data.sealed_json import CHECKSUM
from data.teacher_logits import LogitManifest, write_manifest
from launch.exit_codes import ExitCode
from launch.machine import processor
from models.artifact import load_artifact, load_artifact_meta
from models.export import __main__ as export
from prune import __main__ as prune
from tests.conftest import TINY_TASKS, rank_environment
from tests.edited_json import edit_json, read_json
from tests.small_run import train_small
from train import evaluate, report
from train.report_page.confusion import confusion_figure, mistaken_pairs
from train.report_page.markup import table, tag
from train.report_page.numbers import NOTHING
from train.report_page.page import STYLE
from train.report_page.run_record import read_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="chromium is not installed (apt-get install chromium)"
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


@pytest.fixture(scope="module")
def runs(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two finished runs; the second is named to be escaped."""
    root = tmp_path_factory.mktemp("runs")
    for name, epochs in (("first", 3), ("a<b>&c", 2)):
        outcome = train_small(tiny_shards, root / "made" / str(epochs), f"schedule.epochs={epochs}")
        assert outcome.exit_code == 0, outcome.stderr
        outcome.run.rename(root / name)
    return {"first": root / "first", "odd": root / "a<b>&c"}


@pytest.fixture(scope="module")
def chain(runs: dict[str, Path], tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, its pruned network, the fine-tuning of that in bf16, and the export of this: real ones."""
    root = tmp_path_factory.mktemp("chain")
    goal = ["--max-params", "60%", "--multiple", "4", "--floor", "4", "--score", "l2"]
    assert prune.main(["--model", str(runs["first"] / "best"), "--out", str(root / "narrow"), *goal]) == 0
    artifact = f"model.artifact={root / 'narrow'}"
    outcome = train_small(
        tiny_shards, root / "made", "model.backbone=null", artifact, "schedule.epochs=1", "precision=bf16"
    )
    assert outcome.exit_code == 0, outcome.stderr
    outcome.run.rename(root / "tuned")
    options = ["--int8", "--calibrate", str(tiny_shards / "train"), "--method", "minmax", "--storage", "uint8"]
    options += ["--format", "onnx", "--data", str(tiny_shards / "val"), "--workers", "0"]
    assert export.main(["--model", str(root / "tuned" / "best"), "--out", str(root / "exported"), *options]) == 0
    return [runs["first"], root / "tuned", root / "exported"]


class Page(HTMLParser):
    """What a reader sees: texts, and the elements with their attributes; fails where tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.html = html
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "link", "img", "br"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def evaluated(model: Path, run: Path, out: Path) -> dict[str, Any]:
    val = read_run(run).config["data"]["val"]
    assert evaluate.main(["--model", str(model), "--data", val, "--json", str(out), "--workers", "0"]) == 0
    return json.loads(out.read_text())


def page_of(
    out: Path, *folders: Path, code: ExitCode = ExitCode.DONE, photos: int = 50, options: Sequence[str] = ()
) -> Page:
    arguments = [*map(str, folders), "--out", str(out), "--photos", str(photos), "--workers", "0", *options]
    assert report.main(arguments) == code
    return Page(out.read_text())


def gains(page: Page) -> dict[str, dict[str, str]]:
    """The table of models: name -> heading -> text."""
    shown = re.search(r'id="gains".*?<table[^>]*>(.*?)</table>', page.html)
    assert shown
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", shown[1])]
    headings, *rows = [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in cells]
    return {row[0]: dict(zip(headings, row, strict=True)) for row in rows}


@pytest.fixture(scope="module")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(tmp_path_factory.mktemp("page") / "made" / "page.html", *runs.values())


def test_every_section_is_there_and_every_link_of_the_page_leads_to_one(page: Page) -> None:
    headings = ["What was gained", "What was trained on what", "Curves", "How they answer", "Bad samples"]
    assert [heading for heading in headings if heading not in page.texts] == []
    places = {attributes.get("id") for _, attributes in page.elements}
    links = [str(attributes["href"]) for attributes in page.named("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= places


def test_nothing_is_loaded_and_no_script_runs(page: Page) -> None:
    assert page.named("script") == []
    sources = [
        str(value) for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert [source for source in sources if not source.startswith(("data:", "#"))] == []
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)


def test_names_are_shown_as_they_are_and_never_become_markup(page: Page) -> None:
    assert "a<b>&c" in page.texts
    assert page.named("b>&c") == []


def test_the_numbers_of_the_runs_are_on_the_page(page: Page, runs: dict[str, Path]) -> None:
    for folder in runs.values():
        result = json.loads((folder / "result.json").read_text())["metrics"]
        assert f"{100 * result['mean_top1']:.1f} %" in page.texts
        assert f"{100 * result['colour.top1']:.1f} %" in page.texts
        assert read_run(folder).state == "finished"
    _, meta = load_artifact(runs["first"] / "best")
    assert f"{meta.num_parameters / 1000:.3g}k" in page.text
    assert "3 of 3" in page.texts
    assert "2 of 2" in page.texts
    for words in ("food11_student", "multi-fc", "33", "colour, tone"):
        assert words in page.text


def test_each_curve_ends_where_the_run_ended(page: Page, runs: dict[str, Path]) -> None:
    described = [str(attributes["aria-label"]) for attributes in page.named("svg") if "aria-label" in attributes]
    validation = next(text for text in described if text.startswith("Top-1 of tone, validation"))
    losses = next(text for text in described if text.startswith("first by epoch"))
    last = read_run(runs["first"])
    assert f"first ends at {100 * last.evaluations[-1]['tone.top1']:.0f} %" in validation
    assert "weighted sum" in page.texts
    for term, key in (("sum", "loss"), ("colour", "loss.colour"), ("tone", "loss.tone")):
        assert f"{term} ends at {last.trained[-1][key]:.3g}" in losses


def test_mistakes_have_thumbnails_and_the_confusion_adds_up(page: Page) -> None:
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.named("img"))
    wrong = re.findall(r"(\d+) wrong\.", page.text)
    assert len(wrong) == 4  # two tasks of two runs
    assert len(page.named("img")) == sum(min(8, int(number)) for number in wrong)
    captions = re.findall(r'alt="a photo of (\w+), taken for (\w+) by [^"]+".*?<br/>sample(\d+)</div>', page.html)
    assert len(captions) == len(page.named("img"))
    for true, answer, number in captions:  # the photos' labels follow from their numbers
        truth = {TINY_TASKS["colour"][int(number) % 3], TINY_TASKS["tone"][int(number) // 3 % 2]}
        assert true in truth
        assert answer not in truth
    cells = [attributes for name, attributes in page.elements if name == "td" and attributes.get("class") == "cell"]
    assert len(cells) == 2 * (3 * 3 + 2 * 2)
    assert "expected calibration error" in page.text
    for name in ("first", "a<b>&c"):
        assert sum(str(image["alt"]).endswith(f" by {name}") for image in page.named("img")) > 0
        assert f"{name}, colour: " in page.text
    assert "All were asked in fp32." in page.texts


def test_a_page_to_pass_on_names_the_photos_and_holds_none(page: Page, runs: dict[str, Path], tmp_path: Path) -> None:
    bare = page_of(tmp_path / "page.html", *runs.values(), options=["--no-thumbnails"])
    assert "data:image" not in bare.html
    assert bare.named("img") == []
    mistakes = re.compile(r"is <b>\w+</b><br/>sample\d+</div>")
    assert mistakes.findall(bare.html) == mistakes.findall(page.html) != []


def test_the_command_and_the_config_that_made_a_run_are_there(page: Page, runs: dict[str, Path]) -> None:
    assert f"python train/main.py --config {runs['first']}/config.yaml" in page.text
    assert "python -m train.report" in page.text
    assert "backbone: food11_student" in page.text
    assert f"torch {torch.__version__.split('+')[0]}" in page.text


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({"model": "t", "cache": "c", "views": 4}, "--views 4"),
        ({"model": "t", "cache": "c"}, "--views 8"),  # all that the cache has
        ({"model": "t", "cache": "s3://c"}, "--views K"),
        ({"cache": "gone"}, "--views K teacher.model=MODEL"),
        ({"model": "t"}, None),
    ],
)
def test_a_run_that_learned_from_a_cache_says_how_that_was_written(
    runs: dict[str, Path], tmp_path: Path, teacher: dict[str, Any], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = LogitManifest({}, {}, "fp32", 24, Operations(), 0, 1, (), views=8)
    (tmp_path / "c").mkdir()
    write_manifest(tmp_path / "c", manifest)
    monkeypatch.chdir(tmp_path)
    run = changed(runs["first"], tmp_path / "run", teacher=teacher)
    text = page_of(tmp_path / "page.html", run, photos=0).text
    training = f"python train/main.py --config {run}/config.yaml"
    cached = f"python -m train.cache_teacher --config {run}/config.yaml {said}\n{training}"
    assert training in text
    assert (cached in text) is (said is not None)
    assert ("cache_teacher" in text) is (said is not None)


def test_an_accuracy_on_photos_that_no_config_names_is_not_called_unmeasured(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(runs["first"], tmp_path / "run")
    (folder / "config.yaml").unlink()
    page = page_of(tmp_path / "page.html", folder)
    assert re.fullmatch(r"[\d.]+ %", gains(page)["run"]["mean top-1"])
    assert "Accuracy was measured, but no config says on which photos" in page.text
    assert "Accuracy was not measured." not in page.text


def test_a_network_pruned_from_any_model_of_a_run_is_asked_about_its_photos(
    runs: dict[str, Path], chain: list[Path], tmp_path: Path
) -> None:
    narrow = shutil.copytree(chain[1].parent / "narrow", tmp_path / "narrow")
    source = {"model": str(runs["odd"] / "last"), "sha256": "0"}  # other weights than those of best/
    edit_json(narrow / "prune.json", source=source)
    shown = gains(page_of(tmp_path / "page.html", runs["odd"], narrow))
    assert re.fullmatch(r"[\d.]+ %", shown["narrow"]["mean top-1"])


def test_bad_samples_are_named(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["first"], folder)
    lines = [{"step": 0, "shard": "s.tar", "key": f"photo{at}", "reason": "is cut"} for at in range(25)]
    (folder / "bad_samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = page_of(tmp_path / "page.html", folder).text
    assert "25 samples could not be used." in text
    assert "5 more are in the runs' bad_samples.jsonl" in text
    assert "photo19" in text
    assert "photo20" not in text


@pytest.mark.parametrize("damage", ["no result", "cut metrics", "no model", "cut model.json", "no config", "empty"])
def test_a_run_that_was_cut_off_is_shown_as_far_as_it_came(
    runs: dict[str, Path], tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(runs["first"], folder)
    (folder / "result.json").unlink()
    metrics = folder / "metrics.jsonl"
    if damage == "cut metrics":
        metrics.write_bytes(metrics.read_bytes()[: metrics.stat().st_size // 2])
    if damage == "no model":
        shutil.rmtree(folder / "best")
        shutil.rmtree(folder / "last")
    if damage == "cut model.json":
        for place in ("best", "last"):
            (folder / place / "model.json").write_text('{"format"')
    if damage == "no config":
        (folder / "config.yaml").write_text("")
    if damage == "empty":
        for place in list(folder.iterdir()):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        metrics.touch()
    page = page_of(tmp_path / "page.html", folder, runs["odd"])
    assert "broken is cut off" in capfd.readouterr().out
    assert "cut off" in page.texts
    assert "broken was cut off after" in page.text
    said = {
        "no model": "no model was saved yet",
        "cut model.json": "not JSON, or cut",
        "no config": "config.yaml is empty",
        "empty": "metrics.jsonl has no line yet",
    }
    assert said.get(damage, "") in page.text
    assert "a<b>&c" in page.texts


def test_a_run_that_is_going_on_is_told_from_one_that_was_cut_off(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "live"
    shutil.copytree(runs["first"], folder)
    (folder / "result.json").unlink()
    code = textwrap.dedent("""
        import sys
        from train.checkpoint.run_folder import RunFolder
        RunFolder(sys.argv[1]).lock()
        print("locked", flush=True)
        sys.stdin.read()
    """)
    command = [sys.executable, "-c", code, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=rank_environment(), text=True, **pipes) as owner:  # type: ignore[call-overload]
        assert owner.stdout.readline() == "locked\n"
        assert read_run(folder).state == "running"
        assert (
            "live is still being trained, after 3 of 3 epochs" in page_of(tmp_path / "page.html", folder, photos=0).text
        )
        owner.stdin.close()
    assert read_run(folder).state == "cut off"


def test_photos_that_are_gone_leave_a_note_and_the_rest(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["first"], folder)
    config = folder / "config.yaml"
    config.write_text(re.sub(r"val: .*", "val: /nowhere/val", config.read_text()))
    page = page_of(tmp_path / "page.html", folder)
    assert "run: confusion, calibration and mistakes are not shown" in page.text
    assert "/nowhere/val" in page.text
    assert page.named("img") == []
    assert "Mean top-1, validation" in page.text


def test_exports_and_prunings_are_entries_with_their_widths(runs: dict[str, Path], tmp_path: Path) -> None:
    exported, pruned = tmp_path / "exported", tmp_path / "pruned"
    exported.mkdir()
    pruned.mkdir()
    shutil.copy(runs["first"] / "best" / "model.json", exported)
    tasks = {"colour": {"top1": 0.75}, "tone": {"top1": 0.5}}
    val = read_run(runs["first"]).config["data"]["val"]
    variants = {
        "torch fp32": {
            "file": "model.safetensors",
            "bytes": 400_000,
            "milliseconds": 2.0,
            "mean_top1": 0.6,
            "tasks": tasks,
        },
        "onnx int8": {
            "file": "model.int8.onnx",
            "bytes": 123_456,
            "milliseconds": 0.25,
            "mean_top1": 0.625,
            "tasks": tasks,
        },
    }
    export = {
        "format": "slimheads-export/1",
        "command": "python -m models.export --model x",
        "model": {"path": "runs/first/best", "sha256": load_artifact_meta(exported).sha256},
        "gate": None,
        "quantisation": {},
        "image_size": 24,
        "data": val,
        "variants": variants,
    }
    (exported / "export.json").write_text(json.dumps(export))
    layers = [{"name": "blocks.0", "before": 64, "after": 24}, {"name": "blocks.1", "before": 32, "after": 32}]
    counts = {"parameters": {"before": 2000, "after": 1000}, "macs": {"before": 4000, "after": 3000, "image_size": 24}}
    plan = {"format": "slimheads-prune/1", "layers": layers, **counts, "source": {"sha256": "0"}}
    (pruned / "prune.json").write_text(json.dumps(plan))
    page = page_of(tmp_path / "page.html", runs["first"], exported, pruned)
    for words in (
        "exported onnx int8",
        "62.5 %",
        "0.12 MB",
        "0.25 ms  by export.json",
        "64 → 24",
        "parameters 2k → 1k",
        "blocks.1",
    ):
        assert words in page.text
    assert f"<h3>pruned</h3><pre>{NOTHING}</pre>" in page.html  # its plan does not say the command
    assert "python -m models.export --model x" in page.texts
    assert "exported torch fp32" not in page.text  # the run itself stands for it
    time = next(str(one["aria-label"]) for one in page.named("svg") if "against time" in str(one.get("aria-label")))
    assert "onnx int8" not in time  # its file is not there to be timed with the others
    assert "first: " in time
    assert "2.00 ms" not in page.text  # what the export has measured of the same network, another day


def test_every_model_of_a_chain_has_its_size_work_and_time_and_its_own_mark(chain: list[Path], tmp_path: Path) -> None:
    page = page_of(tmp_path / "page.html", *chain)
    described = [str(one.get("aria-label")) for one in page.named("svg")]
    names = ["first", "tuned", "narrow", "exported onnx fp32", "exported onnx int8", "exported uint8 storage"]
    for kind in ("size", "work", "time"):
        plot = next(text for text in described if text.startswith(f"Accuracy against {kind}"))
        assert sorted(one.split(": ")[0] for one in plot.split(". ", 1)[1].split("; ")) == sorted(names)
    times = dict(re.findall(r"(\w[\w ]*): ([\d.]+ ms)", plot))
    assert times["tuned"] == times["narrow"] == times["exported uint8 storage"]  # one network
    assert "by export.json" not in page.text
    assert f"all measured in turn on onnxruntime {onnxruntime.__version__}" in page.text
    assert processor() in page.text
    answered = evaluated(chain[1].parent / "narrow", chain[0], tmp_path / "narrow.json")
    assert re.search(rf"narrow: [\d.]+ ms, {100 * answered['mean_top1']:.1f} %", plot)
    assert "narrow was asked about all 12 photos of" in page.text
    assert page.text.count("Asked about all 12 photos") == 2  # the pruned model's mistakes are not shown
    marks = set(re.findall(r'(?:fill|stroke)="var\(--series-(\d)\)"[^>]*/></svg>([^<]+)</span>', page.html))
    assert {name for _, name in marks} >= set(names)
    assert len(marks) == len({name for _, name in marks}), "a model changes its colour from plot to plot"


def test_the_table_says_in_which_precision_and_about_how_many_photos_each_model_was_asked(
    chain: list[Path], page: Page, tmp_path: Path
) -> None:
    some = page_of(tmp_path / "some.html", *chain, photos=5)
    shown = gains(some)
    assert {name: row["precision"] for name, row in shown.items()} == {
        "first": "fp32",
        "tuned": "bf16",
        "narrow": "fp32",
        "exported uint8 storage": "fp32",
        "exported onnx fp32": "fp32",
        "exported onnx int8": "int8",
    }
    assert "Precision is what a model computed in when it was asked" in some.text
    parts = {name for name, row in shown.items() if row["mean top-1"].endswith("%5 of 12 photos")}
    assert parts == {"narrow"}  # the others' results are of their training and their export, on all photos
    unasked = gains(page_of(tmp_path / "none.html", chain[1].parent / "narrow", photos=0))
    assert unasked["narrow"]["precision"] == unasked["narrow"]["mean top-1"] == NOTHING
    assert "Precision is what" not in page.text  # two runs in fp32


def test_times_are_of_one_occasion_and_one_runtime(chain: list[Path], tmp_path: Path) -> None:
    exported = shutil.copytree(chain[-1], tmp_path / "exported")
    variants = read_json(exported / "export.json")["variants"]
    for values in variants.values():
        values["milliseconds"] = 777.0  # a busy day
    edit_json(exported / "export.json", variants=variants)
    assert "777" not in page_of(tmp_path / "all.html", chain[1], exported, photos=0).text
    (exported / "model.int8.onnx").unlink()
    page = page_of(tmp_path / "less.html", chain[1], exported, photos=0)
    assert page.text.count("777.0 ms") == page.text.count("777.0 ms  by export.json") == 1
    plot = next(str(one["aria-label"]) for one in page.named("svg") if "against time" in str(one.get("aria-label")))
    assert "exported onnx fp32" in plot
    assert "onnx int8" not in plot


def test_halves_of_two_prunings_are_not_compared(chain: list[Path], tmp_path: Path) -> None:
    """As a kill between the two files left them; also of an earlier version, whose plans list no hashes."""
    narrow = Path(shutil.copytree(chain[1].parent / "narrow", tmp_path / "narrow"))
    folder = shutil.copytree(narrow, tmp_path / "mixed")
    source = load_artifact_meta(narrow).provenance["pruned"]["source"]["model"]
    assert prune.main(["--model", source, "--out", str(tmp_path / "other"), "--ratio", "0.2"]) == 0
    shutil.copy(tmp_path / "other" / "prune.json", folder)
    for _ in range(2):
        page = page_of(tmp_path / "page.html", narrow, folder, photos=0)
        assert "mixed/prune.json and the model.json beside it are of two prunings; prune again" in page.text
        assert list(gains(page)) == ["narrow"]
        edit_json(folder / "prune.json", files={})
    edit_json(narrow / "prune.json", files={})
    assert list(gains(page_of(tmp_path / "page.html", narrow, photos=0))) == ["narrow"]


def test_a_damaged_bit_of_a_plan_or_of_an_exported_file_is_named(
    runs: dict[str, Path], chain: list[Path], tmp_path: Path
) -> None:
    folders = [
        shutil.copytree(source, tmp_path / name)
        for source, name in ((chain[1].parent / "narrow", "narrow"), (chain[2], "exported"))
    ]
    plan, graph = folders[0] / "prune.json", folders[1] / "model.int8.onnx"
    content = plan.read_text()
    plan.write_text(content.replace('"parameters": {', '"paraneters": {', 1))
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    page = page_of(tmp_path / "page.html", runs["odd"], *folders, photos=0)
    assert f"{plan} cannot be read: prune.json: is damaged, or was changed after it was written" in page.text
    assert f"{graph} is damaged: export.json was written for other bytes" in page.text
    assert "exported onnx int8" not in gains(page)
    assert "exported onnx fp32" in gains(page)


@pytest.mark.parametrize("kind", ["run", "pruned", "exported"])
def test_a_cut_file_is_named_and_never_the_smallest(
    chain: list[Path], runs: dict[str, Path], tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = {"run": chain[1], "pruned": chain[1].parent / "narrow", "exported": chain[2]}[kind]
    folder = shutil.copytree(source, tmp_path / "cut")
    files = {"run": ["best/model.safetensors", "last/model.safetensors"], "pruned": ["model.safetensors"]}
    for file in files.get(kind, ["model.int8.onnx"]):
        (folder / file).write_bytes((folder / file).read_bytes()[:1000])
    page = page_of(tmp_path / "page.html", runs["odd"], folder, photos=0)
    assert f"{file} is cut or changed" in page.text
    assert f"{file} is cut or changed" in capfd.readouterr().out
    assert "1.0 kB" not in page.text
    assert not any(text.startswith("cut") and "onnx int8" in text for text in page.texts if "is cut" not in text)
    assert page.text.count("Accuracy against size") == (2 if kind == "exported" else 0)  # else there is one model


@pytest.mark.parametrize(
    ("gate", "layers", "said"),
    [
        (None, [], ["No gate was set", "No layer of int8 was kept in float."]),
        (
            {"limit": 0.01, "lost": {}},
            ["stem"],
            ["passed", "more than 1 point of", "1 layer of int8 kept in float: stem."],
        ),
        (
            {"limit": 0.005, "lost": {"onnx int8": {"colour": 0.25, "tone": 0.0512}}},
            ["stem", "blocks.1"],
            [
                "missed",
                "no task may lose more than 0.5 points of top-1 against torch fp32.",
                "Over it: onnx int8 loses 25 points of colour; onnx int8 loses 5.12 points of tone.",
                "2 layers of int8 kept in float: stem, blocks.1.",
            ],
        ),
    ],
)
def test_the_gate_of_an_export_and_its_layers_in_float_are_said(
    chain: list[Path], tmp_path: Path, gate: dict[str, Any] | None, layers: list[str], said: list[str]
) -> None:
    folder = shutil.copytree(chain[2], tmp_path / "exported")
    content = read_json(folder / "export.json")
    assert content["gate"] is None
    assert content["quantisation"]["float_layers"] == []
    edit_json(folder / "export.json", gate=gate, quantisation={**content["quantisation"], "float_layers": layers})
    page = page_of(tmp_path / "page.html", folder, photos=0)
    assert "Exports" in page.texts
    assert "int8 was calibrated on 33 photos of" in page.text
    for words in said:
        assert words in page.text


def test_an_export_beside_the_model_of_another_is_not_compared(chain: list[Path], tmp_path: Path) -> None:
    folder = shutil.copytree(chain[2], tmp_path / "mixed")
    shutil.copy(chain[0] / "best" / "model.json", folder)
    page = page_of(tmp_path / "page.html", chain[0], folder, photos=0)
    assert "mixed/model.json is of another model than the export.json beside it" in page.text
    assert "mixed onnx fp32" not in page.text


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("export.json", {"variants": None}, "variants: should be a valid dictionary, not None"),
        ("export.json", {"image_size": "abc"}, "image_size: should be a valid integer, not 'abc'"),
        ("export.json", {"quantisation": {"photos": "33"}}, "quantisation.photos: should be a valid integer, not '33'"),
        ("export.json", {"variants": {"onnx fp32": {"file": "a", "bytes": "12"}}}, "bytes: should be a valid integer"),
        ("export.json", {"variants": {"onnx fp32": {"file": "a", "bytes": 0}}}, "bytes: should be greater than 0"),
        ("export.json", {"format": "other/7"}, "its format is 'other/7', this version reads 'slimheads-export/1'"),
        ("prune.json", {"layers": []}, "layers: List should have at least 1 item"),
        ("prune.json", {"format": None}, "its format is None, this version reads 'slimheads-prune/1'"),
        ("config.yaml", {"model": "mobilenet"}, "config.yaml: model: should be a valid dictionary"),
        ("config.yaml", {"schedule": {"epochs": "many"}}, "config.yaml: schedule.epochs: should be a valid integer"),
        (
            "best/model.json",
            {"metrics": {"mean_top1": "high"}},
            "model.json: metrics.mean_top1: should be a valid number",
        ),
        ("best/model.json", {"widths": {"nowhere": 3}}, "tuned: its model cannot be compared"),
    ],
)
def test_a_file_with_wrong_values_is_named_with_the_reason_and_the_rest_is_shown(
    chain: list[Path],
    runs: dict[str, Path],
    tmp_path: Path,
    file: str,
    change: dict[str, Any],
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = {"export.json": chain[2], "prune.json": chain[1].parent / "narrow"}.get(file, chain[1])
    folder = shutil.copytree(source, tmp_path / "tuned")
    content = yaml.safe_load((folder / file).read_text())
    content.pop(CHECKSUM, None)
    (folder / file).write_text(json.dumps({**content, **change}))  # which is YAML, too
    page = page_of(tmp_path / "page.html", runs["odd"], folder, photos=0)
    assert reason in page.text
    assert "a<b>&c" in page.texts
    assert reason in capfd.readouterr().out


def test_a_lock_that_may_only_be_read_does_not_stop_the_reader(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(runs["first"], tmp_path / "others")
    (folder / "result.json").unlink()
    given = Path.open

    def read_only(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if path.name == ".lock" and mode != "rb":
            raise PermissionError(13, "Permission denied")
        return given(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", read_only)
    assert read_run(folder).state == "cut off"


def changed(run: Path, folder: Path, **sections: dict[str, Any]) -> Path:
    """A copy of a run whose config has other values in these sections."""
    shutil.copytree(run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for section, values in sections.items():
        config[section] = {**(config[section] or {}), **values}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_one_teacher_per_task_makes_a_teacher_of_each(runs: dict[str, Path], tmp_path: Path) -> None:
    models = {"colour": str(runs["first"] / "best"), "tone": str(runs["odd"] / "best")}
    student = changed(runs["first"], tmp_path / "student", teacher={"model": models})
    page = page_of(tmp_path / "page.html", *runs.values(), student, photos=0)
    rows = re.findall(
        r"<tr><td[^>]*>([^<]+)</td><td[^>]*><span[^>]*>finished</span></td><td[^>]*><span[^>]*>(\w+)<", page.html
    )
    assert rows == [("first", "teacher"), ("a&lt;b&gt;&amp;c", "teacher"), ("student", "distilled")]


def test_models_are_compared_however_their_photos_folder_was_spelled(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = Path(read_run(runs["first"]).config["data"]["val"])
    monkeypatch.chdir(val.parent)
    spellings = [str(val), f"{val}/", "./val", f"file://{val}"]
    copies = [changed(runs["first"], tmp_path / f"run{n}", data={"val": one}) for n, one in enumerate(spellings)]
    page = page_of(tmp_path / "page.html", *copies)
    assert page.text.count("Accuracy against size") == 2  # title and description of one plot
    assert "Top-1 on val." in page.texts
    assert page.text.count("Asked about all 12 photos of val.") == 4


def test_a_model_keeps_its_colour_where_others_were_measured_elsewhere(
    runs: dict[str, Path], tiny_shards: Path, tmp_path: Path
) -> None:
    other = changed(runs["first"], tmp_path / "other", data={"val": str(tiny_shards / "train")})
    third = changed(runs["odd"], tmp_path / "third")
    page = page_of(tmp_path / "page.html", runs["first"], other, third, photos=0)
    marks = re.findall(r'(?:fill|stroke)="var\(--series-(\d)\)"[^>]*/></svg>([^<]+)</span>', page.html)
    assert {place for place, name in marks if name == "third"} == {"2"}
    assert {place for place, name in marks if name == "first"} == {"0"}


def test_a_run_without_its_weights_is_shown_but_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "light"
    shutil.copytree(runs["first"], folder)
    (folder / "best" / "model.safetensors").unlink()
    assert f"{folder}/best/model.safetensors is missing" in page_of(tmp_path / "a.html", folder).text
    assert read_run(folder).model_path == folder / "last"
    (folder / "last" / "model.safetensors").unlink()
    page = page_of(tmp_path / "b.html", folder, runs["odd"])
    assert "last/model.safetensors is missing, so this model is not compared" in page.text
    assert "light: confusion, calibration and mistakes are not shown: no model." in page.text
    assert "food11_student, multi-fc" in page.text
    assert "is the best and the smallest model" in page.text


@pytest.mark.parametrize("file", ["export.json", "prune.json"])
def test_saved_folders_of_the_same_name_are_told_apart(chain: list[Path], tmp_path: Path, file: str) -> None:
    source = chain[-1] if file == "export.json" else chain[1].parent / "narrow"
    for place in ("one", "two"):
        shutil.copytree(source, tmp_path / place / "same")
    page = page_of(tmp_path / "page.html", tmp_path / "one" / "same", tmp_path / "two" / "same")
    for place in ("one", "two"):
        assert len([text for text in page.texts if text.startswith(str(tmp_path / place / "same"))]) >= 2
    assert "same" not in page.texts


def test_runs_of_the_same_name_are_told_apart_and_both_are_shown(runs: dict[str, Path], tmp_path: Path) -> None:
    for place, source in (("one", "first"), ("two", "odd")):
        shutil.copytree(runs[source], tmp_path / place / "student")
    page = page_of(tmp_path / "page.html", tmp_path / "one" / "student", tmp_path / "two" / "student")
    for place in ("one", "two"):
        assert page.texts.count(str(tmp_path / place / "student")) >= 4  # in the tables, its answers, its commands


def test_a_folder_that_is_none_of_these_is_refused_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        assert report.main([str(folder), "--out", str(tmp_path / "page.html")]) == ExitCode.BAD_CONFIG
        assert f"error: {folder}: neither a run (config.yaml, metrics.jsonl) nor" in capfd.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.fixture(scope="module")
def html(runs: dict[str, Path], chain: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a chain with the longest role and a deep folder of photos; its pruned network is asked about some of them."""
    folder = tmp_path_factory.mktemp("browser")
    deep = {"train": "/a/rather/deep/folder/of/shards/of/some/project/train"}
    scratch = changed(chain[1], folder / "scratch50-0", data=deep, model={"fresh_weights": True})
    page_of(folder / "page.html", runs["odd"], *chain, scratch, photos=5)
    return (folder / "page.html").read_text()


def browse(folder: Path, html: str, *options: str, name: str = "page.html") -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None, "chromium is missing; .ci/run installs it"
    (folder / name).write_text(html)
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={folder / 'profile'}", *options, (folder / name).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@needs_browser
def test_a_browser_opens_the_page_without_a_word_on_the_console(html: str, tmp_path: Path) -> None:
    loud = browse(tmp_path, html.replace("</body>", "<script>console.error('heard')</script></body>"), "--dump-dom")
    assert "CONSOLE" in loud.stderr, "the browser's console is not heard: this test would see nothing"
    done = browse(tmp_path, html, "--dump-dom")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert done.stdout.count("<figure") == html.count("<figure") > 10


NO_SCRIPT = """<meta http-equiv="Content-Security-Policy" content="script-src 'none'">"""
# A window is never narrower than 500 pixels, a frame may be. It and what runs over its edge are measured from outside.
FRAME = """<!doctype html><style>body{{margin:0}}iframe{{border:0;display:block}}</style>
<iframe src="page.html" width="{width}" height="600"></iframe><pre></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument.documentElement;
  frame.height = page.scrollHeight;
  const holds = (box) => box.closest(".scroll") || box.closest("svg");
  const wide = [...frame.contentDocument.body.querySelectorAll("*")].filter(
    (box) => !holds(box) && box.getBoundingClientRect().right > page.clientWidth + 1);
  const named = wide.map((box) => box.tagName + "." + box.className);
  const cut = [...frame.contentDocument.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth);
  const clipped = [...frame.contentDocument.querySelectorAll("svg text")].filter((text) => {{
    const own = text.getBoundingClientRect(), around = text.closest("svg").getBoundingClientRect();
    return own.width && (own.left < around.left || own.right > around.right || own.top < around.top);
  }});
  document.querySelector("pre").textContent = JSON.stringify([
    page.scrollWidth, page.scrollHeight, named,
    cut.map((box) => box.textContent.slice(0, 40)), clipped.map((text) => text.textContent)]);
}};
</script>"""


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_without_javascript_the_page_is_painted_and_no_wider_than_the_window(
    html: str, tmp_path: Path, width: int
) -> None:
    (tmp_path / "page.html").write_text(html.replace("<head>", f"<head>{NO_SCRIPT}"))
    frame, local = FRAME.format(width=width), ("--allow-file-access-from-files", "--hide-scrollbars")
    measured = browse(tmp_path, frame, *local, "--dump-dom", name="frame.html").stdout
    page_width, page_height, too_wide, cut, clipped = json.loads(re.search(r"<pre>(.*)</pre>", measured)[1])  # type: ignore[index]
    assert too_wide == clipped == cut == []  # no column is off the screen
    assert page_width == width
    picture, window = tmp_path / "page.png", f"--window-size={max(width, 500)},{page_height}"
    browse(tmp_path, frame, *local, window, f"--screenshot={picture}", name="frame.html")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))[:page_height, :width]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200  # text, lines, colours
    assert (pixels[:, -3:] == pixels[0, -1]).all(), "something runs over the right edge"
    for part in np.array_split(pixels, 20):  # to its very end
        assert (part != pixels[0, -1]).any()


@needs_browser
def test_on_a_narrow_phone_no_column_of_a_table_is_off_the_screen(tmp_path: Path) -> None:
    names = [f"a class with a rather long name {number}" for number in range(8)]
    matrix = np.full((8, 8), 1234)
    headings = ["run", *(f"heading {number}" for number in range(11)), "mean top-1"]
    rows = [[f"run {row}", *(f"{1_234_567 * column:,}" for column in range(11)), "97.5 %"] for row in range(3)]
    four = tag("div", confusion_figure(matrix, names, title="item"), mistaken_pairs(matrix, names), class_="four")
    body = tag("body", tag("main", table(headings, rows), four))
    (tmp_path / "page.html").write_text(f"<!doctype html><html><head><style>{STYLE}</style></head>{body}</html>")
    local = ("--allow-file-access-from-files", "--hide-scrollbars")
    measured = browse(tmp_path, FRAME.format(width=360), *local, "--dump-dom", name="frame.html").stdout
    page_width, _, too_wide, cut, _ = json.loads(re.search(r"<pre>(.*)</pre>", measured)[1])  # type: ignore[index]
    assert (page_width, too_wide, cut) == (360, [], [])


@needs_browser
def test_the_page_prints_whole(html: str, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    browse(tmp_path, html, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type ?/Page\b", content)) <= 30
