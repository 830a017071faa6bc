"""Labels are put right without packing the photos again: all rows or none, and nobody else who knows them is misled."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from data import build, index, verify
from data.correct import main
from data.errors import DataError
from data.index import __main__ as index_command
from data.index import load_index
from data.shards.corrections import plan_corrections, read_fixes, write_corrections
from data.shards.shard_reader import ShardReader
from data.teacher_logits.manifest import cached_shards
from launch.exit_codes import ExitCode
from tests.crashes import every_crash
from tests.edited_json import edit_json, read_json
from tests.photos import class_folders, jpeg, write_tar

PHOTOS = ("--samples-per-shard", "5", "--workers", "1")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ (CSV, 3 folders of 4 photos) and out/ with train and val, built from it. Copied by each test."""
    root = tmp_path_factory.mktemp("original")
    photos = class_folders(root / "photos", per_class=4)
    rows = [
        f"{path.relative_to(root)},{path.parent.name},{'' if path.stem == '003' else number % 3 + 1}"
        for number, path in enumerate(sorted(photos.rglob("*.jpg")))
    ]
    (root / "photos.csv").write_text("\n".join(["image,kind,beauty", *rows]) + "\n")
    assert build_again(root) == ExitCode.DONE
    return root


@pytest.fixture
def mine(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "mine"))


def build_again(root: Path, *more: str) -> int:
    source = ("--source", f"manifest:{root / 'photos.csv'}", "--out", str(root / "out"), "--holdout", "0.25")
    return build.main([*source, *PHOTOS, *more])


def correct(folder: Path, text: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """(exit code, everything printed) of `python -m data.correct` with a table of this text."""
    (folder.parent / "fixes.csv").write_text(text, encoding="utf-8")
    capsys.readouterr()
    code = main([str(folder), str(folder.parent / "fixes.csv"), *more])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def labels(*folders: Path) -> dict[str, dict[str, str | None]]:
    """key -> task -> class name, over all splits."""
    found = {}
    for folder in folders:
        split = load_index(folder)
        for number in range(len(split.shards)):
            rows = split.load_shard(number)
            for sample, row in enumerate(rows.labels.tolist()):
                named = zip(split.tasks.items(), row, strict=True)
                found[rows.key(sample)] = {task: names[label] if label >= 0 else None for (task, names), label in named}
    return found


def both(root: Path) -> dict[str, dict[str, str | None]]:
    return labels(root / "out" / "train", root / "out" / "val")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".build" not in path.parts
    }


def verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    code = verify.main([str(folder), "--jobs", "1"])
    output = capsys.readouterr().out
    assert code == ExitCode.DONE, output
    return output


FIXES = """image,task,label
photos/class0/000.jpg,kind,class2
photos/class1/001.jpg,beauty,
photos/class2/003,beauty,2.0
photos/class0/002.jpg,kind,class0
"""


def test_labels_change_and_nothing_else(mine, capsys):
    before, files = both(mine), contents(mine / "out")
    code, output = correct(mine / "out", FIXES, capsys)
    assert code == ExitCode.DONE, output
    assert f"{mine}/out: 3 labels changed, 1 were so already" in output
    assert "kind: 1 labels: class0 -> class2 1" in output
    assert "beauty: 2 labels: " in output
    assert "(missing) -> 2 1" in output
    expected = {key: dict(value) for key, value in before.items()}
    expected["photos/class0/000"]["kind"] = "class2"
    expected["photos/class1/001"]["beauty"] = None
    expected["photos/class2/003"]["beauty"] = "2"
    assert both(mine) == expected
    changed = {name for name, data in contents(mine / "out").items() if data != files.get(name)}
    assert {Path(name).suffix for name in changed} == {".idx", ".json"}
    assert "fixes.csv" not in changed
    told = verified(mine / "out", capsys)
    assert (
        sum(int(line.split(" labels corrected")[0].rpartition(" ")[2]) for line in told.splitlines() if "corr" in line)
        == 3
    )


def test_counts_of_afterwards_are_shown(mine, capsys):
    output = correct(mine / "out", FIXES, capsys)[1]
    kinds = Counter(value["kind"] for value in labels(mine / "out" / "train").values())
    assert all(f"{kind}: {count}" in output for kind, count in kinds.items())


