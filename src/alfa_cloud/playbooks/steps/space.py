"""Room on a server."""

from __future__ import annotations

from alfa_cloud.remote import requirements
from alfa_cloud.remote.host import Host


async def free_bytes(host: Host, path: str) -> int:
    """How much can be written where `path` is.

    Raises:
        CommandFailedError: the server does not say it.
    """
    return requirements.parse_free_bytes((await host.run(requirements.free_space(path))).text)
