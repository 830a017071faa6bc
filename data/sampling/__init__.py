"""Which samples a step has, and in which view: pure functions of seed, epoch and step."""
