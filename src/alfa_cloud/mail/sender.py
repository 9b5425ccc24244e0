"""The way to a mail server: a letter is handed over, and every line of the conversation is told."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.message import EmailMessage
from typing import Final, Literal

import aiosmtplib
from aiosmtplib.typing import Default

from alfa_cloud.errors import MailError, MailRefusedError, MailServerError, MailUncertainError
from alfa_cloud.mail.address import Encryption, SmtpAddress
from alfa_cloud.specs import Secret

Log = Callable[[str], Awaitable[None]]
"""Takes one line of the conversation: `> ` what we said, `< ` what the server answered."""

CONNECT_S: Final = 15.0
COMMAND_S: Final = 60.0
QUIT_S: Final = 5.0
MAX_REPLY: Final = 500
STARS: Final = "*****"


async def send(
    address: SmtpAddress,
    message: EmailMessage,
    *,
    log: Log,
    trust: ssl.SSLContext | None = None,
    connect_timeout_s: float = CONNECT_S,
    command_timeout_s: float = COMMAND_S,
) -> None:
    """The server has taken the letter over: one sender, one recipient, as the message's headers say.

    Args:
        log: gets the conversation line by line, without the letter and without the login.
        trust: whose certificates count; None is what this machine trusts.

    Raises:
        MailServerError: it was not taken, and may be later.
        MailRefusedError: it was refused for good; the message says by what, and what to do.
        MailUncertainError: the connection ended between the letter and the answer.
    """
    client = _Client(address, message, log, trust, command_timeout_s)
    try:
        await client.converse(connect_timeout_s)
        return
    except MailError:
        raise
    except (aiosmtplib.SMTPException, OSError) as error:
        failure = client.explain(error)
    finally:
        client.close()
    # Not chained: what a server said is not masked there.
    raise failure


class _Client(aiosmtplib.SMTP):
    """A conversation about one letter."""

    def __init__(
        self, address: SmtpAddress, message: EmailMessage, log: Log, trust: ssl.SSLContext | None, timeout_s: float
    ) -> None:
        self._sender, self._recipient = (message[name].addresses[0].addr_spec for name in ("From", "To"))
        self._message, self._address, self._log = message, address, log
        self._answer_s = timeout_s
        self._logging_in = False
        super().__init__(
            hostname=address.host,
            port=address.port,
            local_hostname=self._sender.rpartition("@")[2],
            timeout=timeout_s,
            use_tls=address.encryption is Encryption.TLS,
            start_tls=False,
            tls_context=trust,
        )

    async def converse(self, connect_timeout_s: float) -> None:
        """From the greeting to the server's word that it has the letter."""
        await self._log(f"> [connect to {self._address}]")
        await self._heard(await self.connect(timeout=connect_timeout_s))
        await self.ehlo()
        if self._address.encryption is Encryption.STARTTLS:
            await self._encrypt()
        if self._address.password is not None:
            await self._log_in(self._address.username, self._address.password)
        await self.mail(self._sender)
        await self.rcpt(self._recipient)
        reply = await self._hand_over(self._message.as_bytes())
        with suppress(aiosmtplib.SMTPException, OSError):  # the letter is theirs, whatever follows
            await self._heard(reply)
            await self.quit(timeout=min(QUIT_S, self._answer_s))

    async def execute_command(
        self, *args: bytes, timeout: float | Literal[Default.token] | None = Default.token
    ) -> aiosmtplib.SMTPResponse:
        """The server's reply; both are told, but for what a login says."""
        said = b" ".join(args).decode("utf-8", "replace")
        if self._logging_in:
            said = f"AUTH {STARS}" if args[0] == b"AUTH" else STARS
        await self._log(f"> {said}")
        reply = await super().execute_command(*args, timeout=timeout)
        await self._heard(reply)
        return reply

    def explain(self, error: Exception) -> MailError:
        """What a person is told of an error of the library."""
        certificate = error if isinstance(error, ssl.SSLError) else error.__cause__
        if isinstance(certificate, ssl.SSLError):
            return self._refused(
                "cannot be spoken to in TLS", str(certificate), "Check the scheme, port and host name."
            )
        if isinstance(error, aiosmtplib.SMTPResponseException):
            reply = f"{error.code} {error.message}"
            if error.code < 500:
                return MailServerError(f"The mail server {self._address} takes no letter now: {self._shown(reply)}")
            return self._refused(*_refusal(error, reply))
        reason = self._shown(str(error) or type(error).__name__)
        if isinstance(error, OSError):
            return MailServerError(f"The mail server {self._address} cannot be reached, or does not answer: {reason}")
        return self._refused("cannot be used", reason, "Check its address in the settings.")

    async def _encrypt(self) -> None:
        if not self.supports_extension("starttls"):
            raise MailRefusedError(f"The mail server {self._address} offers no STARTTLS. Use smtps:// or smtp://.")
        await self._log("> STARTTLS")
        await self._heard(await self.starttls())
        await self.ehlo()

    async def _log_in(self, username: str, password: Secret) -> None:
        # One method only: a second refusal would count against us, and may close the connection.
        in_clear = self._address.encryption is Encryption.NONE
        order = ("cram-md5", "plain", "login") if in_clear else ("plain", "login", "cram-md5")
        self.server_auth_methods = [name for name in order if name in self.server_auth_methods][:1]
        if not self.server_auth_methods:
            raise MailRefusedError(
                f"The mail server {self._address} offers no login. Use smtps:// or smtp+starttls://, or give no user."
            )
        self._logging_in = True
        await self.login(username, password.reveal())
        self._logging_in = False

    async def _hand_over(self, letter: bytes) -> aiosmtplib.SMTPResponse:
        reply = await self.execute_command(b"DATA")
        if reply.code != aiosmtplib.SMTPStatus.start_input:
            raise aiosmtplib.SMTPDataError(reply.code, reply.message)
        size = f"{len(letter):,}".replace(",", " ")
        await self._log(f"> [letter, {size} bytes]")
        if self.protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        self.protocol.write(re.sub(rb"(?m)^\.", b"..", letter) + b".\r\n")
        reply = await self._answer()
        if reply.code >= 400:
            await self._heard(reply)
            raise aiosmtplib.SMTPDataError(reply.code, reply.message)
        return reply

    async def _answer(self) -> aiosmtplib.SMTPResponse:
        """What the server says of a letter that lies with it: taken, or refused; anything else is unknown."""
        with suppress(aiosmtplib.SMTPException, OSError):
            if self.protocol is not None:
                reply = await self.protocol.read_response(timeout=self._answer_s)
                if reply.code // 100 in (2, 4, 5):
                    return reply
        raise MailUncertainError(
            f"The mail server {self._address} was handed the letter and did not answer: it may have arrived. Look "
            f"there for Message-ID {self._message['Message-ID']}; a retry sends it again with the same one."
        )

    async def _heard(self, reply: aiosmtplib.SMTPResponse) -> None:
        lines = reply.message.split("\n")
        for number, line in enumerate(lines, 1):
            await self._log(f"< {reply.code}{' ' if number == len(lines) else '-'}{self._shown(line)}")

    def _refused(self, what: str, reply: str, advice: str) -> MailRefusedError:
        return MailRefusedError(f"The mail server {self._address} {what}: {self._shown(reply)}. {advice}")

    def _shown(self, text: str) -> str:
        """Words of a server: without the login, without control characters, and not too long."""
        for form in _forms(self._address):
            text = text.replace(form, STARS)
        return "".join(character if character.isprintable() else " " for character in text)[:MAX_REPLY].rstrip(". ")


def _refusal(error: aiosmtplib.SMTPResponseException, reply: str) -> tuple[str, str, str]:
    """What was refused, the server's words, and what to do."""
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return "refuses the login", reply, "Check the user and the password in the settings."
    if isinstance(error, aiosmtplib.SMTPRecipientRefused):
        return f"refuses the recipient {error.recipient}", reply, "Correct the client's address, then send again."
    if isinstance(error, aiosmtplib.SMTPSenderRefused):
        return f"refuses the sender {error.sender}", reply, "Check the sender's address and the login in the settings."
    if isinstance(error, aiosmtplib.SMTPDataError):
        return "refuses the letter", reply, "Ask its administrator for the reason."
    return "refuses the conversation", reply, "Check its address in the settings, and ask its administrator."


def _forms(address: SmtpAddress) -> list[str]:
    """How a server may echo the login's password, the longest first."""
    if address.password is None:
        return []
    plain = address.password.reveal()
    whole = f"\0{address.username}\0{plain}"
    forms = {plain, *(base64.b64encode(text.encode()).decode() for text in (plain, whole))}
    return sorted(forms, key=len, reverse=True)
