"""One record of a sidecar: the logits of one view of one sample, little-endian fp16, and the crc32c of those bytes.

data = pack_block(logits)                       # one view of a whole shard
row = unpack_record(data[:record_bytes(17)])    # None where the checksum is wrong
"""

import google_crc32c
import numpy as np

CRC_BYTES = 4
LOGIT = np.dtype("<f2")


def sidecar_name(shard_name: str) -> str:
    """`000000.tar` -> `000000.logits`."""
    return shard_name.removesuffix(".tar") + ".logits"


def record_bytes(num_classes: int) -> int:
    """Bytes of one sample and view."""
    return LOGIT.itemsize * num_classes + CRC_BYTES


def pack_block(logits: np.ndarray) -> bytes:
    """float16 [num_samples, num_classes] -> one view of a shard."""
    num_samples, num_classes = logits.shape
    block = np.empty((num_samples, record_bytes(num_classes)), dtype=np.uint8)
    block[:, :-CRC_BYTES] = np.ascontiguousarray(logits, LOGIT).view(np.uint8)
    checksums = np.fromiter((google_crc32c.value(row[:-CRC_BYTES].tobytes()) for row in block), "<u4", num_samples)
    block[:, -CRC_BYTES:] = checksums[:, None].view(np.uint8)
    return block.tobytes()


def unpack_record(data: bytes) -> np.ndarray | None:
    """float16 [num_classes] of one record; None where the bytes are not the ones that were written."""
    logits = data[:-CRC_BYTES]
    if google_crc32c.value(logits) != int.from_bytes(data[-CRC_BYTES:], "little"):
        return None
    return np.frombuffer(logits, LOGIT)
