"""The command `python -m launch.worker`: starts this scheduler task's ranks of a Horovod job, without ssh and MPI.

code = main(["--ranks", "2", "--", "python", "train/main.py", "--config", "run.yaml"])
"""

from launch.worker.job import main

__all__ = ["main"]
