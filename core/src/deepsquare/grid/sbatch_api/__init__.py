"""The sbatch API: keeps scripts off the chain, and gives each to the provider that runs its job."""

from deepsquare.grid.sbatch_api.service import SbatchApi

__all__ = ["SbatchApi"]
