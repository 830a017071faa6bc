"""The teacher cache: fp16 logits of every view of every sample, one sidecar file per shard and a manifest.

Use: `reader = LogitReader("shards/train/teacher", index, num_views=4, cache=None); reader.read(shard, sample, view)`

A sidecar is `[views, samples]` records, each the logits of all tasks behind one another and their crc32c. The manifest
says of which teacher, pixels, augmentation and shards they are; anything else is refused.
"""

from data.teacher_logits.manifest import (
    MANIFEST_NAME,
    CachedShard,
    LogitManifest,
    TeacherSource,
    cached_shards,
    check_manifest,
    load_manifest,
    write_manifest,
)
from data.teacher_logits.reader import LogitReader
from data.teacher_logits.record import sidecar_name
from data.teacher_logits.writer import SidecarWriter

__all__ = [
    "MANIFEST_NAME",
    "CachedShard",
    "LogitManifest",
    "LogitReader",
    "SidecarWriter",
    "TeacherSource",
    "cached_shards",
    "check_manifest",
    "load_manifest",
    "sidecar_name",
    "write_manifest",
]
