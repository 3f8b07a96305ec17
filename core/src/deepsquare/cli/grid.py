"""`deepsquare grid`: a grid of your own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepsquare.cli.app import EXIT_NOT_FINISHED, fail, parse_labels
from deepsquare.cli.show import Json, print_json

if TYPE_CHECKING:
    from deepsquare.grid.config import GridConfig, SshConfig

app = typer.Typer(no_args_is_help=True, help="Run a complete grid on this machine: chain, contracts and all services.")

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Where the grid keeps everything. [default: $DEEPSQUARE_STATE; for root /var/lib/deepsquare, else "
        "~/.local/state/deepsquare]",
    ),
]
WhichScheduler = Annotated[
    Literal["slurm", "local"] | None,
    typer.Option(help="What runs the jobs. [default: slurm where a cluster answers, else local]"),
]
Cluster = Annotated[
    Path | None,
    typer.Option(
        help="A folder with `up` and `down` scripts of a private Slurm cluster, such as integration/slurm-cluster (root)."
    ),
]
Images = Annotated[
    Path | None, typer.Option(help="A folder with images (NAME.sif) that this provider hosts for jobs in containers.")
]
Apptainer = Annotated[
    Path | None, typer.Option(help="The program that runs containers. [default: apptainer on the PATH of jobs]")
]
_SSH_ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[^@:\s]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?")
_SERVICES = ("logger", "sbatch-api", "metascheduler", "supervisor")


def state_folder(state: Path | None) -> Path:
    """The state folder that is meant."""
    from deepsquare.grid.local.control import default_state

    return state.absolute() if state is not None else default_state()


def _load(state: Path) -> GridConfig:
    from deepsquare.grid.config import GridConfig

    config = GridConfig.load(state)
    if config is None:
        fail(f"there is no grid in {state}; run `deepsquare grid up` first")
    return config


def say(text: str) -> None:
    """A line of progress, on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


