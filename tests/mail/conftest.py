"""Mail servers on the loopback: a real one, and one that misbehaves by a script."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from alfa_cloud.mail.address import Encryption

HOST = "127.0.0.1"


@dataclass
class PostOffice:
    """A mail server that keeps letters with their envelopes, and answers as told.

    Args:
        replies: by command, instead of `250 OK`.
    """

    replies: Mapping[str, str] = field(default_factory=dict)
    password: str = ""
    letters: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    port: int = 0

    def log_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        """Whether user and password are right."""
        del server, session, envelope
        assert isinstance(data, LoginPassword)
        self.logins.append((mechanism, data.login.decode()))
        return AuthResult(success=data.password.decode() == self.password, handled=False)

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a sender."""
        del server, session, options
        envelope.mail_from = address
        return self.replies.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient."""
        del server, session, options
        envelope.rcpt_tos.append(address)
        return self.replies.get("RCPT", "250 OK")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a letter."""
        del session
        reply = self.replies.get("DATA", "250 OK: queued")
        if reply.startswith("2"):
            assert isinstance(envelope.content, bytes)
            self.letters.append(message_from_bytes(envelope.content, policy=policy.SMTP))
            self.recipients.append(list(envelope.rcpt_tos))
            assert server.transport is not None
            self.encrypted.append(server.transport.get_extra_info("cipher") is not None)
        return reply


Open = Callable[..., Awaitable[PostOffice]]


@pytest.fixture
async def post_office() -> AsyncIterator[Open]:
    """Opens mail servers."""
    servers: list[asyncio.Server] = []

    async def open_one(
        *, encryption: Encryption = Encryption.NONE, certificate: ssl.SSLContext | None = None, **told: Any
    ) -> PostOffice:
        office = PostOffice(**told)
        later = certificate if encryption is Encryption.STARTTLS else None
        at_once = certificate if encryption is Encryption.TLS else None

        def protocol() -> SMTP:
            return SMTP(
                office,
                hostname="mail.example.org",
                authenticator=office.log_in,
                auth_require_tls=False,
                tls_context=later,
                require_starttls=later is not None,
            )

        server = await asyncio.get_running_loop().create_server(protocol, HOST, 0, ssl=at_once)
        servers.append(server)
        office.port = server.sockets[0].getsockname()[1]
        return office

    yield open_one
    for server in servers:
        server.close()


@asynccontextmanager
async def scripted(
    replies: Mapping[str, str | None], greeting: str = "220 mail.example.org", otherwise: str = "250 OK"
) -> AsyncIterator[int]:
    """The port of a server that answers each command by its word, `.` being the end of a letter.

    Args:
        replies: `None` says nothing more, an empty text closes the connection; for other words, see below.
        greeting: nothing is said, where it is empty.
        otherwise: the reply to any other word.
    """
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greeting:
            writer.write(f"{greeting}\r\n".encode())
        letter = False
        while line := (await reader.readline()).decode():
            word = line.split()[0] if line.strip() else ""
            if letter and word != ".":
                continue
            reply = replies.get(word, "354 go on" if word == "DATA" else otherwise)
            letter = word == "DATA" and reply is not None and reply.startswith("354")
            if not reply:
                break
            writer.write(f"{reply}\r\n".encode(errors="surrogateescape"))
        if line and replies.get(word) is None:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


@dataclass(frozen=True)
class Certificate:
    """A certificate for the loopback, and the trust in it."""

    server: ssl.SSLContext
    trust: ssl.SSLContext


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM).decode()
    path: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_text(pem + private.decode())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return Certificate(server, ssl.create_default_context(cadata=pem))
