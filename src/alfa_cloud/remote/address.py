"""Which addresses this service may connect to, and the way there: resolved once, checked, then dialled by number."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from alfa_cloud.errors import AddressRefusedError, HostUnreachableError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

REFUSED_PORTS: Final = frozenset({25, 3306, 5432, 6379})
"""Mail and databases: nothing there speaks SSH."""
NOT_PUBLIC: Final = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's metadata; other clouds have theirs in ranges that are private
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("100::/64"),
    ipaddress.ip_network("2001::/23"),
    ipaddress.ip_network("fec0::/10"),
)
"""IANA's special ranges that `is_global` lets through in one version of Python or another."""
NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
RESOLVER_THREADS: Final = 16


class Dialer:
    """Opens TCP connections to addresses that are allowed.

    Args:
        allowed_networks: private ranges that servers may be in.
    """

    def __init__(self, allowed_networks: Sequence[IPNetwork] = ()) -> None:
        self._allowed = tuple(allowed_networks)
        # Its own threads: a name server that does not answer must not hold up others' work.
        self._resolver = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def check(self, host: str, port: int) -> list[str]:
        """The IP addresses to connect to, all of them allowed.

        Raises:
            AddressRefusedError: the port, or every address of this host, is one not to connect to.
            HostUnreachableError: the name does not resolve.
        """
        if port in REFUSED_PORTS or not 0 < port < 65536:
            raise AddressRefusedError(f"Port {port} is not one to reach a server by.", meta={"field": "port"})
        found = dict.fromkeys(embedded_ipv4(ip) for ip in await self._resolve(host, port))
        allowed = [str(ip) for ip in found if is_allowed(ip, self._allowed)]
        if not allowed:
            raise AddressRefusedError(
                f"{host} is not a public address, and not in a network that the settings allow.", meta={"field": "host"}
            )
        return allowed

    async def dial(self, host: str, port: int) -> tuple[socket.socket, str]:
        """A connected socket and the IP address at its other end; addresses are tried in turn.

        Raises:
            AddressRefusedError: see `check`.
            HostUnreachableError: no address of the host could be connected to.
        """
        addresses = await self.check(host, port)
        for last, address in zip([False] * (len(addresses) - 1) + [True], addresses, strict=True):
            try:
                async with asyncio.timeout(None if last else 3):
                    return await _connect(address, port), address
            except OSError as error:  # TimeoutError is one too
                if last:
                    raise unreachable(error, f"{host}:{port}") from error
        raise AssertionError("there is always a last address")

    def close(self) -> None:
        """Its threads end as soon as they can."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def _resolve(self, host: str, port: int) -> list[IPAddress]:
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            pass
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._resolver, _look_up, host, port)
        except (OSError, ValueError) as error:  # UnicodeError, of a malformed name, is a ValueError
            raise HostUnreachableError(f"The name {host} does not resolve.", meta={"reason": "dns"}) from error
        return [ipaddress.ip_address(address) for address in found]


def embedded_ipv4(ip: IPAddress) -> IPAddress:
    """The IPv4 address within an IPv6 one (mapped, 6to4, NAT64), else the address itself."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return ip
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def is_allowed(ip: IPAddress, allowed: Sequence[IPNetwork] = ()) -> bool:
    """Whether to connect to it: public, or in a network that was named; never multicast or unspecified."""
    if ip.is_multicast or ip.is_unspecified:
        return False
    if any(ip in network for network in allowed):
        return True
    return ip.is_global and not ip.is_reserved and not any(ip in network for network in NOT_PUBLIC)


def unreachable(error: OSError, where: str) -> HostUnreachableError:
    """What to tell a person of a connection that could not be made; nothing that the other end said is in it."""
    if isinstance(error, TimeoutError):
        return HostUnreachableError(f"{where} did not answer in time.", meta={"reason": "timeout"})
    if error.errno == errno.ECONNREFUSED:
        return HostUnreachableError(f"Nothing accepts connections at {where}.", meta={"reason": "refused"})
    return HostUnreachableError(f"There is no way through the network to {where}.", meta={"reason": "network"})


def _look_up(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def _connect(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
