"""The step that hands a letter over."""

from __future__ import annotations

import asyncio

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from alfa_cloud.errors import MailRefusedError, MailUncertainError, StepFailedError
from alfa_cloud.mail.address import SmtpAddress
from alfa_cloud.mail.message import Letter
from alfa_cloud.mail.wording import Language
from alfa_cloud.playbooks.playbook import PUT_OFF, PutOff
from alfa_cloud.playbooks.steps import letters
from alfa_cloud.playbooks.steps.letters import SendLetter
from tests.fakes import FakeHost


class Office:
    """A mail server that answers as told, and counts."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.letters: list[bytes] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a letter, or not; an empty reply is silence."""
        del session
        reply = self.replies.pop(0) if self.replies else "250 OK"
        if reply.startswith("2") or not reply:
            assert isinstance(envelope.content, bytes)
            self.letters.append(envelope.content)
        if not reply:
            assert server.transport is not None
            server.transport.close()
        return reply or "250 OK"


async def send(office: Office, *delays_s: float) -> tuple[SendLetter, FakeHost]:
    """A letter goes to this mail server."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(office, hostname="localhost"), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    letter = Letter("Готово", "<p>Готово</p>", "Готово", Language.RU)
    address = SmtpAddress.parse(f"smtp://127.0.0.1:{port}")
    envelope = letters.Envelope(letter, address, "cloud@example.org", "lab@example.org", "0192-a", delays_s or (0,))
    step, host = SendLetter(envelope, facts={"password_mark": "x"}), FakeHost()
    try:
        while not await step.is_satisfied(host):
            try:
                await step.apply(host)
            except PutOff as later:
                host.facts[PUT_OFF] = host.facts.get(PUT_OFF, 0) + 1
                host.notes.append(f"put off for {later.after_s:g} s: {later.reason}")
    finally:
        server.close()
    return step, host


async def test_what_the_server_has_taken_is_known_at_once() -> None:
    office = Office("450 Later")
    step, host = await send(office, 0, 0.1)
    assert await step.is_satisfied(host)
    assert host.facts == {
        "sent_at": step.sent_at,
        "message_id": "<0192-a@example.org>",
        "password_mark": "x",
        PUT_OFF: 1,
    }
    assert len(office.letters) == 1
    assert any(note.startswith("< 450 Later") for note in host.notes)
    assert any(note.startswith("put off for 0.1 s") for note in host.notes)


async def test_an_earlier_attempt_sent_it() -> None:
    envelope = letters.Envelope(
        Letter("s", "h", "t", Language.RU), SmtpAddress("h", 25), "a@example.org", "b@example.org", "id"
    )
    assert await SendLetter(envelope, "2026-11-22T09:00:00Z").is_satisfied(FakeHost())


async def test_patience_has_an_end() -> None:
    office = Office(*["451 Later"] * 5)
    with pytest.raises(StepFailedError, match="tried 3 times") as caught:
        await send(office, 0, 0, 0)
    assert (caught.value.step_code, len(office.replies)) == ("mail_server", 2)


async def test_it_is_put_off_by_each_delay_in_turn() -> None:
    office = Office(*["451 Later"] * 2)
    _, host = await send(office, 7, 30, 120)
    assert [note.split(":")[0] for note in host.notes if note.startswith("put off")] == [
        "put off for 7 s",
        "put off for 30 s",
        "put off for 120 s",
    ]
    assert len(office.letters) == 1


async def test_a_refusal_is_not_tried_again() -> None:
    office = Office("550 No", "250 OK")
    with pytest.raises(MailRefusedError):
        await send(office, 0, 0)
    assert office.letters == []


async def test_a_letter_that_may_have_arrived_is_not_sent_again_by_itself() -> None:
    office = Office("", "250 OK")
    with pytest.raises(MailUncertainError):
        await send(office, 0, 0)
    assert len(office.letters) == 1
