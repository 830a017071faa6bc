"""A teacher's logits, computed once for all students: the folder, its filling and its check."""
