"""Shards, their index, image decoding and the training loader."""
