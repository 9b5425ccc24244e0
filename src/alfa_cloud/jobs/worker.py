"""The worker process: an arq worker that starts operations, and what lives beside it.

arq's job ends with the claim; the operation runs in a task of its own. So an outage of Redis, which ends arq's loop,
leaves the operations that run alone, and what arq remembers of a dead worker's job is soon forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from arq.connections import ArqRedis, create_pool
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.exceptions import RedisError

from alfa_cloud import broker as bell
from alfa_cloud.broker import Broker
from alfa_cloud.config import Settings, networks
from alfa_cloud.db import make_engine, make_session_factory
from alfa_cloud.jobs import periodic, probing
from alfa_cloud.jobs.failpoint import Failpoint
from alfa_cloud.jobs.operation import Attempt, Engine, Limits, run_operation
from alfa_cloud.jobs.reconciler import reconcile_forever
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.session import SshHost
from alfa_cloud.services import identity
from alfa_cloud.services.plans.plan import Site
from alfa_cloud.telemetry import configure_logging
from alfa_cloud.vault import Vault

log = structlog.get_logger()

JOB_TIMEOUT_S: Final = 20
"""A job only claims and starts: where its worker dies before the claim, arq holds its id back this long and 10 s."""
RESTART_S: Final = 1.0
STOP_S: Final = 20.0


class Operations:
    """The operations that this process runs, each in a task of its own."""

    def __init__(self, engine: Engine, slots: int) -> None:
        self._engine = engine
        self._slots = slots
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    async def start(self, operation_id: UUID) -> None:
        """Claim an operation and let it run; nothing where it cannot start now, or where all slots are taken."""
        if operation_id in self._tasks or len(self._tasks) >= self._slots:
            return
        claimed = asyncio.Event()
        task = asyncio.create_task(run_operation(self._engine, operation_id, claimed), name=f"run {operation_id}")
        self._tasks[operation_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation_id, None))
        waiting = asyncio.create_task(claimed.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def stop(self) -> None:
        """Give every lease back; what runs detached on a server goes on there."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*tasks, return_exceptions=True)


async def start_operation(ctx: dict[str, Any], operation_id: Any) -> None:
    """arq's job: whatever Redis holds, only an operation that the database knows is run."""
    try:
        known = UUID(operation_id)
    except (ValueError, TypeError, AttributeError):
        log.warning("forged_job_ignored", job_id=ctx.get("job_id"))
        return
    operations: Operations = ctx["operations"]
    await operations.start(known)


async def main(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then give every lease back."""
    configure_logging(settings.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with worker_engine(settings) as (engine, pool):
        operations = Operations(engine, settings.worker_slots)
        beside = [
            asyncio.create_task(
                reconcile_forever(engine.sessions, engine.broker, engine.worker, settings.reconcile_s),
                name="reconciler",
            ),
            asyncio.create_task(periodic.run_forever(engine.sessions, pool, settings), name="periodic"),
            asyncio.create_task(_serve(settings, operations), name="arq"),
        ]
        log.info("worker_started", worker=engine.worker)
        await _first(asyncio.create_task(stop.wait()), *beside)
        for task in beside:
            task.cancel()
        await operations.stop()
        await asyncio.gather(*beside, return_exceptions=True)
    log.info("worker_stopped")


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait for the first of them to end; its error, if any, is raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


@asynccontextmanager
async def worker_engine(settings: Settings) -> AsyncIterator[tuple[Engine, SshPool]]:
    """All that operations take to run, from the settings; closed at the end."""
    database = make_engine(settings.database_url, pool_size=settings.worker_slots + 8)
    sessions = make_session_factory(database)
    broker = Broker(settings.redis_url)
    vault = Vault([key.get_secret_value() for key in settings.secret_key])
    async with sessions() as session:
        private_key = await identity.private_key(session, vault)
    pool = SshPool(
        private_key,
        connect_timeout_s=settings.connect_timeout_s,
        allowed_networks=networks(settings.server_networks),
    )
    engine = Engine(
        worker=f"{socket.gethostname()}:{os.getpid()}",
        sessions=sessions,
        broker=broker,
        vault=vault,
        profile=settings.profile,
        limits=Limits(
            settings.lease_s,
            settings.heartbeat_s,
            settings.retry_delays_s,
            settings.log_lines,
            settings.log_bytes,
            Failpoint.parse(settings.failpoint),
        ),
        open_host=partial(open_host, pool),
        probe=lambda client_id: probing.probe_clients(sessions, pool, client_id),
    )
    try:
        yield engine, pool
    finally:
        await pool.close()
        await broker.close()
        await database.dispose()


def open_host(pool: SshPool, site: Site, attempt: Attempt) -> Host:
    """A live host for a claimed operation."""
    return SshHost(
        pool,
        site.address,
        site.layout,
        sink=attempt.journal,
        operation_dir=site.layout.operation_dir(str(attempt.claim.operation_id)),
        fence=attempt.claim.fence,
        masker=attempt.masker,
        guard=attempt.lease.check,
        begun=attempt.begun,
    )


async def _serve(settings: Settings, operations: Operations) -> None:
    """arq's loop, started again whenever Redis ends it."""
    while True:
        try:
            await _serve_once(settings, operations)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("redis_lost", error=repr(error))
        await asyncio.sleep(RESTART_S)


async def _serve_once(settings: Settings, operations: Operations) -> None:
    pool = await create_pool(
        bell.redis_settings(settings.redis_url),
        job_serializer=bell.dumps,
        job_deserializer=bell.loads,
        default_queue_name=bell.QUEUE,
        expires_extra_ms=bell.EXPIRES_MS,
    )
    worker = ArqWorker(
        functions=[func(start_operation, name=bell.JOB, max_tries=1_000_000)],
        redis_pool=pool,
        queue_name=bell.QUEUE,
        ctx={"operations": operations},
        max_jobs=settings.worker_slots,
        job_timeout=JOB_TIMEOUT_S,
        poll_delay=settings.poll_delay_s,
        keep_result=0,
        handle_signals=False,
        job_serializer=bell.dumps,
        job_deserializer=bell.loads,
        expires_extra_ms=bell.EXPIRES_MS,
    )
    hear = asyncio.create_task(_poll_at_the_bell(worker, pool), name="bell")
    try:
        await _first(asyncio.create_task(worker.async_run(), name="arq loop"), hear)
    finally:
        hear.cancel()
        await asyncio.gather(hear, return_exceptions=True)
        await _close(worker)


async def _poll_at_the_bell(worker: ArqWorker, pool: ArqRedis) -> None:
    """Look at the queue as soon as somebody rings, not only every poll delay."""
    async with pool.pubsub() as channel:
        await channel.subscribe(bell.BELL)
        async for message in channel.listen():
            if message["type"] == "message":
                await worker._poll_iteration()


async def _close(worker: ArqWorker) -> None:
    """End arq's own tasks; the operations that they started go on."""
    if worker.main_task is not None:
        worker.main_task.cancel()
        await asyncio.gather(worker.main_task, return_exceptions=True)
    tasks = list(worker.tasks.values())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with suppress(RedisError, OSError):
        await worker.pool.aclose(close_connection_pool=True)


logging.getLogger("arq").setLevel(logging.WARNING)
