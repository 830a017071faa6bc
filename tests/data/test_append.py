"""A set grows: new photos get shards behind those that are there, and stay with the photos they belong to."""

import csv
import json
from pathlib import Path

import pytest

from data.build import main
from data.index import load_index
from data.verify import main as verify
from launch.exit_codes import ExitCode
from tests.photos import jpeg


def table(root: Path, rows: list[tuple[str, str, str]], name: str = "photos.csv") -> Path:
    """rows: (photo, person, age); photos are drawn by their names, so that equal names at an = are equal pictures."""
    root.mkdir(exist_ok=True)
    with (root / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "person", "age"))
        for photo, person, age in rows:
            writer.writerow((f"{photo}.jpg", person, age))
            if not (root / f"{photo}.jpg").exists():
                (root / f"{photo}.jpg").write_bytes(jpeg(int(photo.partition("=")[2] or photo)))
    return root / name


def build(source: Path, out: Path, *more: object) -> int:
    arguments = ["--source", source, "--out", out, "--samples-per-shard", 5, "--workers", 1, "--group", "person", *more]
    return main([str(argument) for argument in arguments])


def append(source: Path, out: Path, *more: object) -> int:
    arguments = ["--source", source, "--out", out, "--append", "--workers", 1, "--group", "person", *more]
    return main([str(argument) for argument in arguments])


def split_of(out: Path) -> dict[str, str]:
    """key -> split of all samples that training sees."""
    found = {}
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        index = load_index(folder)
        for number in range(len(index.shards)):
            rows = index.load_shard(number)
            for sample in range(len(rows)):
                key = rows.key(sample)
                assert key not in found, f"{key} is there twice"
                found[key] = folder.name
    return found


def bytes_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("0*.tar"))}


# Twenty persons with two photos each.
FIRST = [
    (str(2 * person + shot), f"p{person}", ("old", "young")[person % 2]) for person in range(20) for shot in (0, 1)
]


@pytest.fixture
def grown(tmp_path):
    out = tmp_path / "out"
    assert build(table(tmp_path / "a", FIRST), out, "--holdout", 0.25) == ExitCode.DONE
    return out


def test_what_is_there_stays_and_persons_stay_together(grown, tmp_path, capsys):
    before, shards = split_of(grown), bytes_of(grown)
    more = [(str(100 + person), f"p{person}", "old") for person in range(20)]  # one more photo of each person
    capsys.readouterr()
    assert append(table(tmp_path / "b", more), grown) == ExitCode.DONE
    after = split_of(grown)
    assert {key: after[key] for key in before} == before
    assert {name: data for name, data in bytes_of(grown).items() if name in shards} == shards
    for person in range(20):
        assert after[str(100 + person)] == before[str(2 * person)], person
    assert "20 photos go where photos of their group, or their copies, are" in capsys.readouterr().out
    assert verify([str(grown)]) == ExitCode.DONE


def test_new_persons_are_drawn_as_the_set_was(grown, tmp_path):
    before = split_of(grown)
    more = [(str(100 + 2 * person + shot), f"q{person}", "young") for person in range(20) for shot in (0, 1)]
    assert append(table(tmp_path / "b", more), grown) == ExitCode.DONE
    after = split_of(grown)
    new = {key: split for key, split in after.items() if key not in before}
    assert len(new) == 40
    assert list(new.values()).count("val") == 10
    assert all(new[str(100 + 2 * person)] == new[str(101 + 2 * person)] for person in range(20))


def test_the_same_table_with_more_rows_adds_only_what_is_new(grown, tmp_path, capsys):
    before = split_of(grown)
    capsys.readouterr()
    assert append(table(tmp_path / "a", [*FIRST, ("90", "p0", "old")]), grown) == ExitCode.DONE
    after = split_of(grown)
    assert after == {**before, "90": before["0"]}
    assert "40 of 41 photos are in the set already" in capsys.readouterr().out
    assert append(table(tmp_path / "a", FIRST), grown) == ExitCode.DONE
    assert "nothing is new" in capsys.readouterr().out
    assert split_of(grown) == after


