"""Photos of formats that shards do not hold: stored as JPEG or PNG, and told."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.build import main
from data.images import pillow_image
from data.images.decode import decode_image
from data.index import load_index
from data.shards.sample_names import find_samples
from data.shards.shard_reader import ShardReader
from launch.exit_codes import ExitCode
from tests.heif_stand_in import heic, install_stand_in
from tests.photos import jpeg, pixels


def build(photos: Path, out: Path, *more: str) -> int:
    return main(["--source", f"folder:{photos}", "--out", str(out), "--workers", "1", *more])


def stored(out: Path) -> dict[str, bytes]:
    index = load_index(out / "train")
    reader = ShardReader(index)
    return {reader.info(0).key(number): reader.read(0, number) for number in range(int(index.counts[0]))}


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """One class; an upright orientation of 6 in all that can hold it."""
    folder = tmp_path / "photos" / "cat"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, (name, kind) in enumerate(
        [("a.tif", "TIFF"), ("b.TIFF", "TIFF"), ("c.avif", "AVIF"), ("d.bmp", "BMP")]
    ):
        Image.fromarray(pixels(number, 24, 40)).save(folder / name, kind, exif=exif)
    (folder / "e.jfif").write_bytes(jpeg(5))
    return folder.parent


def test_each_format_is_stored_as_what_is_quick_to_read_and_told(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(album, tmp_path / "out") == ExitCode.DONE
    said = capsys.readouterr().out
    assert "note: photos in HEIC or AVIF (1) are stored as JPEG of quality 90 (--quality)" in said
    assert "note: pictures in TIFF, BMP or GIF (3) are stored as PNG (--encode jpeg: as JPEG)" in said
    shards = stored(tmp_path / "out")
    starts = {key: data[:2] for key, data in shards.items()}
    assert starts == {
        "cat/a": b"\x89P",
        "cat/b": b"\x89P",
        "cat/c": b"\xff\xd8",
        "cat/d": b"\x89P",
        "cat/e": b"\xff\xd8",
    }
    assert shards["cat/e"] == jpeg(5)
    upright = np.rot90(pixels(0, 24, 40), -1)
    assert (decode_image(shards["cat/a"]) == upright).all()
    assert decode_image(shards["cat/c"]).shape == (40, 24, 3)
    assert np.abs(decode_image(shards["cat/c"]).astype(int) - np.rot90(pixels(2, 24, 40), -1)).mean() < 6


def test_quality_is_that_of_what_becomes_jpeg(album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(album, tmp_path / "low", "--quality", "20") == ExitCode.DONE
    assert build(album, tmp_path / "high") == ExitCode.DONE
    low, high = stored(tmp_path / "low"), stored(tmp_path / "high")
    assert len(low["cat/c"]) < len(high["cat/c"])
    assert {key: low[key] for key in low if key != "cat/c"} == {key: high[key] for key in high if key != "cat/c"}
    (album / "cat" / "c.avif").unlink()
    assert build(album, tmp_path / "none", "--quality", "20") == ExitCode.BAD_CONFIG
    assert "--quality needs --encode jpeg, --resize or HEIC or AVIF photos" in capsys.readouterr().err


def test_with_encode_everything_is_jpeg(album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(album, tmp_path / "out", "--encode", "jpeg") == ExitCode.DONE
    assert {data[:2] for data in stored(tmp_path / "out").values()} == {b"\xff\xd8"}
    assert "stored as" not in capsys.readouterr().out


def test_a_sample_is_found_by_the_name_of_a_file_that_was_stored_anew(album: Path, tmp_path: Path) -> None:
    (album / "cat" / "a.jpg").write_bytes(jpeg(7))  # the keys are cat/a and cat/a_2
    build(album, tmp_path / "out")
    index = load_index(tmp_path / "out" / "train")
    found = find_samples(["cat/a.tif", "cat/a.jpg", "cat/c.avif"], [index]).places
    keys = {name: index.load_shard(0).key(place.sample) for name, place in found.items()}
    tif, jpg = (stored(tmp_path / "out")[keys[name]][:2] for name in ("cat/a.tif", "cat/a.jpg"))
    assert (tif, jpg, keys["cat/c.avif"]) == (b"\x89P", b"\xff\xd8", "cat/c")


def test_a_heic_is_named_with_what_to_install_and_taken_once_that_is_there(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels(9, 24, 40)).save(file, "PNG")
    (album / "cat" / "f.heic").write_bytes(heic(file.getvalue()))
    monkeypatch.setattr(pillow_image, "_has_heif", lambda: False)
    assert build(album, tmp_path / "out", "--max-bad", "0") == ExitCode.BAD_DATA
    assert "cat/f): HEIC: install pillow-heif (pip install 'slimheads[heif]') or convert it" in capsys.readouterr().err
    assert build(album, tmp_path / "out") == ExitCode.DONE
    bad = (tmp_path / "out" / "train" / "bad_samples.jsonl").read_text()
    assert bad.count("HEIC: install pillow-heif") == 1
    install_stand_in(monkeypatch)
    assert build(album, tmp_path / "out") == ExitCode.DONE
    photo = stored(tmp_path / "out")["cat/f"]
    assert photo.startswith(b"\xff\xd8")
    assert np.abs(decode_image(photo).astype(int) - pixels(9, 24, 40)).mean() < 6
    assert not (tmp_path / "out" / "train" / "bad_samples.jsonl").exists()
