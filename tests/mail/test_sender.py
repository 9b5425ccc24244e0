"""Letters are handed over to real mail servers on the loopback, kind ones and others."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from alfa_cloud.errors import MailError, MailRefusedError, MailServerError, MailUncertainError
from alfa_cloud.mail.address import Encryption, SmtpAddress
from alfa_cloud.mail.sender import send
from alfa_cloud.specs import Secret
from tests.mail.conftest import HOST, Certificate, Open, scripted
from tests.mail.letters import OPERATION, PASSWORD, bodies, letter, message

SMTP_PASSWORD = "канарейка/1%"


class Lines(list[str]):
    """A log that is kept."""

    async def __call__(self, line: str) -> None:
        self.append(line)

    def hides(self, *secrets: str) -> bool:
        """Whether no secret stands in it, as it is or in base64."""
        text = "\n".join(self)
        forms = [form for secret in secrets for form in (secret, base64.b64encode(secret.encode()).decode())]
        return not any(form in text for form in forms)


@pytest.fixture
def lines() -> Lines:
    """The log of a conversation."""
    return Lines()


def at(port: int, password: str = "", encryption: Encryption = Encryption.NONE) -> SmtpAddress:
    """A server's address on the loopback."""
    if not password:
        return SmtpAddress(HOST, port, encryption)
    return SmtpAddress(HOST, port, encryption, "cloud", Secret(password))


async def failure(sending: Awaitable[None]) -> MailError:
    """The error that sending ends with."""
    with pytest.raises(MailError) as caught:
        await sending
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert caught.value.detail.isprintable()
    return caught.value


async def test_a_letter_arrives_as_it_was_written(post_office: Open, lines: Lines) -> None:
    office = await post_office(password=SMTP_PASSWORD)
    sent = message()
    await send(at(office.port, SMTP_PASSWORD), sent, log=lines)
    [got] = office.letters
    assert office.recipients == [["lab@example.org"]]
    assert office.logins == [("PLAIN", "cloud")]
    assert bodies(got) == [letter().text, letter().html]
    assert (got["Message-ID"], got["Subject"]) == (f"<{OPERATION}@example.org>", letter().subject)
    assert got.keys() == sent.keys()


async def test_the_conversation_is_told(post_office: Open, lines: Lines) -> None:
    office = await post_office(password=SMTP_PASSWORD)
    sent = message()
    await send(at(office.port, SMTP_PASSWORD), sent, log=lines)
    size = f"{len(sent.as_bytes()):,}".replace(",", " ")
    assert [line for line in lines if not line.startswith(("< 250-", "< 220"))] == [
        f"> [connect to {HOST}:{office.port}]",
        "> EHLO example.org",
        "< 250 HELP",
        "> AUTH *****",
        "< 235 2.7.0 Authentication successful",
        "> MAIL FROM:<cloud@example.org>",
        "< 250 OK",
        "> RCPT TO:<lab@example.org>",
        "< 250 OK",
        "> DATA",
        "< 354 End data with <CR><LF>.<CR><LF>",
        f"> [letter, {size} bytes]",
        "< 250 OK: queued",
        "> QUIT",
        "< 221 Bye",
    ]
    assert "< 250-8BITMIME" in lines
    assert lines.hides(SMTP_PASSWORD, PASSWORD, f"\0cloud\0{SMTP_PASSWORD}")


async def test_lines_that_begin_with_a_dot_arrive(post_office: Open, lines: Lines) -> None:
    office = await post_office()
    dots = replace(letter(), text=".\n..a\n.b\n.\nc\n", html="<p>\n.\n</p>\n")
    await send(at(office.port), message(dots), log=lines)
    [got] = office.letters
    assert bodies(got) == [dots.text, dots.html]


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
async def test_letters_go_through_tls(
    post_office: Open, certificate: Certificate, lines: Lines, encryption: Encryption
) -> None:
    office = await post_office(encryption=encryption, certificate=certificate.server, password=SMTP_PASSWORD)
    address = at(office.port, SMTP_PASSWORD, encryption)
    await send(address, message(), log=lines, trust=certificate.trust)
    assert len(office.letters) == 1
    assert office.encrypted == [True]
    assert ("> STARTTLS" in lines) == (encryption is Encryption.STARTTLS)
    assert lines.hides(SMTP_PASSWORD)


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
async def test_a_certificate_that_is_not_trusted_is_refused(
    post_office: Open, certificate: Certificate, lines: Lines, encryption: Encryption
) -> None:
    office = await post_office(encryption=encryption, certificate=certificate.server, password=SMTP_PASSWORD)
    error = await failure(send(at(office.port, SMTP_PASSWORD, encryption), message(), log=lines))
    assert isinstance(error, MailRefusedError)
    assert "CERTIFICATE_VERIFY_FAILED" in error.detail
    assert (office.letters, office.logins) == ([], [])


