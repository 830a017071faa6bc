"""A teacher for the student: its outputs in the loss, computed in every step or read from a cache."""