def test_corrected_back_is_as_it_was_to_the_byte(mine, capsys):
    before = contents(mine / "out")
    assert correct(mine / "out", "image,task,label\nphotos/class0/000,kind,class2\n", capsys)[0] == 0
    assert correct(mine / "out", "image,task,label\nphotos/class0/000,kind,class1\n", capsys)[0] == 0
    assert contents(mine / "out") != before
    assert correct(mine / "out", "image,task,label\nphotos/class0/000,kind,class0\n", capsys)[0] == 0
    assert contents(mine / "out") == before


def test_a_dry_run_shows_the_same_and_changes_nothing(mine, capsys):
    before = contents(mine / "out")
    code, dry = correct(mine / "out", FIXES, capsys, "--dry-run")
    assert code == ExitCode.DONE
    assert "3 labels would change, 1 were so already" in dry
    assert contents(mine / "out") == before
    wet = correct(mine / "out", FIXES, capsys)[1]
    assert dry.replace("would change", "changed") == wet


@pytest.mark.parametrize(
    "table",
    [
        "Label;IMAGE; Task\nclass2;photos/class0/000.jpg;kind\n",
        "\ufefftask\tlabel\timage\r\nkind\tclass2\t.\\photos\\class0\\000.JPG\r\n\r\n",
        'image,why,label,task\n"./photos/class0/000.png","a, b",class2,kind\n',
        "image,task,label\nclass0/000.jpg,kind,class2\n",
        "image,task,label\n/data/set/photos/class0/000.jpg,kind,class2\n/data/set/photos/class1/000.jpg,kind,class1\n",
    ],
)
def test_tables_and_names_as_people_write_them(table, mine, capsys):
    code, output = correct(mine / "out", table, capsys)
    assert code == ExitCode.DONE, output
    assert both(mine)["photos/class0/000"]["kind"] == "class2"
    assert "1 labels changed" in output
    if "why" in table:
        assert "the columns why were not read" in output


@pytest.mark.parametrize("missing", ["", "NA", "nan", "NULL"])
def test_words_for_a_missing_label(missing, mine, capsys):
    assert correct(mine / "out", f"image,task,label\nphotos/class0/000,kind,{missing}\n", capsys)[0] == ExitCode.DONE
    assert both(mine)["photos/class0/000"]["kind"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("photos/x.jpg,kind,class0", "is called 'photos/x.jpg'; nothing was changed. Keys are like 'photos/class"),
        (
            "photos/class0/000,kind,Clas1",
            "line 3: 'kind' has no class 'Clas1' (did you mean 'class1'?); its classes are",
        ),
        ("photos/class0/000,kind,class9", "A new class needs a new build"),
        ("photos/class0/000,kinds,class0", "has no task 'kinds'; it has kind, beauty (did you mean 'kind'?)"),
        ("photos/class0/000.jpg,kind,class0", "lines 2 and 3 give 'photos/class0/000.jpg' two labels of 'kind'"),
        ("photos/class0/000.jpg,kind", "line 3 has 2 cells, the header has 3"),
        (",kind,class0", "line 3 names no image"),
        ("photos/class0/000,,class0", "line 3 names no task"),
    ],
)
def test_one_wrong_row_and_nothing_is_changed(rows, message, mine, capsys):
    before = contents(mine / "out")
    code, output = correct(mine / "out", f"image,task,label\nphotos/class0/000,kind,class2\n{rows}\n", capsys)
    assert code == ExitCode.BAD_DATA
    assert message in output
    assert "fixes.csv" in output
    assert contents(mine / "out") == before


def test_wrong_tables_and_folders(mine, capsys):
    code, output = correct(mine / "out", "photo,task,label\na,b,c\n", capsys)
    assert (code, "it lacks 'image' (it has: photo, task, label)" in output) == (ExitCode.BAD_DATA, True)
    code, output = correct(mine / "out", "image,task,label\n", capsys)
    assert (code, "holds no rows" in output) == (ExitCode.BAD_DATA, True)
    (mine / "fixes.csv").write_bytes(b"image,task,label\ncaf\xe9,kind,class0\n")
    assert main([str(mine / "out"), str(mine / "fixes.csv")]) == ExitCode.BAD_DATA
    assert "is not UTF-8 text" in capsys.readouterr().err
    assert main([str(mine / "out"), str(mine / "none.csv")]) == ExitCode.BAD_CONFIG
    assert main([str(mine / "none"), str(mine / "fixes.csv")]) == ExitCode.BAD_CONFIG
    assert main([str(mine), str(mine / "fixes.csv")]) == ExitCode.BAD_DATA


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_set(mine, capsys):
    folder = mine / "out" / "train"
    before = both(mine)
    key = next(iter(labels(folder)))
    (mine / "fixes.csv").write_text(f"image,task,label\n{key},kind,\n")
    seen = set()
    for place in every_crash(lambda: main([str(folder), str(mine / "fixes.csv")])):
        now = labels(folder)[key]
        assert now in (before[key], {**before[key], "kind": None}), place
        seen.add(now["kind"])
    assert len(seen) == 2
    assert both(mine)[key]["kind"] is None
    verified(mine / "out", capsys)


