"""What ranks say to each other: the one seam to Horovod, gradients, checks that all do the same, watchdogs."""