def test_a_changed_label_of_a_known_photo_is_said_and_stays(grown, tmp_path, capsys):
    photo, person, _ = FIRST[0]
    capsys.readouterr()
    assert append(table(tmp_path / "a", [(photo, person, "young"), *FIRST[1:]]), grown) == ExitCode.DONE
    assert "1 of them have other labels there, which stay; data.correct changes labels" in capsys.readouterr().out


def test_another_photo_of_a_known_name_gets_a_name_of_its_own(grown, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.jpg").write_bytes(jpeg(77))
    capsys.readouterr()
    assert append(table(tmp_path / "b", [("0", "new", "old")]), grown) == ExitCode.DONE
    assert split_of(grown)["0_2"] == "train"
    assert "1 photos have names that other photos of the set have" in capsys.readouterr().out


def test_a_copy_of_a_photo_goes_to_its_side(grown, tmp_path):
    held_out = next(key for key, split in split_of(grown).items() if split == "val")
    assert append(table(tmp_path / "b", [(f"copy={held_out}", "", "old")]), grown) == ExitCode.DONE
    assert split_of(grown)[f"copy={held_out}"] == "val"


def test_a_near_duplicate_goes_to_its_side_where_the_set_was_built_so(tmp_path, capsys):
    out = tmp_path / "out"
    assert build(table(tmp_path / "a", FIRST), out, "--holdout", 0.25, "--group", "near-duplicates") == ExitCode.DONE
    held_out = next(key for key, split in split_of(out).items() if split == "val")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "again.jpg").write_bytes(jpeg(int(held_out), progressive=True))
    (tmp_path / "b" / "more.csv").write_text("image,person,age\nagain.jpg,,old\n")
    assert append(tmp_path / "b" / "more.csv", out) == ExitCode.DONE
    assert split_of(out)["again"] == "val"


def test_stopped_anywhere_and_called_again_it_ends_the_same(grown, tmp_path, monkeypatch):
    more = table(tmp_path / "b", [(str(100 + number), f"q{number // 2}", "old") for number in range(40)])
    import data.shards.writer as writer

    real = writer.write_shard
    stops = 0
    for stop_after in range(12):
        written = 0

        def stopping(settings, job, stop_after=stop_after):
            nonlocal written
            if written == stop_after:
                raise KeyboardInterrupt
            written += 1
            return real(settings, job)

        monkeypatch.setattr(writer, "write_shard", stopping)
        before = split_of(grown)  # what training would see at this moment is whole
        try:
            assert append(more, grown) == ExitCode.DONE
            break
        except KeyboardInterrupt:
            stops += 1
            assert before.keys() <= split_of(grown).keys()
    assert stops > 3
    monkeypatch.setattr(writer, "write_shard", real)
    whole = tmp_path / "whole"
    assert build(table(tmp_path / "a", FIRST), whole, "--holdout", 0.25) == ExitCode.DONE
    assert append(more, whole) == ExitCode.DONE
    assert split_of(grown) == split_of(whole)
    assert bytes_of(grown) == bytes_of(whole)


def test_what_another_call_began_and_gave_up_leaves_nothing(grown, tmp_path, monkeypatch):
    import data.shards.writer as writer

    real = writer.write_shard

    def once(settings, job):
        real(settings, job)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_shard", once)
    with pytest.raises(KeyboardInterrupt):
        append(table(tmp_path / "b", [(str(100 + number), "", "old") for number in range(30)]), grown)
    monkeypatch.setattr(writer, "write_shard", real)
    assert (
        append(table(tmp_path / "c", [(str(200 + number), "", "old") for number in range(30)]), grown) == ExitCode.DONE
    )
    assert not [key for key in split_of(grown) if key.startswith("1") and len(key) == 3]
    assert verify([str(grown)]) == ExitCode.DONE, "no stray shards"