def test_a_build_again_keeps_corrections(mine, capsys):
    correct(mine / "out", FIXES, capsys)
    corrected, files = both(mine), contents(mine / "out")
    assert build_again(mine) == ExitCode.DONE
    assert contents(mine / "out") == files
    for tar in (mine / "out").glob("*/*.tar"):
        tar.write_bytes(b"damaged")
    assert build_again(mine) == ExitCode.DONE
    assert contents(mine / "out") == files
    assert both(mine) == corrected
    correct(mine / "out", "image,task,label\nphotos/class1/000,kind,class2\n", capsys)
    times = {tar: tar.stat().st_mtime_ns for tar in (mine / "out").glob("*/*.tar")}
    assert build_again(mine) == ExitCode.DONE
    assert both(mine)["photos/class1/000"]["kind"] == "class2"
    assert {tar: tar.stat().st_mtime_ns for tar in times} == times, "shards that were finished were written again"


def test_an_index_of_a_built_split_keeps_its_bytes_and_its_corrections(mine, capsys):
    correct(mine / "out", FIXES, capsys)
    before = contents(mine / "out")
    index_tars(mine / "out" / "train", capsys)
    assert contents(mine / "out") == before


def test_a_build_again_says_which_corrections_a_damaged_file_took_with_it(mine, capsys):
    correct(mine / "out" / "train", f"image,task,label\n{next(iter(labels(mine / 'out/train')))},kind,\n", capsys)
    idx = mine / "out" / "train" / "000000.idx"
    rows = index.shard_index_from_bytes(idx.read_bytes(), name="x")
    rows.labels[1] = 0  # beside the correction
    idx.write_bytes(index.shard_index_to_bytes(rows))
    assert build_again(mine) == ExitCode.DONE
    assert "1 corrected labels were lost with files that were damaged; correct them again" in capsys.readouterr().out
    verified(mine / "out", capsys)


def test_another_build_in_its_place_says_what_goes_with_the_old_one(mine, capsys):
    correct(mine / "out", FIXES, capsys)
    assert build_again(mine, "--overwrite", "--seed", "1") == ExitCode.DONE
    lost = [line for line in capsys.readouterr().out.splitlines() if "corrected labels of the build" in line]
    assert sum(int(line.split(" corrected")[0].rpartition(" ")[2]) for line in lost) == 3


def test_a_teacher_cache_stays_valid(mine, capsys):
    """A teacher's answers hang on the photos alone; what a run is resumed with, on the labels too."""
    before = load_index(mine / "out" / "train")
    key = next(iter(labels(mine / "out" / "train")))
    assert correct(mine / "out" / "train", f"image,task,label\n{key},kind,\n", capsys)[0] == ExitCode.DONE
    after = load_index(mine / "out" / "train")
    assert cached_shards(after) == cached_shards(before)
    assert after.fingerprint != before.fingerprint


# -- tars of other tools ---------------------------------------------------------------------------------------------

TARS = {
    "0.tar": [("a.input.jpg", jpeg(1)), ("a.output.cls", b"cat"), ("b.jpg", jpeg(2)), ("b.cls", b"dog")],
    "1.tar": [("c.jpg", jpeg(3)), ("c.cls", b"cat"), ("d/e.jpg", jpeg(4)), ("f.jpg", jpeg(5)), ("f.cls", b"cat")],
}


