"""The database: engine, sessions, and the base of all tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import asyncpg
from sqlalchemy import TIMESTAMP, MetaData, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

SessionFactory = async_sessionmaker[AsyncSession]

IDLE_S = 20
"""How long a transaction may ask nothing: a process that was stopped, or is out of reach, holds its locks no longer."""
TRANSACTION_S = 40
"""How long a transaction may last: who stops between a statement's preparation and its run is not idle for PostgreSQL.
"""

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """All tables; constraints have names by rule."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
    }


def asyncpg_url(url: str) -> str:
    """The same address for asyncpg, whichever of PostgreSQL's schemes it bears."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+asyncpg://" + url.removeprefix(scheme)
    return url


def make_engine(url: str, *, pool_size: int = 10) -> AsyncEngine:
    """An engine that hands out no connection which the database has closed.

    asyncpg hears of a closing by itself; SQLAlchemy's `pool_pre_ping` would ask three statements before each use.
    """
    server_settings = {
        "application_name": "alfa-cloud",
        "idle_in_transaction_session_timeout": f"{IDLE_S}s",
        "tcp_keepalives_idle": "20",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "4",
    }
    engine = create_async_engine(
        asyncpg_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,
        pool_timeout=10,
        connect_args={"timeout": 10, "command_timeout": 60, "server_settings": server_settings},
    )
    event.listen(engine.sync_engine, "connect", _limit_transactions)
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _limit_transactions(connection: Any, _: Any) -> None:
    """Let the database end long ones, where it can (PostgreSQL 17 and later)."""
    limit = f"set_config('transaction_timeout', '{TRANSACTION_S}s', false)"
    known = "current_setting('server_version_num')::int >= 170000"
    connection.run_async(lambda driver: driver.execute(f"SELECT {limit} WHERE {known}"))


def _refuse_closed(connection: Any, *_: Any) -> None:
    if connection.driver_connection.is_closed():
        raise DisconnectionError


class DatabaseAwayError(Exception):
    """The database could not be asked in the middle of something: it goes on where it was, once it is back."""


def database_is_away(error: BaseException) -> bool:
    """Whether an error says that the database cannot be reached now, and not that a statement is wrong."""
    if isinstance(error, DBAPIError):
        origin = error.orig.__cause__ if error.orig is not None else None
        return error.connection_invalidated or isinstance(error, InterfaceError) or isinstance(origin, AWAY)
    return isinstance(error, (*AWAY, OSError, PoolTimeoutError, DatabaseAwayError))


AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    # What asyncpg says where it has heard the server's last word, and not yet the closing.
    asyncpg.InternalClientError,
)


def make_session_factory(engine: AsyncEngine) -> SessionFactory:
    """Sessions whose objects stay readable after a commit."""
    return async_sessionmaker(engine, expire_on_commit=False)
