"""Failed logins slow down, by address and in all; `docs/decisions/` says who gets through meanwhile, and why.

Processes count together in Redis. While that is away, each counts for itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from typing import Final, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from alfa_cloud.api.jsonapi.errors import Problem, RequestError
from alfa_cloud.api.peer import Address

log = structlog.get_logger()

REDIS_TIMEOUT_S: Final = 1.0
REDIS_AWAY_S: Final = 5.0
"""So long nobody asks a Redis that did not answer."""
HERE_S: Final = 60.0
HOME_S: Final = 30 * 24 * 3600
REFUSED_KEPT: Final = 1000

_PREFIX: Final = "alfa:login:"
_ALL: Final = "all"
_POOL: Final = 16

# A bucket is one moment: when it will be full again (the generic cell rate algorithm). All are taken from, or none.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full, waits, free = {}, {}, true
for i, key in ipairs(KEYS) do
  local tries, pause = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  full[i] = math.max(tonumber(redis.call('GET', key) or now), now) + pause
  waits[i] = math.max(full[i] - tries * pause - now, 0)
  free = free and waits[i] == 0
end
if free then
  for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', full[i]), 'PX', full[i] - now)
  end
end
return waits
"""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Bucket:
    """So many tries at once, and one more after each pause."""

    tries: int
    pause_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The tries of one address, and those of all that are not known."""

    address: Bucket = Bucket(10, 30.0)
    everyone: Bucket = Bucket(50, 1.0)


def visitor_of(address: Address) -> str:
    """What is counted as one address: an IPv4 address, or the /64 that one IPv6 customer has."""
    return str(address) if isinstance(address, IPv4Address) else str(ip_network((address, 64), strict=False))


def too_many(wait_s: float) -> RequestError:
    """429, and when the next try counts."""
    seconds = max(1, math.ceil(wait_s))
    detail = f"Too many failed logins; the next one is looked at in {seconds} s."
    problem = Problem(429, "too_many_logins", "Too many failed logins", detail, meta={"retry_after_s": seconds})
    return RequestError(problem, headers={"Retry-After": str(seconds)})


class Throttle:
    """Who may try a login now.

    Args:
        redis_url: None to count in this process alone.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        redis_url: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or Limits()
        self._clock = clock
        self._own = _OwnBuckets(clock)
        self._shared = None if redis_url is None else _SharedBuckets(redis_url)
        self._away_until = -math.inf
        self._told: dict[str, float] = {}
        self._homes: dict[str, float] = {}
        self._refused: dict[bytes, float] = {}

    def is_here(self, visitor: str) -> bool:
        """Whether the right login came from there less than a minute ago."""
        return self._homes.get(visitor, -math.inf) + HERE_S > self._clock()

    def stays(self, visitor: str) -> None:
        """The right login came from there once more."""
        self._homes[visitor] = self._clock()

    def told(self, visitor: str) -> float:
        """How long a visitor has still to wait of what he was told."""
        return self._left(_guesses(visitor))

    async def try_login(self, visitor: str, *, known: bool = False) -> float:
        """Take one try; else the seconds to wait.

        Args:
            known: the login was found right lately, so that nothing needs hashing: only the address counts.
        """
        wanted = {_guesses(visitor): self._limits.address}
        if wait_s := self.told(visitor):
            return wait_s
        if not known and not await self._is_home(visitor):
            wanted[_ALL] = self._limits.everyone
        return await self._take(wanted)

    async def try_again(self, visitor: str) -> float:
        """Take one repeat of a login that is known to be wrong; else the seconds to wait.

        Repeats guess nothing, so they cost the visitor none of his tries.
        """
        return await self._take({_repeats(visitor): self._limits.address})

    async def welcome(self, visitor: str) -> None:
        """The right login came from there: earlier failures count no more, and the address is known from now on."""
        keys = (_guesses(visitor), _repeats(visitor))
        self.stays(visitor)
        self._own.fill(keys)
        for key in keys:
            self._told.pop(key, None)
        await self._ask(lambda shared: shared.welcome(keys, _home(visitor)), lambda: None)

    def refuse(self, mark: bytes) -> None:
        """A login that was hashed and is wrong needs no second hash for a while."""
        now = self._clock()
        if len(self._refused) >= REFUSED_KEPT:
            self._refused = {mark: until for mark, until in self._refused.items() if until > now}
        if len(self._refused) < REFUSED_KEPT:
            self._refused[mark] = now + HERE_S

    def was_refused(self, mark: bytes) -> bool:
        """Whether this very login was found wrong lately, under the credential of now."""
        return self._refused.get(mark, -math.inf) > self._clock()

    async def close(self) -> None:
        """Close the connections."""
        if self._shared is not None:
            await self._shared.close()

    def _left(self, key: str) -> float:
        return max(0.0, self._told.get(key, -math.inf) - self._clock())

    async def _is_home(self, visitor: str) -> bool:
        if visitor in self._homes:
            return True
        return await self._ask(lambda shared: shared.has(_home(visitor)), lambda: False)

    async def _take(self, wanted: Mapping[str, Bucket]) -> float:
        if wait_s := max(map(self._left, wanted)):
            return wait_s
        waits = await self._ask(lambda shared: shared.take(wanted), lambda: self._own.take(wanted))
        now = self._clock()
        self._told = {key: until for key, until in self._told.items() if until > now}
        self._told |= {key: now + wait_s for key, wait_s in waits.items() if wait_s > 0}
        if wait_s := max(waits.values()):
            log.warning("logins_throttled", buckets=sorted(waits), wait_s=wait_s)
        return wait_s

    async def _ask(self, ask: Callable[[_SharedBuckets], Awaitable[ResultT]], alone: Callable[[], ResultT]) -> ResultT:
        """What all processes know; what this one knows, while Redis is away."""
        if self._shared is not None and self._clock() >= self._away_until:
            try:
                async with asyncio.timeout(REDIS_TIMEOUT_S):
                    return await ask(self._shared)
            except (RedisError, OSError, TimeoutError) as error:
                self._away_until = self._clock() + REDIS_AWAY_S
                log.warning("throttle_alone", error=repr(error))
        return alone()


