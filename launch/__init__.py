"""Getting ranks to start: the Horovod build and the ways of launching workers."""
