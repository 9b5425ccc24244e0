"""The lease of a claimed operation, kept alive by a heartbeat."""

from __future__ import annotations

import asyncio
import time

import structlog

from alfa_cloud.db import SessionFactory, database_is_away
from alfa_cloud.errors import LeaseLostError
from alfa_cloud.services import operations
from alfa_cloud.services.operations import Claim

log = structlog.get_logger()


class Lease:
    """This worker's right to work on one operation.

    The database's clock decides; the worker's own monotonic clock only ever ends the lease sooner: a worker that was
    stopped for a while (SIGSTOP, a sleeping machine) finds it ended before it issues another command.
    """

    def __init__(self, sessions: SessionFactory, claim: Claim, *, lease_s: float, heartbeat_s: float) -> None:
        self._sessions = sessions
        self._claim = claim
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._until = time.monotonic() + lease_s
        self.cancel_requested = asyncio.Event()
        if claim.cancel_requested:
            self.cancel_requested.set()

    def check(self) -> None:
        """Nothing, while the lease holds.

        Raises:
            LeaseLostError: it has ended.
        """
        if time.monotonic() >= self._until:
            raise LeaseLostError

    async def keep(self) -> None:
        """Renew the lease for ever.

        Raises:
            LeaseLostError: it was taken over, or could not be renewed in time.
        """
        while True:
            await asyncio.sleep(self._heartbeat_s)
            asked_at = time.monotonic()
            try:
                async with asyncio.timeout(max(0.1, self._until - asked_at)), self._sessions.begin() as session:
                    if await operations.renew(session, self._claim, self._lease_s):
                        self.cancel_requested.set()
                self._until = asked_at + self._lease_s
            except Exception as error:
                if not database_is_away(error):
                    raise
                log.warning("heartbeat_failed", operation_id=str(self._claim.operation_id), error=repr(error))
                self.check()
