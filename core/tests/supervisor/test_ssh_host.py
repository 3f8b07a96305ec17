"""A host over SSH, against the real sshd of a cluster; what is the same on this machine is tested on both."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

import psutil
import pytest
from deepsquare.errors import ConfigError, ConnectionFailedError
from deepsquare.grid.supervisor.hosts.base import EXIT_NOT_FOUND, Host, NotSentError
from deepsquare.grid.supervisor.hosts.local import LocalHost
from deepsquare.grid.supervisor.hosts.ssh import SshAddress, SshHost
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cluster import SlurmCluster

pytestmark = pytest.mark.slurm

# Arguments and standard input of commands: any text, but the NUL that no program can be given.
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def address(cluster: SlurmCluster, **changes: object) -> SshAddress:
    ssh = cluster.status()["ssh"]
    found = {
        "host": ssh["host"],
        "user": ssh["user"],
        "port": ssh["port"],
        "key": Path(ssh["key"]),
        "known_hosts": Path(ssh["known_hosts"]),
    }
    return SshAddress(**(found | changes))


@pytest.fixture
async def remote(slurm_cluster: SlurmCluster) -> AsyncIterator[SshHost]:
    host = SshHost(address(slurm_cluster))
    yield host
    await host.close()


@pytest.fixture(params=["here", "over SSH"])
def host(request: pytest.FixtureRequest) -> Host:
    if request.param == "here":
        return LocalHost()
    made: Host = request.getfixturevalue("remote")
    return made


def connections(cluster: SlurmCluster) -> list[psutil.Process]:
    """The processes of sshd that serve somebody."""
    pid = next(daemon["pid"] for daemon in cluster.status()["daemons"] if daemon["name"] == "sshd")
    return psutil.Process(pid).children()


async def test_a_command_has_its_account_its_environment_and_nothing_else(host: Host) -> None:
    nobody = await host.account("nobody")
    answer = await host.run(
        "sh", "-c", "id -u; id -G; umask; pwd; env", environment={"A": "b c,'$HOME'"}, account=nobody
    )
    uid, groups, umask, folder, *environment = answer.output.splitlines()
    assert (int(uid), groups, umask, folder) == (nobody.uid, str(nobody.gid), "0077", "/")
    assert {line.partition("=")[0] for line in environment} <= {"A", "PATH", "PWD"}
    assert "A=b c,'$HOME'" in environment


async def test_ends_of_commands(host: Host) -> None:
    assert (await host.run("sh", "-c", "echo out; echo err >&2; exit 3")).code == 3
    assert (await host.run("no-such-program")).code == EXIT_NOT_FOUND
    assert (await host.run("sh", "-c", "cat", stdin="x" * (1 << 20))).output == "x" * (1 << 20)


async def test_any_text_arrives_as_it_is(host: Host) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(_TEXT, max_size=3), _TEXT)
    def whole(arguments: list[str], stdin: str) -> None:
        examples.append((arguments, stdin))

    examples: list[tuple[list[str], str]] = []
    whole()
    program = 'for word; do printf "%s" "$word" | base64 --wrap=0; echo; done; base64 --wrap=0'
    answers = await asyncio.gather(
        *(host.run("sh", "-c", program, "sh", *arguments, stdin=stdin) for arguments, stdin in examples)
    )
    import base64

    for (arguments, stdin), answer in zip(examples, answers, strict=True):
        lines = [base64.b64decode(line).decode() for line in answer.output.split("\n")]
        assert lines == [*arguments, stdin]


async def test_accounts_that_jobs_may_not_have(host: Host) -> None:
    with pytest.raises(ConfigError, match="never run as root"):
        await host.account("root")
    with pytest.raises(ConfigError, match="does not exist"):
        await host.account("nobody-of-that-name")


async def test_files(host: Host, slurm_cluster: SlurmCluster) -> None:
    folder = PurePosixPath(slurm_cluster.state.parent)
    path, owner = folder / "file of a job", await host.account("nobody")
    assert (await host.size(path), await host.read(path, 0, 10)) == (0, b"")
    await host.create(path, owner)
    local = Path(path)
    assert (local.stat().st_uid, local.stat().st_mode & 0o777) == (owner.uid, 0o600)
    local.write_bytes(b"0123456789")
    await host.create(path, owner)
    assert (await host.size(path), await host.read(path, 2, 3), await host.read(path, 10, 3)) == (10, b"234", b"")
    assert await host.free_bytes(folder) > 0
    await host.remove(path)
    await host.remove(path)
    assert not local.exists()
    with pytest.raises(OSError, match=r"[Nn]o such file"):
        await host.create(folder / "no" / "such" / "folder", owner)


async def test_all_go_over_one_connection_and_nothing_of_them_is_in_process_lists(
    remote: SshHost, slurm_cluster: SlurmCluster
) -> None:
    await remote.run("true")
    before = connections(slurm_cluster)
    secret = "the-script-of-a-job"
    looks = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null"
    answers = await asyncio.gather(
        *(remote.run("sh", "-c", looks if number == 5 else "cat", stdin=secret) for number in range(100))
    )
    assert all(answer.code == 0 for answer in answers)
    assert secret not in answers[5].output
    assert connections(slurm_cluster) == before


async def test_a_connection_that_breaks_is_opened_again(remote: SshHost, slurm_cluster: SlurmCluster) -> None:
    marker = slurm_cluster.state.parent / "ran"
    under_way = asyncio.create_task(remote.run("sh", "-c", f"echo >{marker}; sleep 30"))
    async with asyncio.timeout(10):
        while not marker.exists():
            await asyncio.sleep(0.05)
    for process in connections(slurm_cluster):
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ConnectionFailedError) as caught:
        await under_way
    # It has run: nobody may take it for one that has not.
    assert not isinstance(caught.value, NotSentError)
    assert (await remote.run("echo", "again")).output == "again\n"
    assert await remote.size(PurePosixPath(marker)) == 1
    marker.unlink()


async def test_a_host_whose_key_is_not_known_is_refused(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").touch()
    host = SshHost(address(slurm_cluster, known_hosts=tmp_path / "known_hosts"))
    with pytest.raises(ConfigError, match="host key"):
        await host.run("true")
    assert (tmp_path / "known_hosts").read_text() == ""
    await host.close()


async def test_who_is_not_let_in_is_told(slurm_cluster: SlurmCluster) -> None:
    ssh = slurm_cluster.status()["ssh"]
    host = SshHost(address(slurm_cluster, key=Path(ssh["key"]).parent / "host_key"))
    with pytest.raises(ConfigError, match="lets nobody in"):
        await host.run("true")
    await host.close()


async def test_a_host_that_is_not_there_got_nothing(
    slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepsquare.grid.supervisor.hosts.ssh._RETRY_SECONDS", 0.5)
    host = SshHost(address(slurm_cluster, port=1))
    with pytest.raises(NotSentError, match="can't be reached over SSH"):
        await host.run("true")
    await host.close()
