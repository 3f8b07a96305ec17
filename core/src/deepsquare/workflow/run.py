"""The language's commands: `run`, with its container and its networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from deepsquare.workflow.fields import (
    VARIABLE_BYTES,
    AbsolutePath,
    Cidr,
    EnvKey,
    Host,
    HostAndPort,
    Ip,
    Model,
    Natural,
    Port,
    Positive,
    Registry,
    Secret,
    Text,
    WireguardKey,
    WireguardSecret,
)

BORE_PORT = 2200
"""Where a bore server listens that is named without a port."""


class EnvVar(Model):
    """A variable of a step's or of the job's environment."""

    key: EnvKey = Field(description="Its name.")
    value: Text = Field(repr=False, description="Its value, as it is: nothing in it is expanded.")

    @model_validator(mode="after")
    def _fits(self) -> EnvVar:
        if len(f"{self.key}={self.value}\0".encode()) > VARIABLE_BYTES:
            raise PydanticCustomError("size", "is longer than 128 KiB, more than a program can be given; use a file")
        return self


class StepResources(Model):
    """What one step uses of the job's resources; what is left out is 1 task with the job's CPUs and memory, and no GPU."""

    tasks: Positive | None = Field(default=None, description="How many times the command runs, side by side; 1.")
    cpus_per_task: Positive | None = Field(default=None, description="CPUs of each task; the job's.")
    mem_per_cpu: Positive | None = Field(default=None, description="MB of memory a CPU; the job's.")
    gpus_per_task: Natural | None = Field(default=None, description="GPUs of each task; none.")


class Mount(Model):
    """A folder of the host in a container (deprecated by the language)."""

    host_dir: AbsolutePath = Field(description="The folder on the host.")
    container_dir: AbsolutePath = Field(description="Where the container sees it.")
    options: Literal["", "ro", "rw"] = Field(description="ro: it can't be written; rw or empty: it can.")


class Container(Model):
    """The image that a step runs in."""

    image: Text = Field(
        min_length=1, description="NAME:TAG of a registry's image, or the path of an image file below $STORAGE_PATH."
    )
    mounts: tuple[Mount, ...] = Field(
        default=(), strict=False, description="Deprecated: folders of the host. Use $STORAGE_PATH and the caches."
    )
    username: Secret | None = Field(default=None, description="The account at the registry.")
    password: Secret | None = Field(default=None, description="Its password or token.")
    registry: Registry | None = Field(default=None, description="The registry's host; Docker Hub if it is left out.")
    apptainer: bool | None = Field(default=None, description="Run by Apptainer; else by Enroot.")
    deepsquare_hosted: bool | None = Field(
        default=None, description="An image that the provider hosts, run by Apptainer."
    )
    x11: bool | None = Field(default=None, description="Show the host's X11 sockets, /tmp/.X11-unix.")
    mount_home: bool | None = Field(default=None, description="Show the home folder of the host.")
    read_only_root_fs: bool | None = Field(
        default=None, alias="readOnlyRootFS", description="The image can't be written; mounts can."
    )

    @property
    def runtime(self) -> Literal["apptainer", "enroot"]:
        """What runs it."""
        return "apptainer" if self.apptainer or self.deepsquare_hosted else "enroot"


class WireguardPeer(Model):
    """A peer of a WireGuard interface."""

    public_key: WireguardKey = Field(description="The peer's public key.")
    pre_shared_key: WireguardSecret | None = Field(default=None, description="A secret that both know beside the keys.")
    allowed_ips: tuple[Cidr, ...] = Field(
        default=(), alias="allowedIPs", strict=False, description="The addresses that are reached through it."
    )
    endpoint: HostAndPort | None = Field(default=None, description="Where it is reached, HOST:PORT.")
    persistent_keepalive: int | None = Field(
        default=None, ge=0, le=65535, description="Seconds between packets that keep the way open; 25 is usual."
    )


class Wireguard(Model):
    """A WireGuard interface of a step's own network."""

    address: tuple[Cidr, ...] = Field(default=(), strict=False, description="Its addresses, such as 10.0.0.2/24.")
    private_key: WireguardSecret = Field(description="Its private key.")
    peers: tuple[WireguardPeer, ...] = Field(default=(), strict=False, description="Whom it reaches.")


