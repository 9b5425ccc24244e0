"""Waiting for something on a server to come about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from alfa_cloud.errors import AddressRefusedError, HostKeyChangedError, RemoteError

LOOK_EVERY_S: Final = 1.0


async def within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> bool:
    """Whether it comes to hold in this time; a server that cannot be asked meanwhile is asked again.

    Raises:
        HostKeyChangedError, AddressRefusedError: asking again will not help.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                if await _patient(holds):
                    return True
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        return False


async def _patient(holds: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await holds()
    except (HostKeyChangedError, AddressRefusedError):
        raise
    except RemoteError:
        return False
