"""A step in namespaces of its own: its network, and the numbers of its user and group.

What srun starts enters the namespaces as their root, sets them up (`enter`), and then becomes the account again, or the user that
the step asks for, and goes on as any other step. Beside it, outside, runs what connects its network with the node's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface

from deepsquare.compiler.quoting import fill, quote, write_file
from deepsquare.workflow.models import Workflow
from deepsquare.workflow.run import Bore, NetworkInterface, Run, VNet, Wireguard

_NET = "169.254.254.0/24"
_ADDRESS = "169.254.254.100"
_GATEWAY = "169.254.254.1"
_DNS = "169.254.254.3"
"""Where slirp4netns answers questions for names in that network (slirp4netns(1)); pasta is told to."""

ATTACH = write_file(
    '"$private/attach"',
    f"""\
# attach PID KIND LOG PORTS: gives that process, once it has a network of its own, a way out, for as long as it is there.
pid=$1 log=$3
exec </dev/null >"$log" 2>&1
own=$(readlink /proc/self/ns/net)
until [ "$(readlink "/proc/$pid/ns/net")" != "$own" ]; do
    kill -0 "$pid" || exit
    sleep 0.02
done
case $2 in
slirp4netns) slirp4netns --configure --mtu=65520 --disable-host-loopback --cidr={_NET} "$pid" net0 & ;;
pasta)
    pasta --quiet --foreground --config-net --no-map-gw --tcp-ns none --udp-ns none --tcp-ports none --udp-ports "$4" \\
        --netns "/proc/$pid/ns/net" \\
        --userns "/proc/$pid/ns/user" --ns-ifname net0 --address {_ADDRESS} --netmask 24 --gateway {_GATEWAY} \\
        --dns-forward {_DNS} &
    ;;
esac
program=$!
while kill -0 "$pid" && kill -0 "$program"; do sleep 1; done
kill -s TERM "$program"
: >"$log.ended"
""".rstrip("\n"),
)

# What runs there is nobody's child, since a step may wait for all of its own; and signals to the step don't take its network away.
_START = """\
log=${0%/*}/network-${SLURMD_NODENAME:-}-$$
( (exec setsid /bin/bash "${0%/*}/attach" "$$" __KIND__ "$log" none) & )
"""

_WAIT = """\
tries=0
until grep -q '^net0[[:space:]]00000000' /proc/self/net/route; do
    tries=$((tries + 1))
    if [ -e "$log.ended" ] || [ "$tries" -gt 1500 ]; then
        cat "$log"
        echo "The step's own network did not come up: this provider may have no __KIND__."
        exit 1
    fi
    sleep 0.02
done
printf 'nameserver %s\\n' __SERVERS__ >"$log.resolv"
mount --bind "$log.resolv" /etc/resolv.conf || exit 1
"""

_ENTER = """\
if ! unshare --user --map-user=0 --map-group=0 true 2>/dev/null; then
    echo "This provider's nodes can't run steps with a network or a user of their own."
    echo "They need user namespaces, and util-linux 2.38 or later."
    exit 1
fi
exec unshare --user --map-user=0 --map-group=__GID__ --mount __NET__-- /bin/bash "${0%/*}/enter-__NUMBER__" \\
    "$1" "$(id -u)" "$(id -g)" "${log:-}"
"""

# Programs ask who they are, Apptainer among them.
_NAMES = """\
names=${0%/*}/names-${SLURMD_NODENAME:-}-$$
{
    cat /etc/passwd
    getent passwd __UID__ >/dev/null || printf 'user:x:%s:%s::/:/bin/sh\\n' __UID__ __GID__
} >"$names.passwd"
{
    cat /etc/group
    getent group __GID__ >/dev/null || printf 'user:x:%s:\\n' __GID__
} >"$names.group"
chmod 0644 "$names.passwd" "$names.group"
mount --bind "$names.passwd" /etc/passwd && mount --bind "$names.group" /etc/group || exit 1
"""

_LEAVE = """\
exec unshare --user --map-user=__UID__ --map-group=__GID__ -- /bin/bash "${0%/*}/main-__NUMBER__" "$scope"
"""

# Who asks to be root keeps what the namespaces' root may do in them: mounts, and its own network.
_STAY = """\
exec /bin/bash "${0%/*}/main-__NUMBER__" "$scope"
"""

_WIREGUARD_UP = """\
# Where WireGuard runs without the kernel's help it makes its socket there.
[ ! -d /run/wireguard ] || mount -t tmpfs -o mode=0700 tmpfs /run/wireguard
up() {
    local said
    said=$(wg-quick up "$1" 2>&1) && return
    printf '%s\\n' "$said" "The interface ${1##*/} did not come up."
    exit 1
}
"""

_BORE = """\
( (exec "${DEEPSQUARE_BORE:-dpsproxy}" --to.addr __SERVER__ --local.addr localhost:__PORT__ --reconnect) & )
"""

# It would be in the process list with the client that is usual; a provider's own finds it in its environment.
_AUTHENTICATED = """\
if [ -z "${DEEPSQUARE_BORE:-}" ]; then
    echo "This provider's client for bore can't be given a secret without showing it to others on the node."
    exit 1
