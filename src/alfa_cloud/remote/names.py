"""Where names lead to."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

RESOLVER_THREADS: Final = 16
RESOLVE_S: Final = 10.0
NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class Resolver:
    """Resolves many names at once; a name server that does not answer holds up nobody else's work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="names")
        self._slots = asyncio.Semaphore(RESOLVER_THREADS)

    async def addresses(self, name: str) -> frozenset[str] | None:
        """The IP addresses of a name; none where there is no such name, None where nobody can say now."""
        async with self._slots:
            look_up = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, name)
            try:
                async with asyncio.timeout(RESOLVE_S):
                    return await look_up
            except TimeoutError:
                return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def leads_to(found: frozenset[str], server: frozenset[str]) -> bool:
    """Whether a name leads to a server and nowhere else, as far as the server's kinds of addresses go."""
    kinds = {ip_address(address).version for address in server}
    known = {address for address in found if ip_address(address).version in kinds}
    return bool(known) and known <= server


def _look_up(name: str) -> frozenset[str] | None:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return frozenset() if error.errno in NO_SUCH_NAME else None
    except (OSError, ValueError):  # UnicodeError, of a malformed name, is a ValueError
        return frozenset()
    return frozenset(str(entry[4][0]).partition("%")[0] for entry in found)
