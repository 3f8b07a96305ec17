"""Where a git server really is: its addresses, checked and pinned, and its redirects, found out before git sees them.

Customers choose the servers, so each address that a name has must be one of the public internet, never one of the operator's own
networks; and what was checked is what is connected to, whatever the name's server answers the next time.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LookupTimeoutError
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from deepsquare.workflow.modules import ModuleError

HTTPS_PORT = 443
_MOST_REDIRECTS = 3
_MOST_ADDRESSES = 3
_CONNECT_SECONDS = 5
_SUFFIX = "/info/refs"
_ADVERTISEMENT = "application/x-git-upload-pack-advertisement"

_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE
)
# What the old functions of C, and so many programs, read as an address: 127.0.0.1, 127.1, 2130706433, 0x7f.1.
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
_PATH = re.compile(r"(/[A-Za-z0-9_~%+-][A-Za-z0-9._~%+-]*)+")

# Nobody's public servers, whatever the version of Python says: special ranges of IANA, and Azure's own host agent.
_REFUSED_4 = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    )
]
_PUBLIC_6 = ip_network("2000::/3")
# Teredo, ORCHID and others of the IETF; documentation; 6to4.
_REFUSED_6 = [ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_NAT64 = ip_network("64:ff9b::/96")

GetAddrInfo = Callable[..., Sequence[tuple[Any, Any, Any, Any, Any]]]


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at its real place: no redirect leads away, and the address is the one to connect to."""

    url: str
    host: str
    port: int
    address: str


