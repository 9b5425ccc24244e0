"""A server's host key, pinned anew by somebody who has compared it."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import AddressRefusedError, FieldError, RemoteError
from alfa_cloud.models import Server
from alfa_cloud.remote.keys import fingerprint
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services import servers
from alfa_cloud.services.images import ServerUnavailableError

LOOK_S: Final = 14.0


async def shown_by(pool: SshPool, host: str, port: int) -> str:
    """The host key that a server shows now; no login is tried.

    Raises:
        ServerUnavailableError: it could not be asked in time.
        AddressRefusedError: the address is one not to connect to.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            return await pool.fetch_host_key(host, port)
    except AddressRefusedError:
        raise
    except (RemoteError, TimeoutError) as error:
        words = error.detail if isinstance(error, RemoteError) else f"no answer within {LOOK_S:g} s"
        raise ServerUnavailableError(f"The server's host key cannot be seen: {words}") from error


def check(shown: str, *, wanted_key: str | None, wanted_fingerprint: str | None) -> None:
    """Nothing, where the key that is shown is the one that is wanted.

    Raises:
        FieldError: it is another, or none was given; the error says what the server shows.
    """
    seen = fingerprint(shown)
    if wanted_key is None and wanted_fingerprint is None:
        raise _refused(
            "fingerprint",
            f"The server shows {seen}. Compare it on the server (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
            "then send it as `fingerprint`.",
            "fingerprint_required",
            seen,
        )
    other = f"The server shows {seen}, which is another key; it was not pinned."
    if wanted_key is not None and wanted_key != shown:
        raise _refused("host_key", other, "host_key_differs", seen)
    if wanted_fingerprint is not None and wanted_fingerprint.rstrip("=") != seen.rstrip("="):
        raise _refused("fingerprint", other, "host_key_differs", seen)


def _refused(field: str, detail: str, code: str, seen: str) -> FieldError:
    error = FieldError(field, detail, code=code)
    error.meta["shown"] = seen
    return error


async def pin(session: AsyncSession, server_id: int, shown: str, *, seen_at: tuple[str, int]) -> Server:
    """The server with this key as the only one it may show; it may be spoken to again.

    Args:
        seen_at: the host and port that showed the key.

    Raises:
        ServerNotFoundError: there is none.
        ServerUnavailableError: its address has changed since.
    """
    server = await servers.get_server(session, server_id, lock=True)
    if (server.host, server.port) != seen_at:
        raise ServerUnavailableError("The server's address has just changed; look at its key again.")
    server.host_key, server.host_key_changed = shown, False
    server.reachable, server.seen_at = True, func.clock_timestamp()
    await session.flush()
    await session.refresh(server)
    return server
