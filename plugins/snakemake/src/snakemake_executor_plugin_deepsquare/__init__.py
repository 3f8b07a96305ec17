"""Snakemake executor for the DeepSquare grid: each job is bought on chain and runs at a provider.

Snakemake loads every installed executor plugin at every start, so this package imports nothing heavy.
"""

from snakemake_interface_executor_plugins.settings import CommonSettings

from snakemake_executor_plugin_deepsquare.executor import Executor
from snakemake_executor_plugin_deepsquare.settings import ExecutorSettings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=True,
    job_deploy_sources=True,
    # Values of variables travel as the job's private environment; a command line is visible to others on its node.
    pass_envvar_declarations_to_cmd=False,
    # It would have each job install whatever is newest; the provider's Snakemake brings the storage plugins.
    auto_deploy_default_storage_provider=False,
    pass_group_args=True,
)
