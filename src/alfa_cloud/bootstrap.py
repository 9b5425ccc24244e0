"""What must be in the database before anything runs: its schema, the first administrator, the key for servers."""

from __future__ import annotations

import asyncio

from alfa_cloud import schema
from alfa_cloud.config import Settings
from alfa_cloud.db import make_engine, make_session_factory
from alfa_cloud.remote.keys import generate_key
from alfa_cloud.services import credentials, identity
from alfa_cloud.specs import Secret
from alfa_cloud.vault import Vault


def migrate(settings: Settings) -> None:
    """The database has the newest schema, an administrator where one is set, and this service's key pair."""
    schema.upgrade(settings.database_url)
    asyncio.run(_fill(settings))


async def _fill(settings: Settings) -> None:
    vault = Vault([key.get_secret_value() for key in settings.secret_key])
    engine = make_engine(settings.database_url, pool_size=1)
    private_key, public_key = generate_key()
    try:
        async with make_session_factory(engine).begin() as session:
            await identity.bootstrap(session, vault, private_key, public_key)
            if settings.admin_login and settings.admin_password:
                password = Secret(settings.admin_password.get_secret_value())
                await credentials.bootstrap(session, settings.admin_login, password)
    finally:
        await engine.dispose()
