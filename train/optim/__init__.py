"""Optimizer, learning-rate schedule, moving average, gradient scaling."""
