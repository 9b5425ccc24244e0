"""The key pair that this service logs in to servers with."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models import SshIdentity
from alfa_cloud.specs import Secret
from alfa_cloud.vault import Vault

PLACE = "ssh_identities.private_key.1"


async def bootstrap(session: AsyncSession, vault: Vault, private_key: Secret, public_key: str) -> None:
    """There is a key pair: this one, if there was none."""
    row = {"id": 1, "public_key": public_key, "private_key": vault.seal(private_key, PLACE)}
    await session.execute(insert(SshIdentity).values(row).on_conflict_do_nothing())


async def public_key(session: AsyncSession) -> str:
    """The line for `authorized_keys`."""
    return (await session.scalars(select(SshIdentity.public_key))).one()


async def private_key(session: AsyncSession, vault: Vault) -> Secret:
    """The private key, in OpenSSH's format."""
    sealed = (await session.scalars(select(SshIdentity.private_key))).one()
    return vault.open(sealed, PLACE)
