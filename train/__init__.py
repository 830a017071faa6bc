"""Training: config, trainer, objective, distributed communication, checkpoints, tracking, evaluation."""
