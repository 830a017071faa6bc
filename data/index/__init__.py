"""The index of a shard folder: which shards there are, and where each sample's image lies in them.

Use: `index = load_index("shards/train"); shard = index.load_shard(0); shard.offset[7], shard.key(7)`

A folder is one split. `index.json` names the tasks and lists the shards by column; `NAME.idx` beside each `NAME.tar`
is a safetensors file with one row per sample. Training reads image ranges straight from the tars through these rows,
so the members of a sample need not be neighbours.
"""

from data.index.dataset import FORMAT, INDEX_NAME, Index, Shard, find_splits, load_index, write_index
from data.index.label_rule import LabelRule
from data.index.matching import match_classes
from data.index.shard import ShardIndex, idx_name, pack_keys, shard_index_from_bytes, shard_index_to_bytes, unpack_keys

__all__ = [
    "FORMAT",
    "INDEX_NAME",
    "Index",
    "LabelRule",
    "Shard",
    "ShardIndex",
    "find_splits",
    "idx_name",
    "load_index",
    "match_classes",
    "pack_keys",
    "shard_index_from_bytes",
    "shard_index_to_bytes",
    "unpack_keys",
    "write_index",
]
