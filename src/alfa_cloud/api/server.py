"""The API process: the application with all that it holds, and the server in front of it."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from sqlalchemy import func, select

from alfa_cloud import config
from alfa_cloud.api.app import create_app
from alfa_cloud.api.health import ReadyCheck
from alfa_cloud.api.options import ApiOptions
from alfa_cloud.api.routes import (
    admin,
    backups,
    builds,
    client_commands,
    clients,
    container_log,
    demo,
    expiry,
    fleet,
    letters,
    metrics,
    moves,
    operations,
    server_commands,
    servers,
    switch,
)
from alfa_cloud.api.state import Services
from alfa_cloud.api.throttle import Bucket, Limits, Throttle
from alfa_cloud.broker import Broker
from alfa_cloud.config import Settings, networks
from alfa_cloud.db import SessionFactory, make_engine, make_session_factory
from alfa_cloud.events import Listener
from alfa_cloud.models import Worker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services import identity
from alfa_cloud.telemetry import configure_logging
from alfa_cloud.vault import Vault

ROUTERS: Final = (
    servers.router,
    server_commands.router,
    servers.images_router,
    builds.router,
    clients.router,
    client_commands.router,
    switch.router,
    expiry.router,
    letters.router,
    demo.router,
    container_log.router,
    fleet.router,
    operations.router,
    backups.router,
    moves.router,
    admin.router,
    metrics.router,
)
WORKER_SEEN_S: Final = 60
"""A worker that was heard of within this is alive."""


def options_of(settings: Settings) -> ApiOptions:
    """What the HTTP layer needs to know of the settings."""
    return ApiOptions(
        allowed_origins=settings.allowed_origins,
        allowed_networks=networks(settings.allowed_networks),
        trusted_proxies=networks(settings.trusted_proxies),
        public_url=settings.public_url,
        loopback_origins=settings.sandbox,
    )


def make_app(settings: Settings) -> FastAPI:
    """The application for these settings."""
    throttle = Throttle(limits_of(settings), settings.redis_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with resources(settings) as (services, broker):
            app.state.services = services
            app.state.session_factory = services.sessions
            app.state.broker = broker
            app.state.digest = services.vault.digest
            app.state.ready_checks = ready_checks(services.sessions, broker)
            settle()
            try:
                yield
            finally:
                await throttle.close()

    return create_app(options_of(settings), ROUTERS, lifespan=lifespan, throttle=throttle)


def limits_of(settings: Settings) -> Limits:
    """How many failed logins are looked at."""
    return Limits(
        address=Bucket(settings.login_tries, settings.login_pause_s),
        everyone=Bucket(settings.login_tries_all, settings.login_pause_all_s),
    )


def settle() -> None:
    """What start-up made is looked at by the garbage collector no more; it costs a tenth of a request otherwise."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@asynccontextmanager
async def resources(settings: Settings) -> AsyncIterator[tuple[Services, Broker]]:
    """All that endpoints use, closed at the end."""
    engine = make_engine(settings.database_url)
    sessions = make_session_factory(engine)
    vault = Vault([key.get_secret_value() for key in settings.secret_key])
    async with sessions() as session:
        private_key = await identity.private_key(session, vault)
    listener = Listener(settings.database_url)
    pool = SshPool(
        private_key,
        connect_timeout_s=settings.connect_timeout_s,
        allowed_networks=networks(settings.server_networks),
    )
    broker = Broker(settings.redis_url)
    await listener.start()
    try:
        yield Services(sessions, listener, pool, vault, settings.profile), broker
    finally:
        await listener.stop()
        await pool.close()
        await broker.close()
        await engine.dispose()


def ready_checks(sessions: SessionFactory, broker: Broker) -> dict[str, ReadyCheck]:
    """What must hold for operations to run: the database, the broker, a live worker."""

    async def database() -> bool:
        async with sessions() as session:
            return bool(await session.scalar(select(1)))

    async def worker() -> bool:
        since = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, WORKER_SEEN_S)
        async with sessions() as session:
            return await session.scalar(select(Worker.name).where(Worker.seen_at > since).limit(1)) is not None

    return {"database": database, "broker": broker.is_there, "worker": worker}


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document; it needs no settings."""
    return create_app(ApiOptions(allowed_origins=(), allowed_networks=()), ROUTERS).openapi()


def from_environment() -> FastAPI:
    """The application for the settings of the environment."""
    settings = config.load()
    configure_logging(settings.log_level)
    return make_app(settings)


def serve(host: str, port: int, processes: int) -> None:
    """Serve until SIGTERM or SIGINT; an open stream is given 5 s."""
    uvicorn.run(
        "alfa_cloud.api.server:from_environment",
        factory=True,
        host=host,
        port=port,
        workers=processes,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=1000,
    )
