"""One HTTP request to a server, to see whether an address answers."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

import httpx

BODY_BYTES: Final = 65536
"""As much of an answer is read, no more."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What an address answered.

    Args:
        status: the HTTP status; 0 where no answer came.
        reason: why none came: `timeout`, `refused`, `tls`, `network` or `protocol`; else empty.
    """

    status: int
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx or 3xx."""
        return 200 <= self.status < 400


async def probe_http(
    address_ip: str, port: int, host_header: str, path: str, *, tls: bool = False, timeout_s: float = 5
) -> ProbeResult:
    """Ask once, on a connection of its own; redirects are not followed, certificates are not judged.

    Raises:
        Nothing: what went wrong is the result's reason.
    """
    host = f"[{address_ip}]" if ":" in address_ip else address_ip
    url = f"{'https' if tls else 'http'}://{host}:{port}{path}"
    try:
        async with asyncio.timeout(timeout_s):
            # A cancelled TLS handshake leaves its socket open (httpcore): its own limit comes first.
            return ProbeResult(await _ask(url, host_header, 0.9 * timeout_s))
    except (TimeoutError, httpx.TimeoutException):
        return ProbeResult(0, "timeout")
    except httpx.ConnectError as error:
        return ProbeResult(0, _reason(error))
    except (httpx.NetworkError, OSError):
        return ProbeResult(0, "network")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return ProbeResult(0, "protocol")


async def _ask(url: str, host_header: str, timeout_s: float) -> int:
    async with (
        httpx.AsyncClient(verify=_any_certificate(), trust_env=False, timeout=timeout_s) as client,
        client.stream(
            "GET",
            url,
            headers={"Host": host_header, "Connection": "close", "User-Agent": "alfa-cloud"},
            extensions={"sni_hostname": host_header.partition(":")[0]},
        ) as response,
    ):
        read = 0
        async for piece in response.aiter_raw():
            read += len(piece)
            if read >= BODY_BYTES:
                break
        return response.status_code


def _any_certificate() -> ssl.SSLContext:
    # The question is whether it answers; whether its certificate is good is asked elsewhere.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: httpx.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "tls"
        if isinstance(cause, ConnectionRefusedError):
            return "refused"
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    return "tls" if "SSL" in text else "refused" if "refused" in text else "network"