def test_a_grown_set_is_not_built_over_by_its_first_command(grown, tmp_path, capsys):
    assert append(table(tmp_path / "b", [("90", "p0", "old")]), grown) == ExitCode.DONE
    after = split_of(grown)
    first = table(tmp_path / "a", FIRST)
    assert build(first, grown, "--holdout", 0.25) == ExitCode.BAD_DATA
    assert "has grown by --append; add to it with --append, or --overwrite it" in capsys.readouterr().err
    assert split_of(grown) == after
    assert build(first, grown, "--holdout", 0.25, "--overwrite") == ExitCode.DONE
    assert "90" not in split_of(grown)


def test_changed_input_points_to_append(grown, tmp_path, capsys):
    assert build(table(tmp_path / "a", [*FIRST, ("90", "p0", "old")]), grown, "--holdout", 0.25) == ExitCode.BAD_DATA
    assert "--append adds what is new" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,person,age,size\n90.jpg,p,old,big\n",
            "the set has no task 'size' (its tasks: age); choose with --tasks",
        ),
        ("image,person\n90.jpg,p\n", "the source has no task 'age', the set has; add the column"),
        (
            "image,person,age\n90.jpg,p,ancient\n",
            "task 'age' of the set has no class 'ancient' (its classes: old, young)",
        ),
    ],
)
def test_other_tasks_and_classes_are_refused(text, message, grown, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "90.jpg").write_bytes(jpeg(90))
    (tmp_path / "b" / "more.csv").write_text(text)
    before = split_of(grown)
    assert append(tmp_path / "b" / "more.csv", grown) == ExitCode.BAD_CONFIG
    assert message in capsys.readouterr().err
    assert split_of(grown) == before


def test_classes_of_the_set_that_the_new_photos_lack_keep_their_numbers(grown, tmp_path):
    assert append(table(tmp_path / "b", [("90", "p1", "young")]), grown) == ExitCode.DONE
    index = load_index(grown / split_of(grown)["90"])
    assert index.tasks == {"age": ("old", "young")}
    rows = index.load_shard(len(index.shards) - 1)
    assert rows.key(0) == "90"
    assert rows.labels[0, 0] == 1


def test_options_of_the_build_are_remembered_and_others_refused(grown, tmp_path, capsys):
    more = table(tmp_path / "b", [(str(100 + number), "", "old") for number in range(12)])
    assert append(more, grown, "--resize", 16) == ExitCode.BAD_CONFIG
    assert "--resize 16: the set in" in capsys.readouterr().err
    assert append(more, grown) == ExitCode.DONE
    assert all(shard.count <= 5 for split in ("train", "val") for shard in load_index(grown / split).shards)


@pytest.mark.parametrize("option", [("--overwrite",), ("--split", "train"), ("--folds", "5")])
def test_options_that_say_otherwise_are_refused(option, grown, tmp_path, capsys):
    with pytest.raises(SystemExit):
        append(table(tmp_path / "b", [("90", "", "old")]), grown, *option)
    assert f"--append with {option[0]}" in capsys.readouterr().err


def test_there_must_be_a_set_that_data_build_wrote(tmp_path, capsys):
    more = table(tmp_path / "b", [("90", "", "old")])
    assert append(more, tmp_path / "none") == ExitCode.BAD_CONFIG
    assert "holds no set yet; leave --append out" in capsys.readouterr().err


def test_corrections_made_before_stay(grown, tmp_path):
    from data.correct import main as correct

    (tmp_path / "fixes.csv").write_text("image,task,label\n0,age,young\n")
    assert correct([str(grown), str(tmp_path / "fixes.csv")]) == ExitCode.DONE
    assert append(table(tmp_path / "b", [("90", "p0", "old")]), grown) == ExitCode.DONE
    index = load_index(grown / split_of(grown)["0"])
    labels = {
        rows.key(sample): int(rows.labels[sample, 0])
        for rows in map(index.load_shard, range(len(index.shards)))
        for sample in range(len(rows))
    }
    assert labels["0"] == 1
    assert json.loads((grown / split_of(grown)["90"] / ".build" / "appended.json").read_text())[-1]["finished"]
