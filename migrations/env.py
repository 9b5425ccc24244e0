"""Alembic's environment: the tables of `alfa_cloud.models`, over asyncpg."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import alfa_cloud.models  # noqa: F401  the tables
from alfa_cloud.db import Base, asyncpg_url


def run(connection: Connection) -> None:
    """Bring the database to the wanted revision, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=False,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    """Connect to the database that the caller named."""
    engine = create_async_engine(
        asyncpg_url(context.config.get_main_option("sqlalchemy.url") or ""),
        poolclass=NullPool,
    )
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


asyncio.run(main())
