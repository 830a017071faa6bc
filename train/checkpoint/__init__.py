"""What a run leaves on disk to go on from: its folder, checkpoints, saved models."""
