"""A batch scheduler for one machine without Slurm: the same scripts, CPUs and memory counted, limits honoured.

It exists so that everything can be tried on a laptop. Jobs wait in a queue in SQLite (`queue`); each running job has a runner of
its own (`runner`), a process that goes on when the supervisor dies, as slurmstepd does. `programs` has what scripts call of Slurm.
"""