def _guesses(visitor: str) -> str:
    return f"guesses:{visitor}"


def _repeats(visitor: str) -> str:
    return f"repeats:{visitor}"


def _home(visitor: str) -> str:
    return f"home:{visitor}"


class _OwnBuckets:
    """The buckets of one process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def take(self, wanted: Mapping[str, Bucket]) -> dict[str, float]:
        """How long to wait for each; one is taken of every bucket where that is nothing for all."""
        now = self._clock()
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        full = {key: self._full_at.get(key, now) + bucket.pause_s for key, bucket in wanted.items()}
        waits = {key: max(0.0, full[key] - bucket.tries * bucket.pause_s - now) for key, bucket in wanted.items()}
        if not any(waits.values()):
            self._full_at |= full
        return waits

    def fill(self, keys: tuple[str, ...]) -> None:
        """They are full."""
        for key in keys:
            self._full_at.pop(key, None)


class _SharedBuckets:
    """The same in Redis, by its clock, for all processes."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_POOL,
            timeout=REDIS_TIMEOUT_S,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
        )
        self._redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(_TAKE)

    async def take(self, wanted: Mapping[str, Bucket]) -> dict[str, float]:
        sizes = [(bucket.tries, max(1, round(bucket.pause_s * 1000))) for bucket in wanted.values()]
        waits_ms = await self._script(keys=[_PREFIX + key for key in wanted], args=[n for size in sizes for n in size])
        return {key: wait_ms / 1000 for key, wait_ms in zip(wanted, waits_ms, strict=True)}

    async def has(self, key: str) -> bool:
        return bool(await self._redis.exists(_PREFIX + key))

    async def welcome(self, keys: tuple[str, ...], home: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(*(_PREFIX + key for key in keys))
            pipe.set(_PREFIX + home, 1, ex=HOME_S)
            await pipe.execute()

    async def close(self) -> None:
        await self._redis.aclose()
