"""Who is at the other end: its address, and whether the way to it is encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.types import Scope

from alfa_cloud.api.options import Network

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a request, behind any trusted proxies.

    Args:
        https: whether the client itself speaks HTTPS.
    """

    address: Address
    https: bool

    @property
    def safe(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.https or self.address.is_loopback

    def within(self, networks: Sequence[Network]) -> bool:
        """Whether the client stands in one of these networks."""
        return any(self.address in network for network in networks)


def peer_of(scope: Scope, trusted: Sequence[Network]) -> Peer:
    """The client; what headers say of it counts only as far as trusted proxies have written it."""
    client = scope.get("client")
    address = _parse(client[0]) if client else None
    direct = Peer(address or ip_address("127.0.0.1"), scope.get("scheme") in ("https", "wss"))
    if not direct.within(trusted):
        return direct
    headers = Headers(scope=scope)
    chain = [entry.strip() for line in headers.getlist("x-forwarded-for") for entry in line.split(",")]
    schemes = [entry.strip() for line in headers.getlist("x-forwarded-proto") for entry in line.split(",")]
    https = schemes[-1].lower() == "https" if schemes else direct.https
    return Peer(_behind(chain, trusted, direct.address), https)


def _behind(chain: list[str], trusted: Sequence[Network], nearest: Address) -> Address:
    """The first address, from the nearest on, that no trusted proxy has."""
    for entry in reversed(chain):
        address = _parse(entry)
        if address is None:
            return nearest
        nearest = address
        if not any(address in network for network in trusted):
            return nearest
    return nearest


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
