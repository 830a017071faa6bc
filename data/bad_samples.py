"""`bad_samples.jsonl`: one line per sample that cannot be used, with shard, key and reason.

Use: `write_bad_samples(folder, [("000000.tar", "cats/17", "JPEG does not decode")])`
"""

import json
from collections.abc import Container, Sequence
from pathlib import Path

from data.files import write_atomically

FILE_NAME = "bad_samples.jsonl"
ALWAYS_ALLOWED, ALLOWED_SHARE = 10, 0.001


def most_allowed(num_samples: int, share: float = ALLOWED_SHARE) -> int:
    """Bad samples with which a set of so many can still be trained on."""
    return max(ALWAYS_ALLOWED, int(num_samples * share))


def write_bad_samples(folder: Path, bad: Sequence[tuple[str, str, str]]) -> Path | None:
    """Write (shard, key, reason) lines; with none, an older file goes away and None is returned."""
    path = folder / FILE_NAME
    if not bad:
        path.unlink(missing_ok=True)
        return None
    lines = [json.dumps({"shard": shard, "key": key, "reason": reason}) + "\n" for shard, key, reason in bad]
    write_atomically(path, "".join(lines).encode())
    return path


def find_bad_sample(folder: Path, keys: Container[str]) -> str:
    """Why the first listed sample with one of these keys cannot be used; "" where none is listed."""
    try:
        lines = (folder / FILE_NAME).read_text(encoding="utf-8").splitlines()
        listed = [json.loads(line) for line in lines]
        return next((str(line["reason"]) for line in listed if line["key"] in keys), "")
    except (OSError, ValueError, KeyError, TypeError):  # only a help to whoever reads an error
        return ""