fi
export BORE_SECRET=__SECRET__
"""

GATEWAY_FUNCTIONS = r"""
gateways=''
# open_network FOLDER: starts the gateway of a virtual network.
open_network() {
    local tries=0
    /bin/bash "$private/gateway" "$1" &
    gateways="$gateways $!"
    until [ -e "$1/up" ]; do
        tries=$((tries + 1))
        if ! kill -0 "${gateways##* }" 2>/dev/null || [ "$tries" -gt 300 ]; then
            cat "$1/log" "$1/way-out" 2>/dev/null
            echo "A virtual network did not come up: this provider may have no WireGuard or no pasta."
            exit 1
        fi
        sleep 0.1
    done
}
"""
"""What the lines of `Networks` call."""

_GATEWAY_SCRIPTS = write_file(
    '"$private/gateway"',
    """\
# gateway FOLDER: makes the keys of a virtual network, and runs its gateway, to which the steps connect from any node.
umask 077
cd "$1" || exit
exec </dev/null >log 2>&1
wg genkey >key && wg pubkey <key >public || exit
ip -o route get 192.0.2.255 | sed -n 's/.* src \\([^ ]*\\).*/\\1/p' >address
[ -s address ] || exit
# A port that nobody has: seldom is one taken in between, and then the network doesn't come up.
while :; do
    port=$((20000 + RANDOM % 40000))
    grep -qi ":$(printf %04X "$port") " /proc/net/udp /proc/net/udp6 || break
done
printf '%s\\n' "$port" >port
{
    printf '[Interface]\\nAddress = %s\\nListenPort = %s\\nPrivateKey = %s\\n' "$(cat gateway)" "$port" "$(cat key)"
    number=0
    while read -r peer && [ -n "$peer" ]; do
        wg genkey >"peer-$number.key"
        printf '[Peer]\\nPublicKey = %s\\nAllowedIPs = %s\\n' "$(wg pubkey <"peer-$number.key")" "$peer"
        number=$((number + 1))
    done <peers
} >gateway.conf
( (exec setsid /bin/bash "${0%/*}/attach" "$$" pasta "$PWD/way-out" "$port") & )
exec unshare --user --map-root-user --net --mount -- /bin/bash "${0%/*}/gateway-inside" """.rstrip(),
) + write_file(
    '"$private/gateway-inside"',
    """\
until grep -q '^net0[[:space:]]00000000' /proc/self/net/route; do
    [ ! -e way-out.ended ] || exit 1
    sleep 0.02
done
# Steps reach each other through it.
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
[ ! -d /run/wireguard ] || mount -t tmpfs -o mode=0700 tmpfs /run/wireguard
wg-quick up "$PWD/gateway.conf" || exit
: >up
exec sleep infinity""",
)


def is_needed(run: Run) -> bool:
    """Whether a step runs in namespaces of its own."""
    return run.own_network is not None or run.map_uid is not None or run.map_gid is not None


class Networks:
    """The virtual networks of one workflow, whose gateways run beside its steps."""

    def __init__(self, workflow: Workflow) -> None:
        self._networks = workflow.virtual_networks
        self._numbers = {network.name: number for number, network in enumerate(self._networks)}
        # The numbers of addresses, in the order of these.
        self._peers: dict[str, dict[str, int]] = {network.name: {} for network in self._networks}

    @property
    def are_any(self) -> bool:
        """Whether the job has any."""
        return bool(self._networks)

    def peer(self, interface: VNet) -> tuple[int, int]:
        """The number of an interface's network, and its own number there: that of its address, which steps may share."""
        peers = self._peers[interface.name]
        return self._numbers[interface.name], peers.setdefault(_host(interface), len(peers))

    def files(self) -> Iterator[str]:
        """Lines that write what the gateways use; known when all steps have been compiled."""
        if not self._networks:
            return
        yield _GATEWAY_SCRIPTS
        for number, network in enumerate(self._networks):
            yield f'mkdir "$private/vnet-{number}" || no_room\n'
            yield write_file(f'"$private/vnet-{number}/gateway"', network.gateway_address)
            yield write_file(f'"$private/vnet-{number}/peers"', "\n".join(self._peers[network.name]))

    def lines(self) -> Iterator[str]:
        """Lines that start the gateways."""
        yield from (f'open_network "$private/vnet-{number}"' for number, _ in enumerate(self._networks))


