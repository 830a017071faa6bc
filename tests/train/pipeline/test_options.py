"""What the pipeline is told: options, keys of the config, and words for what does not fit."""

import pytest

from train.errors import ConfigError
from train.pipeline.__main__ import main, parse_options


def test_photos_options_and_keys_may_stand_in_any_order():
    options = parse_options(["recipe.epochs=3", "--out", "phone", "photos.csv", "--max-bytes", "500K", "seed=4"])
    config = options.config
    assert (config.source, config.out, config.seed) == ("photos.csv", "phone", 4)
    assert (config.recipe.epochs, config.budget.max_bytes) == (3, "500K")


def test_a_file_gives_keys_that_options_replace(tmp_path):
    (tmp_path / "chain.yaml").write_text("source: a.csv\nout: phone\nbudget: {max_macs: 30%}\n")
    config = parse_options(["--config", str(tmp_path / "chain.yaml"), "--max-macs", "20M"]).config
    assert (config.source, config.budget.max_macs) == ("a.csv", "20M")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.csv"], "key 'out' is required"),
        (["--out", "x"], "key 'source' is required"),
        (["a.csv", "--out", "x", "recipe.epoch=3"], "unknown key 'recipe.epoch'; did you mean 'epochs'"),
        (["a.csv", "--out", "x", "--max-bytes", "small"], "must be a number, as 300000, 300K, 1.5M or a share as 30%"),
        (["a.csv", "--out", "x", "--max-macs", "30%", "--max-points-lost", "1"], "say one of the two"),
        (["a.csv", "--out", "x", "--hours", "0"], "greater than 0"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_what_does_not_fit_is_said(words, message):
    with pytest.raises(ConfigError, match=message.replace("%", ".")):
        parse_options(words)


def test_two_sources_are_refused(capsys):
    with pytest.raises(SystemExit):
        parse_options(["a.csv", "b.csv", "--out", "x"])
    assert "b.csv: photos come from one source, a.csv is given already" in capsys.readouterr().err


def test_photos_that_are_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "none.csv"), "--out", str(tmp_path / "out")]) != 0
    assert "none.csv: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
