"""Where a run's numbers go: JSON lines, the console, Weights & Biases, TensorBoard."""
