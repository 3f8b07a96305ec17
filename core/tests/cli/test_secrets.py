"""No key, mnemonic or password is anywhere but where it belongs, whatever is logged and whatever fails."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.rpc import request
from deepsquare.chain.wallet import Wallet
from deepsquare.client.client import Client
from deepsquare.grid.sbatch_api import SbatchApi
from eth_account.hdaccount import Mnemonic

from core.tests.chain.conftest import Parties

# The command with all that can be logged, and with the tracebacks of its errors: also of those that Python would not show.
PROGRAM = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
from deepsquare.cli.app import add_commands, app
add_commands()
try:
    app(standalone_mode=False)
except BaseException as error:
    while error is not None:
        traceback.print_exception(error)
        print(repr(error), error.args, file=sys.stderr)
        error = error.__cause__ or error.__context__
    sys.exit(1)
"""
WORKFLOW = """
resources: {tasks: 1, cpusPerTask: 1, memPerCpu: 1, gpus: 0}
steps: [{run: {command: "true"}}]
"""


def of_key(key: bytes) -> set[bytes]:
    """The ways in which a key may be written."""
    return {
        key,
        key.hex().encode(),
        key.hex().upper().encode(),
        base64.b64encode(key),
        str(int.from_bytes(key)).encode(),
    }


def of_mnemonic(phrase: str) -> set[bytes]:
    """Three words in a row are enough to notice."""
    words = phrase.split()
    return {separator.join(words[at : at + 3]).encode() for at in range(len(words) - 2) for separator in (" ", "', '")}


@dataclass
class Machine:
    """Where the commands of one user run, and all that they left behind."""

    folder: Path
    secrets: set[bytes]
    password: str
    output: bytes = b""
    processes: set[bytes] = field(default_factory=set)

    async def run(self, *arguments: str | Path, text: str = "", succeeds: bool = True, **variables: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "DEEPSQUARE_HOME": str(self.folder / "home"),
                "DEEPSQUARE_WALLET_PASSWORD": self.password,
                "TMPDIR": str(self.folder / "temporary"),
            }
            | variables,
        )
        async with self._watched():
            output, _ = await process.communicate(text.encode())
        self.output += output
        assert (process.returncode == 0) is succeeds, output.decode()

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Note the command lines of all processes of the machine, over and over."""

        async def watch() -> None:
            while True:
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        self.processes.add(path.read_bytes())
                    except OSError:  # it has ended
                        continue
                await asyncio.sleep(0.1)

        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()

    def places(self) -> set[str]:
        """Where a secret is."""
        found = {"output": self.output, "processes": b"\n".join(self.processes)}
        for path in self.folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(self.folder))] = os.fsencode(path.name) + b"\n" + content
        return {place for place, content in found.items() if any(secret in content for secret in self.secrets)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "job.yaml").write_text(WORKFLOW)
    password = secrets.token_urlsafe(12)
    return Machine(tmp_path, {password.encode()}, password)


@pytest.mark.parametrize("parties", ["all functions"], indirect=True)
async def test_no_secret_is_anywhere(
    machine: Machine, parties: Parties, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path_factory.mktemp("mine")
    phrase, key, old_password = Mnemonic().generate(), secrets.token_hex(32), secrets.token_urlsafe(12)
    words = phrase.split()
    customer = Wallet.from_mnemonic(phrase)
    Wallet.from_key(key).save(mine / "keystore.json", old_password, scrypt_n=2)
    (mine / "key").write_text(key + "\n")
    machine.secrets |= (
        of_mnemonic(phrase) | of_key(bytes.fromhex(key)) | of_key(key_of(customer)) | {old_password.encode()}
    )

    await machine.run("wallet", "create", "new", "--save-password")
    await machine.run("wallet", "import", "main", "--mnemonic", "--file", "-", text=phrase)
    await machine.run("wallet", "import", "raw", "--key", "--file", mine / "key")
    options = ("--keystore", "--file", mine / "keystore.json", "--password-file", "-")
    await machine.run("wallet", "import", "copy", *options, text=old_password)
    await machine.run("wallet", "list")
    monkeypatch.setenv("DEEPSQUARE_HOME", str(machine.folder / "home"))
    machine.secrets |= of_key(key_of(Wallet.open(contexts.wallet_file("new"), machine.password)))

    await request(parties.admin.w3, "anvil_setBalance", customer.address, hex(10**20))
    await parties.admin.transfer(customer.address, 10**21)
    async with SbatchApi(chain=parties.admin, state_dir=mine / "sbatch", logger_endpoint="127.0.0.1:1") as api:
        market = parties.admin.address("MetaScheduler")
        await machine.run(
            *("context", "add", "grid", "--rpc-url", parties.url, "--metascheduler", market, "--wallet", "main"),
            *("--sbatch-url", f"http://127.0.0.1:{api.port}/graphql", "--logger-grpc", "127.0.0.1:1"),
        )
        await machine.run("context", "list", "--json")
        await machine.run("credit", "balance")
        await machine.run("allowance", "set", "500")
        await machine.run("submit", "job.yaml", "--credits", "5")
        await machine.run("job", "list")
        await machine.run("credit", "transfer", parties.admin.account, "1", "--yes")
        await machine.run("allowance", "show", DEEPSQUARE_PRIVATE_KEY=key)
    assert b"DEBUG:" in machine.output
    assert [job.customer for job in await parties.admin.jobs_of(customer.address)] == [customer.address]

    # What is wrong is no less secret.
    unknown = " ".join([*words[:3], "zzyzx", *words[4:]])
    others = (" ".join([*words[:11], last]) for last in Mnemonic().wordlist)
    no_checksum = next(other for other in others if not Mnemonic().is_mnemonic_valid(other))
    machine.secrets |= {key[:-1].encode()}
    importing = ("wallet", "import", "bad", "--file", "-")
    await asyncio.gather(
        *(
            machine.run(*importing, "--mnemonic", text=text, succeeds=False)
            for text in (unknown, phrase.rpartition(" ")[0], no_checksum)
        ),
        *(
            machine.run(*importing, "--key", text=text, succeeds=False)
            for text in (key[:-1] + "g", key[:-1], key + "0", "f" * 64)
        ),
        machine.run("wallet", "import", "bad", *options, text=old_password + "x", succeeds=False),
        machine.run("wallet", "create", "main", succeeds=False),
        machine.run("allowance", "set", "1", DEEPSQUARE_WALLET_PASSWORD=machine.password + "x", succeeds=False),
        machine.run("allowance", "show", DEEPSQUARE_PRIVATE_KEY=key[:-1] + "g", succeeds=False),
    )

    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", machine.password)
    client = Client()
    machine.output += f"{client!r} {client.context!r} {customer!r} {customer}".encode()
    await client.close()

    assert machine.places() == {"home/wallets/new.password"}


def key_of(wallet: Wallet) -> bytes:
    return bytes(wallet._account.key)


async def test_a_secret_would_be_found(machine: Machine) -> None:
    machine.secrets |= of_mnemonic("one two three four")
    assert machine.places() == set()
    (machine.folder / "temporary" / "left").write_text("it is: two three four")
    (machine.folder / machine.password).touch()
    await machine.run("--help", machine.password)
    machine.output += machine.password.encode()
    assert machine.places() == {"output", "processes", "temporary/left", machine.password}