@app.command()
def up(
    state: State = None,
    scheduler: WhichScheduler = None,
    cluster: Cluster = None,
    slurm_conf: Annotated[Path | None, typer.Option(help="The slurm.conf of a running cluster to use instead.")] = None,
    partition: Annotated[str | None, typer.Option(help="The partition for jobs. [default: main]")] = None,
    ssh: Annotated[
        str | None,
        typer.Option(
            metavar="[USER@]HOST[:PORT]", help="Run Slurm's commands there, over SSH; its host key must be known."
        ),
    ] = None,
    ssh_key: Annotated[
        Path | None, typer.Option(help="The private key for --ssh. [default: as ssh has it, agent included]")
    ] = None,
    ssh_known_hosts: Annotated[
        Path | None, typer.Option(help="The file with the host's key for --ssh. [default: ~/.ssh/known_hosts]")
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(help="The Unix account that jobs run as, never root. [default: for root one made for the grid]"),
    ] = None,
    account_command: Annotated[
        str | None,
        typer.Option(
            metavar="PROGRAM",
            help="A program on the cluster that gives each customer an account of its own: it gets the customer's address, "
            "makes the account if need be, and prints its name.",
        ),
    ] = None,
    shared_folder: Annotated[
        Path | None,
        typer.Option(
            help="A folder that all nodes of the cluster see, for scratch and output of jobs. [default: in the state folder]"
        ),
    ] = None,
    poll: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="How often Slurm is asked while there are jobs. [default: 0.5]"),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="A label of the provider, beside those that are detected; may be repeated."
        ),
    ] = None,
    runtime: Annotated[Path | None, typer.Option(help="A Python environment to put first on the PATH of jobs.")] = None,
    images: Images = None,
    apptainer: Apptainer = None,
    enroot: Annotated[
        Path | None,
        typer.Option(
            metavar="PROGRAM", help="Enroot on the nodes, for containers of jobs. [default: enroot, from their PATH]"
        ),
    ] = None,
    s5cmd: Annotated[
        Path | None,
        typer.Option(
            metavar="PROGRAM",
            help="s5cmd on the nodes, for jobs' data in S3. [default: the one of this environment, put into the shared folder]",
        ),
    ] = None,
    bore: Annotated[
        Path | None,
        typer.Option(
            metavar="PROGRAM",
            help="The client of bore servers on the nodes; it gets the server's secret in BORE_SECRET. [default: dpsproxy]",
        ),
    ] = None,
    bind: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A folder of yours that jobs in containers see, too, at the same place, as far as their account may; may be "
            "repeated.",
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="The name of the context to write. [default: local]")] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE", help=f"Leave a service out, to run it by `grid serve`: {', '.join(_SERVICES)}."
        ),
    ] = None,
) -> None:
    """Start a grid and wait until it works; what it was started with is remembered.

    Without Slurm, the local scheduler runs the jobs, on this machine alone. Without root, jobs share your own account.

    Examples:

      deepsquare grid up

      sudo deepsquare grid up --cluster integration/slurm-cluster

      deepsquare grid up --state ~/second --context second --scheduler local

      deepsquare grid up --ssh root@login.example.org --account pipelines --shared-folder /shared/deepsquare --poll 5
    """
    from deepsquare.grid.local.control import Settings
    from deepsquare.grid.local.control import up as start

    unknown = set(without or ()) - set(_SERVICES)
    if unknown:
        fail(f"there is no service {unknown.pop()!r}; there are {', '.join(_SERVICES)}", 2)
    config = start(
        Settings(
            state=state_folder(state),
            scheduler=scheduler,
            context=context,
            cluster=cluster.absolute() if cluster else None,
            slurm_conf=slurm_conf.absolute() if slurm_conf else None,
            partition=partition,
            ssh=_ssh(ssh, ssh_key, ssh_known_hosts),
            account=account,
            account_command=account_command,
            shared_folder=shared_folder.absolute() if shared_folder else None,
            poll_seconds=poll,
            labels=parse_labels(label, "region=ch") if label else None,
            runtime=runtime.absolute() if runtime else None,
            images=images.absolute() if images else None,
            apptainer=apptainer.absolute() if apptainer else None,
            enroot=enroot.absolute() if enroot else None,
            s5cmd=s5cmd.absolute() if s5cmd else None,
            bore=bore.absolute() if bore else None,
            binds=_binds(bind, is_here=ssh is None) if bind else None,
            without=frozenset(without or ()),
        ),
        say,
    )
    print(
        f"grid up: context {config.context}, chain {config.rpc_url}, sbatch API http://{config.sbatch_endpoint}/graphql"
    )
    _tell_current_context(config.context)


def _tell_current_context(own: str) -> None:
    """Say how to choose the grid's context, when commands mean another."""
    from deepsquare import contexts

    current = contexts.current()
    if current != own:
        choose = (
            f"export {contexts.VARIABLE}={own}" if contexts.VARIABLE in os.environ else f"deepsquare context use {own}"
        )
        print(f"the current context is still {current}; choose this one: {choose}")


def _ssh(address: str | None, key: Path | None, known_hosts: Path | None) -> SshConfig | None:
    from deepsquare.grid.config import SshConfig

    if address is None:
        if key is not None or known_hosts is not None:
            fail("--ssh-key and --ssh-known-hosts need --ssh: the machine with Slurm's commands", 2)
        return None
    found = _SSH_ADDRESS.fullmatch(address)
    if found is None:
        fail(f"--ssh {address!r}: [USER@]HOST[:PORT] is meant, such as ops@login.example.org:22", 2)
    for path in (key, known_hosts):
        if path is not None and not path.is_file():
            fail(f"there is no file {path}", 2)
    return SshConfig(
        host=found["host"],
        user=found["user"],
        port=int(found["port"]) if found["port"] else None,
        key=key.absolute() if key else None,
        known_hosts=known_hosts.absolute() if known_hosts else None,
    )


def _binds(folders: list[Path], *, is_here: bool) -> list[Path]:
    for folder in folders:
        if is_here and not folder.is_dir():
            fail(f"there is no folder {folder}", 2)
    return [folder.absolute() for folder in folders]


