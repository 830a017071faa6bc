"""One record of a sidecar: the logits of one view of one sample, little-endian fp16, and the crc32c of those bytes.

owner = Owner(manifest.identity, "000000.tar")
data = pack_block(logits, owner=owner, view=2)                            # one view of a whole shard
row = unpack_record(data[:record_bytes(17)], owner=owner, view=2, sample=0)    # None where the checksum is wrong

The checksum covers whose bytes they are, too: of which cache, shard, view and sample. A sidecar that was copied over
that of another shard is therefore damaged throughout.
"""

from dataclasses import dataclass

import google_crc32c
import numpy as np

CRC_BYTES = 4
LOGIT = np.dtype("<f2")


@dataclass(frozen=True)
class Owner:
    """identity: of the cache (see LogitManifest); empty for one of before there were any, whose checksums cover the
    logits alone. shard: its name."""

    identity: str
    shard: str

    def checksum(self, logits: bytes, *, view: int, sample: int) -> int:
        """crc32c of one record."""
        if not self.identity:
            return int(google_crc32c.value(logits))
        whose = f"{self.identity}/{self.shard}/{view}/{sample}".encode("utf-8", "surrogateescape")
        return int(google_crc32c.extend(google_crc32c.value(whose), logits))


def sidecar_name(shard_name: str) -> str:
    """`000000.tar` -> `000000.logits`."""
    return shard_name.removesuffix(".tar") + ".logits"


def record_bytes(num_classes: int) -> int:
    """Bytes of one sample and view."""
    return LOGIT.itemsize * num_classes + CRC_BYTES


def pack_block(logits: np.ndarray, *, owner: Owner, view: int) -> bytes:
    """float16 [num_samples, num_classes] -> one view of a shard."""
    num_samples, num_classes = logits.shape
    block = np.empty((num_samples, record_bytes(num_classes)), dtype=np.uint8)
    block[:, :-CRC_BYTES] = np.ascontiguousarray(logits, LOGIT).view(np.uint8)
    rows = enumerate(row[:-CRC_BYTES].tobytes() for row in block)
    checksums = np.fromiter((owner.checksum(row, view=view, sample=sample) for sample, row in rows), "<u4", num_samples)
    block[:, -CRC_BYTES:] = checksums[:, None].view(np.uint8)
    return block.tobytes()


def unpack_record(data: bytes, *, owner: Owner, view: int, sample: int) -> np.ndarray | None:
    """float16 [num_classes] of one record; None where the bytes are not the ones that were written for it."""
    logits = data[:-CRC_BYTES]
    if owner.checksum(logits, view=view, sample=sample) != int.from_bytes(data[-CRC_BYTES:], "little"):
        return None
    return np.frombuffer(logits, LOGIT)
