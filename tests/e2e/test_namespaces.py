"""Steps with users, groups and networks of their own, by the local scheduler and by real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deepsquare.grid.supervisor.schedulers.base import Phase

from tests.batch import Runner
from tests.workflows import launch, run

pytestmark = pytest.mark.slurm

NETWORKS = ["slirp4netns", "pasta"]


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    """What device managers and operators prepare: networks without root get out, and WireGuard has a place for its socket."""
    Path("/dev/net/tun").chmod(0o666)
    Path("/run/wireguard").mkdir(exist_ok=True)


async def prints(runner: Runner, *steps: dict[str, Any], **fields: Any) -> list[str]:
    result = await runner.run(*steps, **fields)
    assert result.phase is Phase.COMPLETED, result
    return result.lines


@pytest.mark.parametrize(
    ("fields", "printed"),
    [
        ({"mapUid": 0}, "0 root"),
        ({"mapUid": 0, "mapGid": 0}, "0 root"),
        ({"mapUid": 12345, "mapGid": 54321}, "12345 user"),
        ({"mapUid": 12345, "network": "slirp4netns"}, "12345 user"),
    ],
)
async def test_a_step_sees_the_user_that_it_asks_for(runner: Runner, fields: dict, printed: str) -> None:
    assert await prints(runner, run('echo "$(id -u) $(id -un)"', **fields)) == [printed]


async def test_groups_are_mapped_alone_too(runner: Runner) -> None:
    lines = await prints(runner, run("id -g; id -u", mapGid=4321))
    assert lines == ["4321", str(runner.account.uid)]


async def test_what_a_mapped_user_makes_is_the_jobs(runner: Runner) -> None:
    steps = [run("echo hello >file; mkdir closed; chmod 0 closed", mapUid=0), run("cat file; rm file; rmdir closed")]
    assert await prints(runner, *steps) == ["hello"]


@pytest.mark.parametrize("fields", [{}, {"mapGid": 77}, {"network": "pasta"}])
async def test_who_asks_to_be_root_may_what_root_may_within(runner: Runner, fields: dict) -> None:
    command = "mkdir -p a b; echo mounted >a/file; mount --bind a b && cat b/file; "
    command += "ip link set lo mtu 1400 2>/dev/null && echo own; true"
    lines = await prints(runner, run(command, mapUid=0, **fields), run("ls b"))
    assert lines == ["mounted", *(["own"] if "network" in fields else [])]


async def test_exit_codes_and_variables_pass_through(runner: Runner) -> None:
    odd = "a b'\n$(x)"
    result = await runner.run(
        run('printf "%s|\\n" "$JOB" "$STEP"; exit 7', mapUid=0, network="pasta", env=[{"key": "STEP", "value": odd}]),
        env=[{"key": "JOB", "value": odd}],
    )
    assert (result.code, "\n".join(result.lines)) == (7, f"{odd}|\n{odd}|")


@pytest.mark.parametrize("network", NETWORKS)
async def test_a_network_of_its_own_has_its_interface_and_a_way_out(runner: Runner, network: str) -> None:
    look = "sed -n 's/^ *\\([a-z0-9]*\\):.*/\\1/p' /proc/net/dev | sort | tr '\\n' ' '; grep -c net0 /proc/net/route; id -u"
    lines = await prints(runner, run(look, network=network))
    assert lines == ["lo net0 2", str(runner.account.uid)]


@pytest.mark.parametrize("network", NETWORKS)
async def test_name_servers(runner: Runner, network: str) -> None:
    lines = await prints(
        runner,
        run("cat /etc/resolv.conf", network=network, dns=["192.0.2.53", "2001:db8::53"]),
        run("cat /etc/resolv.conf", network=network),
        run("cat /etc/resolv.conf >resolv"),
    )
    assert lines == ["nameserver 192.0.2.53", "nameserver 2001:db8::53", "nameserver 169.254.254.3"]


async def test_what_needs_a_network_of_its_own_is_told_on_the_hosts(runner: Runner) -> None:
    lines = await prints(runner, run("echo done", dns=["192.0.2.53"]))
    assert lines == [
        "dns and customNetworkInterfaces count only with network: slirp4netns or pasta; ignored here.",
        "done",
    ]


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[str, str]]:
    """A network namespace that this host reaches, and the address of a web server in it."""
    name = f"dsq-{uuid.uuid4().hex[:8]}"
    # Tests run in several processes at a time.
    number = os.getpid() % 250
    here, there = f"198.18.{number}.1", f"198.18.{number}.2"
    subprocess.run(["ip", "netns", "add", name], check=True)
    server = None
    try:
        commands = [
            f"ip link add {name}a type veth peer name {name}b netns {name}",
            f"ip addr add {here}/30 dev {name}a",
            f"ip link set {name}a up",
            f"ip -n {name} addr add {there}/30 dev {name}b",
            f"ip -n {name} link set {name}b up",
            f"ip -n {name} link set lo up",
        ]
        for command in commands:
            subprocess.run(command.split(), check=True)
        script = f"""if True:
            import http.server
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b"hello from the site\\n")
            server = http.server.HTTPServer(("{there}", 8080), Handler)
            print("up", flush=True)
            server.serve_forever()"""
        server = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield name, f"{there}:8080"
    finally:
        if server is not None:
            server.kill()
            server.wait()
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(scope="module")
def site(world: tuple[str, str]) -> str:
    return world[1]


@pytest.mark.parametrize("network", NETWORKS)
async def test_the_world_is_reached_and_the_node_is_not(runner: Runner, network: str, site: str) -> None:
    # The node's own services on its loopback are none of its business.
    inside = launch(run("cd /; exec python3 -m http.server --bind 127.0.0.1 48080 >/dev/null 2>&1"))
    wait = run("until curl -s -o /dev/null 127.0.0.1:48080; do sleep 0.1; done")
    refused = "curl -s -m 3 169.254.254.1:48080 || curl -s -m 3 127.0.0.1:48080 || echo no"
    ask = run(f"curl -s --retry 5 --retry-connrefused {site}; {refused}", network=network)
    lines = await prints(runner, inside, wait, ask, tasks=2)
    assert lines == ["hello from the site", "no"]


@pytest.mark.parametrize("network", NETWORKS)
async def test_each_task_has_a_network_of_its_own(runner: Runner, network: str) -> None:
    command = 'python3 -c \'import socket, time; s = socket.socket(); s.bind(("127.0.0.1", 48081)); print("bound"); time.sleep(2)\''
    assert await prints(runner, run(command, network=network, resources={"tasks": 2}), tasks=2) == ["bound", "bound"]


async def test_cancelled_steps_in_networks_are_told_and_nothing_stays(runner: Runner) -> None:
    steps = [run("trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.1; done", network="slirp4netns")]
    job_id, output = await runner.submit(steps)
    await runner.prints(output, "up\n")
    await runner.scheduler.cancel(job_id)
    result = await runner.result(job_id, output)
    assert (result.phase, result.lines) == (Phase.CANCELLED, ["up", "told"])
    subprocess.run(
        ["timeout", "20", "sh", "-c", f"while pgrep -u {runner.account.uid} >/dev/null; do sleep 0.1; done"], check=True
    )


async def test_a_step_that_is_told_to_end_still_has_its_network(runner: Runner, site: str) -> None:
    # Who has to give back a licence, or to save what it has, needs it then.
    handler = f"trap 'sleep 2; curl -s {site}; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    job_id, output = await runner.submit([run(handler, network="slirp4netns")])
    await runner.prints(output, "up\n")
    await runner.scheduler.cancel(job_id)
    result = await runner.result(job_id, output)
    assert (result.phase, result.lines) == (Phase.CANCELLED, ["up", "hello from the site"])


def wireguard_keys() -> tuple[str, str]:
    """A private key and its public one."""
    private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout
    public = subprocess.run(["wg", "pubkey"], check=True, capture_output=True, text=True, input=private).stdout
    return private.strip(), public.strip()


@pytest.fixture(scope="module")
def vpn(world: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The interface of a step that reaches a web server at 10.77.0.1 through a real WireGuard, and only through it."""
    folder = tmp_path_factory.mktemp("vpn")
    (own, own_public), (peer, peer_public) = wireguard_keys(), wireguard_keys()
    shared = subprocess.run(["wg", "genpsk"], check=True, capture_output=True, text=True).stdout.strip()
    namespace, site = world
    # Its name is that of the interface, and of a socket that all namespaces see.
    conf = folder / f"{namespace}.conf"
    conf.write_text(
        f"[Interface]\nAddress = 10.77.0.1/24\nListenPort = 51820\nPrivateKey = {peer}\n"
        f"[Peer]\nPublicKey = {own_public}\nAllowedIPs = 10.77.0.2/32\nPresharedKey = {shared}\n"
    )
    conf.chmod(0o600)
    inside = ["ip", "netns", "exec", namespace]
    subprocess.run([*inside, "wg-quick", "up", conf], check=True, capture_output=True)
    server = subprocess.Popen(
        [*inside, sys.executable, "-m", "http.server", "--bind", "10.77.0.1", "--directory", folder, "80"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (folder / "index.html").write_text("hello from the tunnel\n")
    yield {
        "address": ["10.77.0.2/24"],
        "privateKey": own,
        "peers": [
            {
                "publicKey": peer_public,
                "preSharedKey": shared,
                "allowedIPs": ["10.77.0.0/24"],
                "endpoint": f"{site.partition(':')[0]}:51820",
                "persistentKeepalive": 25,
            }
        ],
    }
    server.kill()
    server.wait()
    subprocess.run([*inside, "wg-quick", "down", conf], check=True, capture_output=True)


@pytest.mark.parametrize("network", NETWORKS)
async def test_a_wireguard_interface(runner: Runner, network: str, vpn: dict[str, Any]) -> None:
    interfaces = [{"wireguard": vpn}]
    ask = "curl -s --retry 5 --retry-connrefused -m 20 http://10.77.0.1; grep -c wg0 /proc/net/dev; id -u"
    lines = await prints(runner, run(ask, network=network, customNetworkInterfaces=interfaces))
    assert lines == ["hello from the tunnel", "1", str(runner.account.uid)]


@pytest.mark.parametrize(("prefix", "length", "url"), [("10.88.0.", 24, "10.88.0.2"), ("fd88::", 64, "[fd88::2]")])
async def test_a_virtual_network_joins_steps(runner: Runner, prefix: str, length: int, url: str) -> None:
    def inside(number: int, command: str) -> dict[str, Any]:
        interface = {"vnet": {"name": "inner", "address": f"{prefix}{number}/{length}"}}
        return run(command, network="slirp4netns", customNetworkInterfaces=[interface])

    serve = (
        f"echo hello from the other step >index.html; exec python3 -m http.server --bind {prefix}2 8000 >/dev/null 2>&1"
    )
    ask = f"curl -s --retry 20 --retry-delay 1 --retry-connrefused -m 30 http://{url}:8000; grep -c vnet0 /proc/net/dev"
    # An address may come again.
    steps = [launch(inside(2, serve)), inside(3, ask), inside(3, "true")]
    networks = [
        {"name": "outer", "gatewayAddress": "10.99.0.1/24"},
        {"name": "inner", "gatewayAddress": f"{prefix}1/{length}"},
    ]
    assert await prints(runner, *steps, tasks=2, virtualNetworks=networks) == ["hello from the other step", "1"]


# Bore's client is in no registry that this machine reaches: this double says what it was asked for.
BORE = """\
#!/bin/bash
printf '%s\\n' "$@" "secret: ${BORE_SECRET:-none}"
"""


@pytest.mark.parametrize(
    ("bore", "server"),
    [
        ({"boreAddress": "bore.example:7000"}, "bore.example:7000"),
        ({"address": "bore.example"}, "bore.example:2200"),
        ({"address": "bore.example", "port": 7000}, "bore.example:7000"),
    ],
)
async def test_a_bore_tunnel_by_a_double_of_its_client(runner: Runner, bore: dict, server: str) -> None:
    program = runner.root / "bore"
    program.write_text(BORE)
    program.chmod(0o755)
    runner.variables["DEEPSQUARE_BORE"] = str(program)
    interfaces = [{"bore": {"targetPort": 8080, "secret": "it's $secret"} | bore}]
    lines = await prints(runner, run("sleep 1", network="pasta", customNetworkInterfaces=interfaces))
    asked = ["--to.addr", server, "--local.addr", "localhost:8080", "--reconnect"]
    assert lines == [*asked, "secret: it's $secret"]


async def test_a_secret_is_never_given_to_a_client_that_would_show_it(runner: Runner) -> None:
    runner.variables.pop("DEEPSQUARE_BORE", None)
    interfaces = [{"bore": {"targetPort": 8080, "boreAddress": "bore.example:7000", "secret": "s"}}]
    result = await runner.run(run("echo never", network="pasta", customNetworkInterfaces=interfaces))
    assert (result.code, result.lines) == (
        1,
        ["This provider's client for bore can't be given a secret without showing it to others on the node."],
    )
