"""Data: photos become shards, shards are indexed, and samples come out of them in a promised order.

Commands: build, verify and preview, and `python -m data.index` for tars of other tools. Folders, each of which imports
only from those above it:

    images/          one image: decoding, orientation, resizing, augmentation, as a pure function of bytes and numbers
    index/           which shards there are, where each sample lies in them, and its labels
    sampling/        which samples a step has, and in which view: pure functions of seed, epoch and step
    sources/         importers: folders, tables and known data sets as lists of records
    shards/          writing, reading, checking and showing tars
    teacher_logits/  a teacher's outputs for every sample and view, in a file beside each shard
    loading/         batches for training and evaluation, made by worker processes

The files beside them are for all: errors, names as text, finding files (walk), writing files (files, sealed_json,
bad_samples), reading them from anywhere (storage), and numbers that are random but the same everywhere (randomness).
"""