async def test_without_starttls_nothing_is_said(post_office: Open, lines: Lines) -> None:
    office = await post_office(password=SMTP_PASSWORD)
    error = await failure(send(at(office.port, SMTP_PASSWORD, Encryption.STARTTLS), message(), log=lines))
    assert isinstance(error, MailRefusedError)
    assert "no STARTTLS" in error.detail
    assert not any("AUTH *" in line or "MAIL" in line for line in lines)


async def test_a_refused_login(post_office: Open, lines: Lines) -> None:
    office = await post_office(password="another")
    error = await failure(send(at(office.port, SMTP_PASSWORD), message(), log=lines))
    assert isinstance(error, MailRefusedError)
    assert not error.retryable
    assert "refuses the login: 535 5.7.8" in error.detail
    assert "Check the user and the password" in error.detail
    assert len(office.logins) == 1
    assert lines.hides(SMTP_PASSWORD)
    assert SMTP_PASSWORD not in error.detail


async def test_a_server_without_logins(lines: Lines) -> None:
    async with scripted({}) as port:
        error = await failure(send(at(port, SMTP_PASSWORD), message(), log=lines))
    assert isinstance(error, MailRefusedError)
    assert "offers no login" in error.detail


@pytest.mark.parametrize("methods", ["CRAM-MD5", "LOGIN", "PLAIN"])
async def test_a_server_that_repeats_the_login_is_not_quoted(lines: Lines, methods: str) -> None:
    whole = base64.b64encode(f"\0cloud\0{SMTP_PASSWORD}".encode()).decode()
    word = base64.b64encode(SMTP_PASSWORD.encode()).decode()
    user = base64.b64encode(b"cloud").decode()
    echo = f"535 5.7.8 {SMTP_PASSWORD} {word} {whole} \x1b[31m\udcffno"
    replies: dict[str, str | None] = {
        "EHLO": f"250-mail.example.org\r\n250 AUTH {methods}",
        "AUTH": echo if methods == "PLAIN" else "334 VXNlcm5hbWU6",
    }
    replies |= {user: "334 UGFzc3dvcmQ6", word: echo, "*": echo}
    async with scripted(replies, otherwise=echo) as port:
        error = await failure(send(at(port, SMTP_PASSWORD), message(), log=lines))
    assert isinstance(error, MailRefusedError)
    assert "535 5.7.8 ***** ***** *****" in error.detail
    assert lines.hides(SMTP_PASSWORD, f"\0cloud\0{SMTP_PASSWORD}")
    said = [line for line in lines if line.startswith("> ")]
    assert said[2] == "> AUTH *****"
    assert set(said[3:]) <= {"> *****"}


@pytest.mark.parametrize(
    ("command", "reply", "said"),
    [
        ("MAIL", "553 5.7.1 not yours", "refuses the sender cloud@example.org: 553 5.7.1 not yours. Check"),
        ("RCPT", "550 5.1.1 unknown", "refuses the recipient lab@example.org: 550 5.1.1 unknown. Correct"),
        ("DATA", "554 5.7.1 spam", "refuses the letter: 554 5.7.1 spam. Ask"),
        ("MAIL", "451 4.3.0 later", "takes no letter now: 451 4.3.0 later"),
        ("RCPT", "450 4.2.0 greylisted", "takes no letter now: 450 4.2.0 greylisted"),
        ("RCPT", "421 4.3.2 closing", "takes no letter now: 421 4.3.2 closing"),
        ("DATA", "452 4.3.1 full", "takes no letter now: 452 4.3.1 full"),
    ],
)
async def test_refusals(post_office: Open, lines: Lines, command: str, reply: str, said: str) -> None:
    office = await post_office(replies={command: reply})
    error = await failure(send(at(office.port), message(), log=lines))
    assert type(error) is (MailRefusedError if reply.startswith("5") else MailServerError)
    assert error.retryable == reply.startswith("4")
    assert said in error.detail
    assert f"< {reply}" in lines
    assert office.letters == []


