"""The training loop and its single update."""
