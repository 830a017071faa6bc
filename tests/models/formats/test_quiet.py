"""Exporters do not talk over a command's own words, and what comes after them is heard again."""

import logging
import warnings

import pytest

from models.formats.quiet import quiet


def test_what_is_said_inside_goes_nowhere_and_what_is_said_behind_is_heard(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("exporter")
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.INFO, "exporter"):
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError), quiet("exporter"):  # noqa: PT012, all that an exporter may do
            print("progress")
            warnings.warn("deprecated", stacklevel=1)
            log.warning("advice")
            log.error("loss")
            raise RuntimeError
        assert [record.message for record in caplog.records] == ["loss"]
        assert caught == []
        warnings.warn("of the user", stacklevel=1)
        log.warning("later")
    print("done")
    assert [str(one.message) for one in caught] == ["of the user"]
    assert capsys.readouterr().out == "done\n"
    assert [record.message for record in caplog.records] == ["loss", "later"]
