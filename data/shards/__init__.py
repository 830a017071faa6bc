"""Tar shards: written, read (from disk, HTTP or S3), checked and drawn."""