def is_public(text: str) -> bool:
    """Whether an address is one that anybody's server may have on the internet."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address in _NAT64:
            return _is_public_4(IPv4Address(address.packed[-4:]))
        return address in _PUBLIC_6 and address.is_global and not any(address in network for network in _REFUSED_6)
    return _is_public_4(address)


def _is_public_4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in network for network in _REFUSED_4)


def check_host(host: str) -> None:
    """Refuse what is no name of a host, also addresses in any of their forms.

    Raises:
        ModuleError: it is none.
    """
    if not _NAME.fullmatch(host):
        raise ModuleError(f"{host[:100]!r} is no name of a host")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise ModuleError(f"{host} is an address; modules come from hosts with a name, such as github.com")


class Finder:
    """Finds where repositories really are. Safe to use from several threads."""

    def __init__(self, getaddrinfo: GetAddrInfo = socket.getaddrinfo, ca_file: Path | None = None) -> None:
        """`ca_file` has certificate authorities that are trusted beside the usual ones.

        Raises:
            OSError: it can't be read, or is no certificate.
        """
        self._getaddrinfo = getaddrinfo
        # A lookup can't be stopped: those that take too long are left behind, no more of them than this.
        self._lookups = ThreadPoolExecutor(4, thread_name_prefix="modules-dns")
        self._trust: ssl.SSLContext = httpx.create_ssl_context(trust_env=False)
        if ca_file is not None:
            self._trust.load_verify_locations(ca_file)

    def close(self) -> None:
        """End; lookups that are on their way are not waited for."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def find(self, host: str, port: int, path: str, until: float) -> Repository:
        """Where the repository of https://HOST:PORT/PATH really is; `until` is on the monotonic clock.

        Raises:
            ModuleError: there is none, or only in a place that is refused.
        """
        url = f"https://{host}{'' if port == HTTPS_PORT else f':{port}'}{path}"
        ports = {HTTPS_PORT, port}
        for _ in range(_MOST_REDIRECTS + 1):
            repository, location = self._look(url, ports, until)
            if location is None:
                return repository
            url = _target(url, location)
        raise ModuleError(f"{host} redirects more than {_MOST_REDIRECTS} times; name the repository's own place")

    def _look(self, url: str, ports: set[int], until: float) -> tuple[Repository, str | None]:
        """The repository of a URL at one of its host's addresses, and where that redirects."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or HTTPS_PORT
        check_host(host)
        if not _PATH.fullmatch(parts.path):
            raise ModuleError(f"{host} redirects to a path that no repository has")
        if port not in ports:
            raise ModuleError(
                f"{host} redirects to port {port}; only {HTTPS_PORT} and what the source names are allowed"
            )
        error = ""
        for address in self._addresses(host, port, until)[:_MOST_ADDRESSES]:
            repository = Repository(url, host, port, address)
            try:
                return repository, asyncio.run(self._ask(repository, until))
            except TimeoutError:
                raise ModuleError(f"{host} did not answer in time; try again") from None
            except (httpx.ConnectError, httpx.ConnectTimeout) as failure:
                error = f"{host} can't be reached: {_reason(failure)}"
            except (httpx.HTTPError, httpx.InvalidURL) as failure:
                raise ModuleError(f"{host} did not answer as a git server: {type(failure).__name__}") from None
        raise ModuleError(f"{error}; try again, or look whether the source is right")

    def _addresses(self, host: str, port: int, until: float) -> list[str]:
        lookup = self._lookups.submit(self._getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = lookup.result(max(0.0, until - time.monotonic()))
        except LookupTimeoutError:
            raise ModuleError(f"the address of {host} could not be found in time; try again") from None
        except (OSError, UnicodeError):
            found = []
        addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
        if not addresses or not all(map(is_public, addresses)):
            # The same for both: who asks need not learn which names the operator's own networks have.
            raise ModuleError(
                f"{host} has no address, or one that is not public; modules come from public servers only"
            )
        return addresses

    async def _ask(self, repository: Repository, until: float) -> str | None:
        """Ask as git does; where it redirects, or None.

        Raises:
            ModuleError: it is no repository for everybody.
            TimeoutError: it is too slow. (Only here there is a limit for the whole; httpx's own are for each part.)
        """
        host, port, address = repository.host, repository.port, repository.address
        literal = f"[{address}]" if ":" in address else address
        path = urlsplit(repository.url).path
        # Nothing of the environment: no proxy, no netrc. The certificate is checked against the name that is asked for.
        async with (
            asyncio.timeout(until - time.monotonic()),
            httpx.AsyncClient(
                verify=self._trust,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            ) as client,
            client.stream(
                "GET",
                f"https://{literal}:{port}{path}{_SUFFIX}?service=git-upload-pack",
                headers={
                    "Host": host if port == HTTPS_PORT else f"{host}:{port}",
                    "User-Agent": "git/2.37 (deepsquare)",
                    "Accept-Encoding": "identity",
                },
                extensions={"sni_hostname": host},
            ) as response,
        ):
            status, headers = response.status_code, response.headers
        if status in (301, 302, 303, 307, 308) and "location" in headers:
            return str(headers["location"])
        if status in (401, 403, 404, 410):
            raise ModuleError(
                f"{host} has no such public repository (it answered {status}); private ones can't be used"
            )
        if status != 200:
            raise ModuleError(f"{host} answered with {status}; try again later")
        if headers.get("content-type", "").partition(";")[0] != _ADVERTISEMENT:
            raise ModuleError(f"{host} has something else than a git repository there")
        return None


def _target(url: str, location: str) -> str:
    """The repository that a redirect leads to, without what git adds."""
    host = urlsplit(url).hostname
    try:
        parts = urlsplit(urljoin(url + _SUFFIX, location))
        port, target = parts.port or HTTPS_PORT, parts.hostname or ""
    except ValueError:
        raise ModuleError(f"{host} redirects to what is no URL") from None
    if parts.scheme != "https" or "@" in parts.netloc:
        raise ModuleError(f"{host} redirects to something else than https; modules come by https only")
    check_host(target)
    if not parts.path.endswith(_SUFFIX):
        raise ModuleError(f"{host} redirects to what is no git repository; is it private, or is the source wrong?")
    return f"https://{target}{'' if port == HTTPS_PORT else f':{port}'}{parts.path.removesuffix(_SUFFIX)}"


def _reason(failure: httpx.TransportError) -> str:
    """Why there is no connection; a text of the system's or of OpenSSL's, in one line."""
    text = str(failure)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        detail = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return f"its certificate is not valid ({''.join(filter(str.isprintable, detail))[:100]})"
    return "".join(filter(str.isprintable, text))[:100] or "no connection"