def index_tars(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert index_command.main([str(folder), "--workers", "1", *more]) == ExitCode.DONE
    return capsys.readouterr().out


@pytest.fixture
def foreign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for name, members in TARS.items():
        write_tar(folder / name, members)
    index_tars(folder, capsys)
    return folder


def test_tars_of_other_tools_are_corrected(foreign, capsys):
    fixes = "image,task,label\na.input.jpg,class,dog\nb.jpg,class,\nd/e.jpg,class,cat\n"
    code, output = correct(foreign, fixes, capsys)
    assert code == ExitCode.DONE, output
    assert {key: value["class"] for key, value in labels(foreign).items()} == {
        "a": "dog",
        "b": None,
        "c": "cat",
        "d/e": "cat",
        "f": "cat",
    }
    assert "5 samples, 3 labels corrected: all good" in verified(foreign, capsys)
    assert "1 other" not in output


def test_verify_still_names_a_label_that_nobody_corrected(foreign, capsys):
    assert correct(foreign, "image,task,label\na,class,dog\n", capsys)[0] == ExitCode.DONE
    tar = foreign / "0.tar"
    tar.write_bytes(tar.read_bytes().replace(b"cat", b"dog"))
    capsys.readouterr()
    assert verify.main([str(foreign), "--jobs", "1"]) == ExitCode.BAD_DATA
    assert "label of 'class' is dog, its index says cat" in capsys.readouterr().out


def test_an_index_anew_carries_corrections_over_and_names_those_given_up(foreign, capsys):
    correct(foreign, "image,task,label\na,class,dog\nb,class,\nc,class,dog\nf,class,dog\n", capsys)
    before = contents(foreign)
    assert "note: 4 corrected labels of the index that was there are kept" in index_tars(foreign, capsys)
    assert contents(foreign) == before
    write_tar(foreign / "2.tar", [*TARS["1.tar"][:1], ("c.cls", b"dog"), *TARS["1.tar"][2:3]])
    (foreign / "1.tar").unlink()
    output = index_tars(foreign, capsys)
    assert "note: 2 corrected labels of the index that was there are kept" in output
    assert (
        "2 corrected labels were given up: 'c' (the tar now says dog, not cat), 'f' (no sample has this key)" in output
    )
    (foreign / "1.idx").unlink()
    (foreign / "index.json").unlink()
    assert "2 corrected labels were given up: the index that held them is not whole" in index_tars(foreign, capsys)


def test_corrections_of_a_damaged_file_are_named(foreign, capsys):
    correct(foreign, "image,task,label\na,class,dog\nc,class,dog\n", capsys)
    (foreign / "1.idx").write_bytes(b"x")
    output = index_tars(foreign, capsys)
    assert "note: 1 corrected labels of the index that was there are kept" in output
    assert "1.idx: has changed since index.json was written" in output
    assert "corrections of 1.tar are given up, if it had any" in output


def test_a_sample_that_cannot_be_used_is_not_mended_by_a_label(foreign, capsys):
    write_tar(foreign / "2.tar", [("x.jpg", b"no photo"), ("x.cls", b"cat")])
    index_tars(foreign, capsys)
    code, output = correct(foreign, "image,task,label\nx.jpg,class,dog\n", capsys)
    assert code == ExitCode.BAD_DATA
    assert "line 2: 'x.jpg' cannot be used (" in output


def test_what_others_write_meanwhile_is_not_undone(foreign, capsys):
    (foreign.parent / "late.csv").write_text("image,task,label\na,class,dog\n")
    fixes, _ = read_fixes(foreign.parent / "late.csv")
    plans, _ = plan_corrections([load_index(foreign)], fixes)
    correct(foreign, "image,task,label\nb,class,cat\n", capsys)
    before = contents(foreign)
    with pytest.raises(DataError, match="was written anew meanwhile; nothing was changed"):
        write_corrections(plans)
    assert contents(foreign) == before


def test_what_else_an_index_holds_stays(foreign, capsys):
    edit_json(foreign / "index.json", more={"x": 1})
    assert correct(foreign, "image,task,label\na,class,dog\n", capsys)[0] == ExitCode.DONE
    assert read_json(foreign / "index.json")["more"] == {"x": 1}


def test_images_are_read_as_before(foreign, capsys):
    correct(foreign, "image,task,label\na,class,dog\n", capsys)
    reader = ShardReader(load_index(foreign))
    assert reader.read(0, 0) == jpeg(1)
    reader.close()


def test_a_label_that_no_correction_can_have_is_refused(foreign, capsys):
    split = load_index(foreign)
    rows = split.load_shard(0)
    rows.corrected[0, 0] = 9
    assert rows.find_error([2], 10**6) == "it tells of a correction of sample 0, task 0, which cannot be"
    again = index.shard_index_from_bytes(index.shard_index_to_bytes(rows), name="x")
    assert again.corrected == {(0, 0): 9}
