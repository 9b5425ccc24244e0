"""What happens in the database, told to the coroutines of this process that wait for it.

One connection listens for all of them. After a lost connection every waiter is woken, and looks for itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy.engine import make_url

log = structlog.get_logger()

LOG_CHANNEL: Final = "alfa_log"
"""An operation's id, whenever lines or steps of it were written."""
STATE_CHANNEL: Final = "alfa_state"
"""An operation's id, whenever its state changed."""
RECONNECT_S: Final = 1.0
KEEP_ALIVE_S: Final = 20.0


class Listener:
    """The listening connection of a process; `run()` it as a task."""

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url).set(drivername="postgresql")
        self._dsn = url.render_as_string(hide_password=False)
        self._waiters: dict[UUID | None, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen from now on, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="listener")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @asynccontextmanager
    async def watch(self, operation_id: UUID | None = None) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever something happens to an operation (None: to any operation's state).

        Look at the state after entering, and again each time it was set (and cleared by you).
        """
        event = asyncio.Event()
        self._waiters[operation_id].add(event)
        try:
            yield event
        finally:
            self._waiters[operation_id].discard(event)
            if not self._waiters[operation_id]:
                del self._waiters[operation_id]

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("listener_reconnects", error=repr(error))
            self._wake_all()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=10)
        try:
            await connection.add_listener(LOG_CHANNEL, self._heard)
            await connection.add_listener(STATE_CHANNEL, self._heard)
            self._wake_all()
            while not connection.is_closed():
                await asyncio.sleep(KEEP_ALIVE_S)
                await connection.execute("SELECT 1", timeout=10)
        finally:
            connection.terminate()

    def _heard(self, _connection: Any, _pid: int, channel: str, payload: str) -> None:
        for event in self._waiters.get(UUID(payload), ()):
            event.set()
        if channel == STATE_CHANNEL:
            for event in self._waiters.get(None, ()):
                event.set()

    def _wake_all(self) -> None:
        for events in self._waiters.values():
            for event in events:
                event.set()


async def wait_set(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event was set in time; it is cleared."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
