"""Letters to laboratories: when one may be sent, and how it becomes an operation."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid6 import uuid7

from alfa_cloud.errors import ClientStateError, ConflictError
from alfa_cloud.mail.address import SmtpAddress
from alfa_cloud.models import Client, Operation
from alfa_cloud.profile import MailProfile
from alfa_cloud.services import client_commands, operations
from alfa_cloud.services.clients import get_client
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import OperationKind, Secret, fingerprint
from alfa_cloud.vault import Vault

LETTERS: Final = (OperationKind.SEND_SUCCESS, OperationKind.SEND_EXPIRE)
DEADLINE_S: Final = 3 * 3600
NEW_PASSWORD_LENGTH: Final = 20
LETTERS_AN_HOUR: Final = 10
"""To one client, asked for by people."""


class MailNotConfiguredError(ConflictError):
    """The settings do not say how letters leave."""

    code = "mail_not_configured"
    title = "Letters cannot be sent"


def smtp_address(mail: MailProfile) -> SmtpAddress:
    """Where letters are handed over.

    Raises:
        MailNotConfiguredError: the settings do not say it; the message names the one to mend.
    """
    if not mail.smtp_url.reveal():
        raise MailNotConfiguredError("No mail server is set: ALFA_SMTP_URL, such as smtps://USER:PASSWORD@HOST.")
    if not mail.sender:
        raise MailNotConfiguredError("No sender is set: ALFA_MAIL_FROM, an address or Name <address>.")
    try:
        return SmtpAddress.parse(mail.smtp_url.reveal())
    except ValueError as error:
        raise MailNotConfiguredError(f"ALFA_SMTP_URL is wrong: {error}.") from None


class TooManyLettersError(ConflictError):
    """The laboratory was written to often enough."""

    code = "too_many_letters"
    title = "Too many letters"


def is_configured(mail: MailProfile) -> bool:
    """Whether letters can be sent."""
    return bool(mail.smtp_url.reveal() and mail.sender)


async def request(
    session: AsyncSession,
    client_id: int,
    kind: OperationKind,
    caller: Caller,
    mail: MailProfile,
    *,
    new_password: bool = False,
) -> Operation:
    """The operation that sends a letter; with a new password it is set on the client's server first.

    Raises:
        ClientNotFoundError: there is none.
        ClientStateError: it is not allowed now.
        MailNotConfiguredError: the settings do not say how letters leave.
        TooManyLettersError: there were many within the hour.
    """
    client = await get_client(session, client_id, lock=True)
    reason = client_commands.why_not(client, kind)
    if reason is not None:
        raise ClientStateError(reason)
    smtp_address(mail)
    await _check_often(session, client)
    operation, _ = await operations.request(
        session,
        kind,
        caller,
        client_id=client.id,
        server_id=client.server_id if new_password else None,
        params={"new_password": True} if new_password else {},
        locks_client=new_password,
        deadline_s=DEADLINE_S,
    )
    return operation


async def _check_often(session: AsyncSession, client: Client) -> None:
    an_hour = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 1)
    query = select(func.count()).where(
        Operation.client_id == client.id, Operation.kind.in_(LETTERS), Operation.created_at > an_hour
    )
    if (await session.scalar(query) or 0) >= LETTERS_AN_HOUR:
        raise TooManyLettersError(f"{client.name} got {LETTERS_AN_HOUR} letters within the hour; wait a little.")


def automatic(
    kind: OperationKind, client_id: int, params: dict[str, Any], *, retry_of: UUID | None = None
) -> Operation:
    """A queued operation that sends a letter which nobody asked for; the caller adds it to a session."""
    return Operation(
        id=uuid7(),
        kind=kind,
        client_id=client_id,
        params=params,
        retry_of=retry_of,
        locks_client=False,
        equal_key=fingerprint([kind, client_id, None, params]),
        deadline_s=DEADLINE_S,
    )


def password_mark(client: Client) -> str | None:
    """Which password is kept for the first letter, in a word that says nothing of it; None where none is."""
    return None if client.owner_password is None else fingerprint(client.owner_password.hex())


def new_password_of(operation_id: UUID, vault: Vault) -> Secret:
    """The password that an operation sets: the same in each of its attempts, and kept nowhere."""
    data = f"the new password of operation {operation_id}".encode()
    return Secret(vault.digest(data).hex()[:NEW_PASSWORD_LENGTH])


async def message_id(session: AsyncSession, operation: Operation) -> str:
    """A letter's own id: a retry of its operation sends it with the same one."""
    chain = select(Operation.id, Operation.retry_of).where(Operation.id == operation.id).cte(recursive=True)
    chain = chain.union_all(
        select(Operation.id, Operation.retry_of).join_from(chain, Operation, Operation.id == chain.c.retry_of)
    )
    return str(await session.scalar(select(chain.c.id).where(chain.c.retry_of.is_(None))) or operation.id)
