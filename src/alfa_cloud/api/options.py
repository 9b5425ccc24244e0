"""What the HTTP layer needs to know of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Who may come in, and from where.

    Args:
        allowed_origins: exact origins of browsers' pages (`https://mol.example`); `*` is every origin.
        allowed_networks: where requests may come from.
        trusted_proxies: whose `X-Forwarded-For` and `X-Forwarded-Proto` count.
        public_url: where the API is found from outside; pages of its own origin count as allowed.
        loopback_origins: pages on localhost count as allowed, for the sandbox.
    """

    allowed_origins: tuple[str, ...]
    allowed_networks: tuple[Network, ...]
    trusted_proxies: tuple[Network, ...] = ()
    public_url: str = "http://127.0.0.1:8000"
    loopback_origins: bool = False
    version: str = "0.1.0"
