"""Pixels: decoding, orientation, resizing, augmentation and test-time views."""
