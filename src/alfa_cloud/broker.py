"""The bell: a job in Redis is an operation's id in JSON, and nothing else. Losing it loses nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final
from uuid import UUID

import structlog
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

log = structlog.get_logger()

QUEUE: Final = "alfa:operations"
BELL: Final = "alfa:bell"
"""A message here makes idle workers look at the queue at once."""
JOB: Final = "run_operation"
EXPIRES_MS: Final = 7 * 24 * 3600 * 1000


def dumps(value: dict[str, Any]) -> bytes:
    """A job as JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def loads(raw: bytes) -> dict[str, Any]:
    """A job from JSON; anything else raises ValueError."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("a job is a JSON object")
    return value


def redis_settings(url: str) -> RedisSettings:
    """How to reach Redis; a short outage is tried again."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_timeout = 2
    settings.conn_retries = 0
    settings.retry_on_timeout = True
    settings.retry_on_error = [RedisConnectionError, RedisTimeoutError, ConnectionRefusedError]
    settings.retry = Retry(ConstantBackoff(0.1), 2)
    return settings


class Broker:
    """Rings for operations; it connects when it is first needed, and again after an outage."""

    def __init__(self, url: str) -> None:
        self._settings = redis_settings(url)
        self._pool: ArqRedis | None = None
        self._lock = asyncio.Lock()

    async def wake(self, operation_id: UUID, attempt: int = 0) -> bool:
        """Ring for an operation that has been tried `attempt` times; False where Redis is away."""
        try:
            async with asyncio.timeout(5):
                pool = await self._connected()
                await pool.enqueue_job(JOB, str(operation_id), _job_id=f"{operation_id}:{attempt + 1}")
                await pool.publish(BELL, b"1")
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("bell_not_rung", operation_id=str(operation_id), error=repr(error))
            return False
        return True

    async def is_there(self) -> bool:
        """Whether Redis answers."""
        try:
            async with asyncio.timeout(2):
                await (await self._connected()).ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.aclose(close_connection_pool=True)

    async def _connected(self) -> ArqRedis:
        async with self._lock:
            if self._pool is None:
                self._pool = await create_pool(
                    self._settings,
                    job_serializer=dumps,
                    job_deserializer=loads,
                    default_queue_name=QUEUE,
                    expires_extra_ms=EXPIRES_MS,
                )
            return self._pool