class Bore(Model):
    """A tunnel from a bore server to a port of a step's own network."""

    address: Host | None = Field(default=None, description="Deprecated: the bore server's host. Use boreAddress.")
    bore_address: HostAndPort | None = Field(default=None, description="The bore server, HOST:PORT.")
    port: Port | None = Field(default=None, description="Deprecated: the bore server's port. Use boreAddress.")
    target_port: Port = Field(description="The port of the step that the tunnel leads to.")
    secret: Secret | None = Field(default=None, description="What the bore server asks for.")

    @model_validator(mode="after")
    def _one_server(self) -> Bore:
        if (self.address is None) == (self.bore_address is None):
            raise PydanticCustomError(
                "kind", "needs boreAddress, the bore server as HOST:PORT, and no address beside it"
            )
        if self.bore_address is not None and self.port is not None:
            raise PydanticCustomError("kind", "has the server's port twice: leave out port")
        return self

    @property
    def server(self) -> str:
        """HOST:PORT of the bore server."""
        return self.bore_address or f"{self.address}:{self.port or BORE_PORT}"


class VNet(Model):
    """An interface of a step's own network in one of the job's virtual networks."""

    name: Text = Field(description="The name of one of the job's virtualNetworks.")
    address: Cidr = Field(description="Its address there, such as 10.0.0.2/24.")


class NetworkInterface(Model):
    """A network interface of a step's own network; one of its kinds."""

    wireguard: Wireguard | None = Field(default=None, description="A WireGuard tunnel, as wg0, wg1, ...")
    bore: Bore | None = Field(default=None, description="A port shown to the world by a bore server.")
    vnet: VNet | None = Field(default=None, description="One of the job's virtual networks, as vnet0, vnet1, ...")

    @model_validator(mode="after")
    def _one_kind(self) -> NetworkInterface:
        if [self.wireguard, self.bore, self.vnet].count(None) != 2:
            raise PydanticCustomError("kind", "needs one of wireguard, bore and vnet")
        return self


class Run(Model):
    """A command, as one `srun` step."""

    command: Text = Field(repr=False, description="A script for the shell, or the arguments of an image's entry point.")
    shell: Literal["/bin/bash", "/bin/ash", "/bin/sh", "ENTRYPOINT"] | None = Field(
        default=None,
        description="What runs it: left out, /bin/bash, or /bin/sh in a container; ENTRYPOINT: the image's program.",
    )
    work_dir: AbsolutePath | None = Field(default=None, description="Where it begins; $STORAGE_PATH.")
    env: tuple[EnvVar, ...] = Field(default=(), strict=False, description="Variables of this step alone.")
    resources: StepResources = Field(default_factory=StepResources, description="What it uses of the job's resources.")
    disable_cpu_binding: bool | None = Field(default=None, description="Tasks may run on all CPUs of the job.")
    mpi: Literal["none", "pmix_v4", "pmi2"] | None = Field(
        default=None, description="How MPI programs find each other; what the provider chose, if it is left out."
    )
    container: Container | None = Field(default=None, description="The image it runs in; left out, the host.")
    network: Literal["host", "slirp4netns", "pasta"] | None = Field(
        default=None, description="host: the node's network. slirp4netns, pasta: one of its own, with a way out."
    )
    dns: tuple[Ip, ...] = Field(default=(), strict=False, description="Name servers of its own network.")
    custom_network_interfaces: tuple[NetworkInterface, ...] = Field(
        default=(), strict=False, description="More interfaces of its own network."
    )
    map_uid: Natural | None = Field(default=None, description="The user's number that it sees as its own.")
    map_gid: Natural | None = Field(default=None, description="The group's number that it sees as its own.")

    @property
    def own_network(self) -> Literal["slirp4netns", "pasta"] | None:
        """What gives it a network of its own; None on the host's."""
        return None if self.network == "host" else self.network
