"""Shards of real photos, built by data.build: Grocery where it lies beside the repository, else solar cells as JPEG.

folder = photo_shards(temporary_folder)
"""

import contextlib
import io
import os
from pathlib import Path

from data.build import main as build
from data.index import Index, Shard, load_index, write_index

GROCERY = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "grocery"


def photo_shards(folder: Path, *, samples_per_shard: int = 200) -> Path:
    """The folder of the built training split."""
    source = [f"grocery:{GROCERY}", "--split", "train"]
    if not GROCERY.is_dir():
        source = ["elpv:", "--encode", "jpeg", "--split", "train"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = build(
            ["--source", *source, "--out", str(folder), "--samples-per-shard", str(samples_per_shard), "--workers", "1"]
        )
    if code:
        raise RuntimeError(f"data.build failed with {code}:\n{output.getvalue()}")
    return folder / "train"


def with_copies(source: Index, folder: Path, *, num_shards: int, times: int) -> Path:
    """The first shards of a set as a set of its own, each under `times` names (hard links)."""
    folder.mkdir(parents=True)
    shards = []
    for shard in source.shards[:num_shards]:
        stem = shard.name.removesuffix(".tar")
        for copy in range(times):
            name = f"{stem}-{copy:03d}"
            for suffix in (".tar", ".idx"):
                os.link(Path(source.root) / f"{stem}{suffix}", folder / f"{name}{suffix}")
            shards.append(Shard(f"{name}.tar", shard.count, shard.bytes, shard.sha256, shard.idx_crc32c))
    write_index(folder, tasks=source.tasks, shards=shards)
    load_index(folder)
    return folder
