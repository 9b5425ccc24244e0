"""The step that hands a letter over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from alfa_cloud.errors import MailServerError, StepFailedError
from alfa_cloud.mail.address import SmtpAddress
from alfa_cloud.mail.message import Letter, compose
from alfa_cloud.mail.sender import send
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.remote.host import Host


@dataclass(frozen=True, slots=True)
class Envelope:
    """A letter, and its way.

    Args:
        message_id: the same for every repeat of the letter.
        delays_s: before each try, while the mail server takes none.
    """

    letter: Letter = field(repr=False)
    address: SmtpAddress = field(repr=False)
    sender: str
    recipient: str
    message_id: str
    delays_s: tuple[float, ...] = (0,)


@dataclass(slots=True)
class SendLetter(Step):
    """The mail server has taken the letter over.

    It cannot be looked for there: that it was taken is kept in the operation's result, at once.

    Args:
        sent_at: when an earlier attempt of this operation handed it over; empty where none did.
        facts: what is kept in the result together with it.
    """

    stoppable: ClassVar[bool] = True
    envelope: Envelope
    sent_at: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"Letter to {self.envelope.recipient}"

    async def is_satisfied(self, host: Host) -> bool:
        return bool(self.sent_at)

    async def apply(self, host: Host) -> None:
        delays_s = self.envelope.delays_s
        for number, delay_s in enumerate(delays_s, 1):
            await asyncio.sleep(delay_s)
            try:
                await self._hand_over(host)
                return
            except MailServerError as error:
                reason = error.detail
            if number < len(delays_s):
                await host.note(f"{reason} Trying again in {delays_s[number]:g} s.")
        raise StepFailedError(
            f"{reason} It was tried {len(delays_s)} times; retry when the mail server works.", code=MailServerError.code
        )

    async def _hand_over(self, host: Host) -> None:
        way, now = self.envelope, datetime.now(UTC)
        message = compose(
            way.letter, sender=way.sender, recipient=way.recipient, message_id=way.message_id, sent_at=now
        )
        await send(way.address, message, log=host.note)
        self.sent_at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
        await host.report(sent_at=self.sent_at, message_id=str(message["Message-ID"]), **self.facts)
