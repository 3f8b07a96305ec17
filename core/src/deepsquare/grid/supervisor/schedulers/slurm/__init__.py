"""Slurm, driven through its own commands on this host or over SSH."""

from deepsquare.grid.supervisor.schedulers.slurm.scheduler import Slurm

__all__ = ["Slurm"]
