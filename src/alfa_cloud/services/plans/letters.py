"""Plans of letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientNotFoundError, ServerNotFoundError
from alfa_cloud.mail.message import Letter, LetterContext, LetterKind, render
from alfa_cloud.models import Client, Operation, Server
from alfa_cloud.playbooks.letters import say_nothing, send_letter, send_new_password
from alfa_cloud.playbooks.steps.letters import Envelope, SendLetter
from alfa_cloud.services import expiry, letters, operations
from alfa_cloud.services.client_specs import client_secrets, client_spec
from alfa_cloud.services.plans.clients import subject_of
from alfa_cloud.services.plans.plan import Maker, Plan, Tools, Work
from alfa_cloud.specs import ClientSpec, OperationKind, Secret

SHOWN: Final = Secret("●●●●●●●●")
"""What a preview shows of a password."""


async def send_success(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The letter that the cloud is ready has left: with the password while it is kept, or with a new one."""
    client, spec = await _client_of(session, work, tools)
    new = bool(work.params.get("new_password"))
    if new:
        password: Secret | None = letters.new_password_of(_operation_id(work), tools.vault)
    else:
        password = client_secrets(client, tools.vault).owner_password
    context = LetterContext(
        title=client.title,
        url=spec.url,
        login=client.owner_login,
        password=password,
        set_password_url="" if password else _set_password_url(spec),
        contact=tools.profile.mail.contact,
    )
    kept = {} if new or password is None else {"password_mark": letters.password_mark(client)}
    step, extra = await _letter(session, work, tools, client, kind=LetterKind.SUCCESS, context=context, facts=kept)
    if new and password is not None:
        found = await subject_of(session, work, tools)
        plan = found.plan(send_new_password(found.spec, password, step), work)
        return replace(plan, secrets=(*plan.secrets, *_hidden(step, context)), extra=extra)
    return Plan(send_letter(step), None, _hidden(step, context), extra)


async def send_expire(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The letter about the last day has left; one that the calendar asked for leaves only while it is true."""
    client, spec = await _client_of(session, work, tools)
    day = expiry.today(await operations.database_now(session), tools.profile.zone)
    last = client.expire_date
    told = work.params.get("expire_date")
    if last is None or (told is not None and told != last.isoformat()):
        return Plan(say_nothing("No letter: the last day was changed meanwhile"), None)
    over = expiry.is_over(last, day)
    if told is not None and over != (work.params.get("days") == 0):
        return Plan(say_nothing("No letter: it would come too late"), None)
    context = LetterContext(
        title=client.title,
        url=spec.url,
        login=client.owner_login,
        expire_date=last,
        days_left=None if over else (last - day).days,
        contact=tools.profile.mail.contact,
    )
    kind = LetterKind.EXPIRED if over else LetterKind.EXPIRE
    step, extra = await _letter(session, work, tools, client, kind=kind, context=context, facts={})
    return Plan(send_letter(step), None, _hidden(step, context), extra)


async def _letter(
    session: AsyncSession,
    work: Work,
    tools: Tools,
    client: Client,
    *,
    kind: LetterKind,
    context: LetterContext,
    facts: Mapping[str, Any],
) -> tuple[SendLetter, dict[str, object]]:
    """The step that sends a letter, and how it will look, but for the password."""
    mail = tools.profile.mail
    operation = await session.get_one(Operation, _operation_id(work))
    envelope = Envelope(
        _render(kind, client, context, tools),
        letters.smtp_address(mail),
        mail.sender,
        client.email,
        await letters.message_id(session, operation),
        mail.delays_s,
    )
    shown = _render(kind, client, replace(context, password=SHOWN if context.password else None), tools)
    extra = {"subject": shown.subject, "html": shown.html, "text": shown.text, "recipient": client.email}
    sent_at = str((operation.result or {}).get("sent_at", ""))
    return SendLetter(envelope, sent_at, facts), dict(extra)


def _render(kind: LetterKind, client: Client, context: LetterContext, tools: Tools) -> Letter:
    folder = tools.profile.mail.templates
    return render(kind, client.locale, context, templates=Path(folder) if folder else None)


async def _client_of(session: AsyncSession, work: Work, tools: Tools) -> tuple[Client, ClientSpec]:
    client = None if work.client_id is None else await session.get(Client, work.client_id)
    if client is None:
        raise ClientNotFoundError(f"The operation's client {work.client_id} is gone.")
    server = await session.get(Server, client.server_id)
    if server is None:
        raise ServerNotFoundError(f"The client's server {client.server_id} is gone.")
    return client, client_spec(client, server, tools.profile.app)


def _operation_id(work: Work) -> Any:
    if work.operation_id is None:
        raise ValueError("a letter needs its operation")
    return work.operation_id


def _set_password_url(spec: ClientSpec) -> str:
    return f"{spec.url}{spec.app.new_password_path}" if spec.app.new_password_path else ""


def _hidden(step: SendLetter, context: LetterContext) -> tuple[Secret, ...]:
    """What must not be seen in the log."""
    found = (context.password, step.envelope.address.password)
    return tuple(secret for secret in found if secret is not None)


MAKERS: Final[Mapping[OperationKind, Maker]] = {
    OperationKind.SEND_SUCCESS: send_success,
    OperationKind.SEND_EXPIRE: send_expire,
}
