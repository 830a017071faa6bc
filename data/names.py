"""Names as text that every file and every screen can take, whatever bytes a file system or a tar holds.

Use: `as_text("caf\\udce9.jpg")` is `caf\\xe9.jpg`, and `on_disk` leads back to the file

One rule everywhere: a byte that is not UTF-8, and a control character (a line break, say), stand as \\xHH; a surrogate
that is no byte at all, which only JSON can hold, as \\uHHHH. All other names stand as they are, so that the rule may be
applied twice. Names of classes are also put in one Unicode form (NFC): two systems may spell one accent in two ways.
"""

import codecs
import io
import re
import sys
import unicodedata
from collections.abc import Sequence

_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_WRITTEN = re.compile(r"\\x([01][0-9a-f]|7f|[89a-f][0-9a-f])")
_HANDLER = "slimheads-names"
# In names that stand on a line each: what a path has that does not simply lead downwards from a folder.
_NOT_DOWNWARDS = ("\\", "//", "/./", "/../", "\n/", "\n./", "\n../", "/\n", "/.\n", "/..\n", "\n.\n", "\n..\n", "\n\n")


def as_text(name: str) -> str:
    """A name as Python reads it from a file system (surrogateescape), as text."""
    return _ODD.sub(lambda odd: _written(ord(odd[0])), name)


def class_name(name: str) -> str:
    """The name of a class or a task, as text in one Unicode form."""
    return unicodedata.normalize("NFC", as_text(name))


def are_plain_paths(names: Sequence[str]) -> bool:
    """Whether all names are text as `as_text` leaves it, and paths that lead down from a folder without detours. Of a
    million names this is known at once, where a look at each takes seconds."""
    together = "\n".join(names)
    lines = f"\n{together}\n"
    return (
        together.count("\n") == len(names) - 1
        and together.replace("\n", "").isprintable()
        and not any(mark in lines for mark in _NOT_DOWNWARDS)
    )


def on_disk(text: str) -> str:
    """The name that `as_text` was made of."""
    return _WRITTEN.sub(lambda byte: _from_byte(int(byte[1], 16)), text)


def print_any_name() -> None:
    """From now on a name that is no text, or that the terminal has no letters for, is printed by the rule above
    instead of ending the command."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _written(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _from_byte(byte: int) -> str:
    return chr(0xDC00 + byte) if byte >= 0x80 else chr(byte)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_written(ord(letter)) for letter in error.object[error.start : error.end]), error.end
