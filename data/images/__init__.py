"""Pixels: decoding, orientation, resizing, augmentation and test-time views."""

# Of an image; larger ones are bad. Checked from the header, before anything is decoded.
MAX_PIXELS = 64_000_000