@app.command()
def down(state: State = None) -> None:
    """Stop the grid, its jobs, its private cluster and its account. The chain's state stays, so that `up` goes on where it was.

    Example: deepsquare grid down
    """
    from deepsquare.grid.local.control import down as stop

    stop(state_folder(state), say)


@app.command()
def status(state: State = None, as_json: Json = False) -> None:
    """Say whether the grid is up, and where its parts are. Exit code 3 when it is down.

    Example: deepsquare grid status --json | jq .up
    """
    from deepsquare.grid.config import GridConfig
    from deepsquare.grid.local.control import running_pid

    folder = state_folder(state)
    config = GridConfig.load(folder)
    pid = running_pid(folder)
    fields = {"state": str(folder), "up": pid is not None, "pid": pid}
    if config is not None:
        fields |= {
            "context": config.context,
            "chain": config.rpc_url,
            "metascheduler": config.metascheduler,
            "sbatch_api": config.sbatch_endpoint,
            "logger": config.logger_endpoint,
            "scheduler": config.scheduler,
        }
        if config.scheduler == "slurm":
            conf = None if config.slurm_conf is None else str(config.slurm_conf)
            fields |= {"slurm_conf": conf, "partition": config.partition}
            if config.ssh is not None:
                fields["ssh"] = config.ssh.host
        if config.account_command is not None:
            fields["account_command"] = config.account_command
        else:
            fields["account"] = config.account
        fields |= {
            "jobs_folder": str(config.jobs_folder),
            "log": str(folder / "log" / "grid.log"),
        }
    if as_json:
        print_json(fields)
    else:
        for key, value in fields.items():
            print(f"{key:14} {'-' if value is None else value}")
    if pid is None:
        raise typer.Exit(EXIT_NOT_FINISHED)


@app.command()
def logs(
    service: Annotated[
        str | None, typer.Argument(help=f"One of chain, {', '.join(_SERVICES)}; all services when left out.")
    ] = None,
    state: State = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
) -> None:
    """Print what the grid's services say about their work. The output of jobs is in `deepsquare job logs`.

    Example: deepsquare grid logs supervisor -f
    """
    from deepsquare.client.text import sanitize
    from deepsquare.grid.local.logs import SOURCES, read

    if service is not None and service not in SOURCES:
        fail(f"there is no service {service!r}; there are {', '.join(SOURCES)}", 2)
    for line in read(state_folder(state), service, lines=lines, follow=follow):
        print(sanitize(line), flush=True)


@app.command()
def approve(
    provider: Annotated[str | None, typer.Argument(help="A provider's address; this grid's own when left out.")] = None,
    state: State = None,
) -> None:
    """Let a provider that has registered take jobs.

    Example: deepsquare grid approve 0xD5738FC200E9814A097F03FE01a91D7265C1e235
    """
    from eth_utils import is_address, to_checksum_address

    from deepsquare.grid.keys import open_key
    from deepsquare.grid.services import approve as approve_provider

    folder = state_folder(state)
    if provider is not None and not is_address(provider):
        fail(f"{provider!r} is not an address: 0x and 40 hex digits", 2)
    address = to_checksum_address(provider) if provider else open_key(folder, "provider").address
    done = asyncio.run(approve_provider(_load(folder), address))
    print(f"{address} {'is approved' if done else 'was approved before'}")


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help=f"One of {', '.join(_SERVICES)}.")],
    state: State = None,
) -> None:
    """Run one service in the foreground, with the settings of a state folder.

    Example: deepsquare grid up --without supervisor, then deepsquare grid serve supervisor
    """
    if service not in _SERVICES:
        fail(f"there is no service {service!r}; there are {', '.join(_SERVICES)}", 2)
    from deepsquare.grid.local.control import NO_FORK_HANDLERS

    # Read when gRPC is imported.
    os.environ.update(NO_FORK_HANDLERS)
    from deepsquare.grid.services import SERVICES, log_to_stderr

    config = _load(state_folder(state))
    log_to_stderr()

    async def run() -> None:
        await SERVICES[service](config, lambda: print(f"{service} is up", flush=True))

    asyncio.run(run())