def _host(interface: VNet) -> str:
    address = ip_interface(interface.address)
    return f"{address.ip}/{address.max_prefixlen}"


@dataclass(frozen=True, slots=True)
class Entry:
    """How a step gets into its namespaces."""

    files: str
    """Lines that write what it uses."""
    launch: str
    """What its tasks do first; the last line becomes `main`."""


def entry(run: Run, number: int, networks: Networks) -> Entry:
    """The way into a step's namespaces, which ends in its script `main-NUMBER`.

    Args:
        run: the step.
        number: the number in the names of its files.
        networks: the job's virtual networks.
    """
    kind = run.own_network
    inside, written = ["scope=$1\n"], []
    if kind is not None:
        inside.append("log=$4\n")
        inside.append(fill(_WAIT, KIND=kind, SERVERS=" ".join(map(quote, run.dns or (_DNS,)))))
        if any(interface.bore is None for interface in run.custom_network_interfaces):
            inside.append(_WIREGUARD_UP)
        for index, interface in enumerate(run.custom_network_interfaces):
            files, lines = _interface(interface, index, number, networks)
            written.append(files)
            inside.append(lines)
    uid = '"$2"' if run.map_uid is None else str(run.map_uid)
    gid = '"$3"' if run.map_gid is None else str(run.map_gid)
    if run.map_uid is not None or run.map_gid is not None:
        inside.append(fill(_NAMES, UID=uid, GID=gid))
    stays = run.map_uid == 0
    inside.append(fill(_STAY if stays else _LEAVE, UID=uid, GID=gid, NUMBER=str(number)))
    written.append(write_file(f'"$private/enter-{number}"', "".join(inside).rstrip("\n")))
    start = "" if kind is None else fill(_START, KIND=kind)
    group = "0" if not stays else '"$(id -g)"' if run.map_gid is None else str(run.map_gid)
    launch = start + fill(_ENTER, NET="" if kind is None else "--net ", GID=group, NUMBER=str(number))
    return Entry("".join(written), launch.rstrip("\n"))


def _interface(interface: NetworkInterface, index: int, number: int, networks: Networks) -> tuple[str, str]:
    """Lines that write what one interface uses, and lines that bring it up."""
    folder = f"interfaces-{number}"
    if interface.wireguard is not None:
        path = f"{folder}/wg{index}.conf"
        files = f'mkdir -p "$private/{folder}" || no_room\n' + write_file(
            f'"$private/{path}"', _wireguard(interface.wireguard)
        )
        return files, f'up "${{0%/*}}/{path}"\n'
    if interface.vnet is not None:
        network, peer = networks.peer(interface.vnet)
        return "", _vnet(interface.vnet, f"vnet{index}.conf", network, peer)
    assert interface.bore is not None
    return "", _bore(interface.bore)


def _bore(bore: Bore) -> str:
    line = fill(_BORE, SERVER=quote(bore.server), PORT=str(bore.target_port))
    if bore.secret is None:
        return line
    return f"{fill(_AUTHENTICATED, SECRET=quote(bore.secret.get_secret_value()))}{line}unset BORE_SECRET\n"


def _wireguard(interface: Wireguard) -> str:
    """A configuration file of wg-quick(8)."""
    lines = ["[Interface]"]
    if interface.address:
        lines.append(f"Address = {','.join(interface.address)}")
    lines.append(f"PrivateKey = {interface.private_key.get_secret_value()}")
    for peer in interface.peers:
        lines += ["[Peer]", f"PublicKey = {peer.public_key}"]
        if peer.allowed_ips:
            lines.append(f"AllowedIPs = {','.join(peer.allowed_ips)}")
        if peer.endpoint is not None:
            lines.append(f"Endpoint = {peer.endpoint}")
        if peer.pre_shared_key is not None:
            lines.append(f"PresharedKey = {peer.pre_shared_key.get_secret_value()}")
        if peer.persistent_keepalive is not None:
            lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
    return "\n".join(lines)


def _vnet(interface: VNet, name: str, network: int, peer: int) -> str:
    """Lines that write the configuration of an interface of a virtual network, whose keys the job has made, and bring it up."""
    folder = f'"${{0%/*}}/vnet-{network}"'
    return f"""\
mkdir -p "$log.interfaces"
{{
    printf '[Interface]\\nAddress = %s\\nPrivateKey = %s\\n' {interface.address} "$(cat {folder}/peer-{peer}.key)"
    printf '[Peer]\\nPublicKey = %s\\nAllowedIPs = %s\\n' "$(cat {folder}/public)" {ip_interface(interface.address).network}
    printf 'Endpoint = %s:%s\\nPersistentKeepalive = 20\\n' "$(cat {folder}/address)" "$(cat {folder}/port)"
}} >"$log.interfaces/{name}"
up "$log.interfaces/{name}"
"""
