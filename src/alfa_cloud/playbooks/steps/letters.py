"""The step that hands a letter over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from alfa_cloud.errors import MailServerError, StepFailedError
from alfa_cloud.mail.address import SmtpAddress
from alfa_cloud.mail.message import Letter, compose
from alfa_cloud.mail.sender import send
from alfa_cloud.playbooks.playbook import PUT_OFF, PutOff, Step
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
        delays_s, put_off = self.envelope.delays_s, int(host.facts.get(PUT_OFF, 0))
        waits_first = delays_s[0] > 0
        if waits_first and not put_off:
            raise PutOff(delays_s[0], "Letters wait before they leave.")
        tried = put_off + 1 - waits_first
        try:
            await self._hand_over(host)
        except MailServerError as error:
            if tried < len(delays_s):
                raise PutOff(delays_s[tried], error.detail) from error
            raise StepFailedError(
                f"{error.detail} It was tried {tried} times; retry when the mail server works.", code=error.code
            ) from error

    async def _hand_over(self, host: Host) -> None:
        way, now = self.envelope, datetime.now(UTC)
        message = compose(
            way.letter, sender=way.sender, recipient=way.recipient, message_id=way.message_id, sent_at=now
        )
        await send(way.address, message, log=host.note)
        self.sent_at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
        await host.report(sent_at=self.sent_at, message_id=str(message["Message-ID"]), **self.facts)
