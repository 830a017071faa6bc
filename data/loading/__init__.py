"""Batches: loader processes that read, decode and augment, for training and for evaluation."""
