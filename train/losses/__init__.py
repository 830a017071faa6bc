"""Loss terms: labels, a teacher's logits and features, sparsity; and the objective that adds them up."""
