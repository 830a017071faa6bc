"""Keeps exporters and quantisers from talking: `with quiet("torch.onnx"): torch.onnx.export(...)`."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Stdout, warnings and what these loggers have to say below an error go nowhere inside; "" is the root logger.

    Their progress, and advice that has been followed, would hide the words that count; errors come as exceptions.
    """
    muted = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in muted]
    for logger in muted:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(muted, levels, strict=True):
            logger.setLevel(level)