@pytest.mark.parametrize(
    ("replies", "greeting", "kind"),
    [
        ({}, "554 5.3.2 go away", MailRefusedError),
        ({}, "421 4.3.2 later", MailServerError),
        ({}, "hello", MailServerError),
        ({"EHLO": None}, "220 hello", MailServerError),
        ({"EHLO": ""}, "220 hello", MailServerError),
        ({"EHLO": "550 no"}, "220 hello", MailRefusedError),
        ({"RCPT": None}, "220 hello", MailServerError),
        ({"RCPT": "what"}, "220 hello", MailServerError),
        ({"DATA": None}, "220 hello", MailServerError),
        ({"DATA": ""}, "220 hello", MailServerError),
        ({"DATA": "250 what"}, "220 hello", MailServerError),
        ({".": None}, "220 hello", MailUncertainError),
        ({".": ""}, "220 hello", MailUncertainError),
        ({".": "what"}, "220 hello", MailUncertainError),
        ({".": "354 what"}, "220 hello", MailUncertainError),
        ({".": "554 no"}, "220 hello", MailRefusedError),
        ({".": "452 no"}, "220 hello", MailServerError),
    ],
)
async def test_servers_that_misbehave(
    lines: Lines, replies: dict[str, str | None], greeting: str, kind: type[MailError]
) -> None:
    async with scripted(replies, greeting) as port:
        error = await failure(send(at(port), message(), log=lines, command_timeout_s=0.2))
    assert type(error) is kind
    assert error.retryable == (kind is MailServerError)
    if kind is MailUncertainError:
        assert f"<{OPERATION}@example.org>" in error.detail
        assert "may have arrived" in error.detail


@pytest.mark.parametrize("quit_reply", ["", None, "500 what", "what"])
async def test_a_taken_letter_stays_taken(lines: Lines, quit_reply: str | None) -> None:
    async with scripted({"QUIT": quit_reply}) as port:
        await send(at(port), message(), log=lines, command_timeout_s=0.2)
    assert lines[lines.index("> QUIT") - 1] == "< 250 OK"


async def test_a_log_that_fails_makes_no_second_letter(post_office: Open) -> None:
    office = await post_office()

    async def log(line: str) -> None:
        if office.letters:
            raise OSError(line)

    await send(at(office.port), message(), log=log)
    assert len(office.letters) == 1


async def test_nobody_answers(lines: Lines) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        error = await failure(send(at(closed.getsockname()[1]), message(), log=lines))
    assert isinstance(error, MailServerError)
    assert "cannot be reached" in error.detail


async def test_a_greeting_that_does_not_come(lines: Lines) -> None:
    async with scripted({}, greeting="") as port:
        error = await failure(send(at(port), message(), log=lines, connect_timeout_s=0.2))
    assert isinstance(error, MailServerError)


async def test_a_stopped_worker_leaves_no_connection(lines: Lines) -> None:
    async with scripted({"RCPT": None}) as port:
        told = asyncio.Event()

        async def log(line: str) -> None:
            await lines(line)
            if line.startswith("> RCPT"):
                told.set()

        sending = asyncio.create_task(send(at(port), message(), log=log))
        await told.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert lines[-1].startswith("> RCPT")


@pytest.mark.parametrize("name", ["lab@example.org", "o'neil+x@example.org", "lab@пример.рф"])
async def test_one_recipient_and_no_other_header(post_office: Open, lines: Lines, name: str) -> None:
    office = await post_office()
    hostile = letter(title="=?utf-8?q?=0d=0aBcc:_x@example.org?= <script> {{7*7}}, a@example.org")
    sent = message(hostile, recipient=name)
    await send(at(office.port), sent, log=lines)
    assert office.recipients == [[name if name.isascii() else "lab@xn--e1afmkfd.xn--p1ai"]]
    assert sum(line.startswith("> RCPT") for line in lines) == 1
    assert set(office.letters[0].keys()) == set(message().keys())
