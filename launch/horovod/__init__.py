"""Whether the installed Horovod fits the torch beside it, and the patches that make it so."""
