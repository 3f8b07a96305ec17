"""The grid logger: keeps the output of jobs for their customers."""

from deepsquare.grid.logger.service import GridLogger

__all__ = ["GridLogger"]
