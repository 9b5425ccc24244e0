"""A mailbox: an SMTP server on the loopback that keeps every letter, and a small page that shows them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import escape
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import Final, Self

from aiosmtpd.smtp import SMTP, Envelope, Session

from alfa_cloud.sandbox.practice.folder import LOOPBACK, write_aside

MAX_LETTER: Final = 32 * 1024 * 1024
SHOWN: Final = 200
PATH: Final = re.compile(r"/(?:(?P<name>[\w-]+)(?P<html>\.html)?)?")
LOCAL_HOST: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
STYLE: Final = "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
# A letter's own HTML neither runs scripts nor loads anything from outside.
LETTER_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter as it arrived."""

    name: str
    """Names sort by the moment of arrival."""
    message: EmailMessage

    @property
    def text(self) -> str:
        """Its plain part, or an empty text."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """Its HTML part, or an empty text."""
        return self._part("html")

    def header(self, name: str) -> str:
        """A header's text."""
        return str(self.message.get(name, ""))

    def _part(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        return str(part.get_content()) if part is not None else ""


class Mailbox:
    """Takes letters by SMTP, and shows them by HTTP; both on the loopback only, on ports that stay with the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self.servers: list[asyncio.Server] = []
        self.ports = {"smtp": 0, "http": 0}

    @property
    def smtp_url(self) -> str:
        """Where letters go."""
        return f"smtp://{LOOPBACK}:{self.ports['smtp']}"

    @property
    def url(self) -> str:
        """Where letters are shown."""
        return f"http://{LOOPBACK}:{self.ports['http']}/"

    async def start(self) -> None:
        """Letters are taken and shown."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = self.folder / "ports.json"
        if note.exists():
            self.ports.update(json.loads(note.read_text()))
        loop = asyncio.get_running_loop()
        await self._listen("smtp", lambda port: loop.create_server(self._smtp, LOOPBACK, port))
        await self._listen("http", lambda port: asyncio.start_server(self._serve, LOOPBACK, port))
        write_aside(note, json.dumps(self.ports))

    async def _listen(self, name: str, make: Callable[[int], Awaitable[asyncio.Server]]) -> None:
        """Listen on the kept port, or on another where somebody took it."""
        try:
            server = await make(self.ports[name])
        except OSError:
            server = await make(0)
        self.servers.append(server)
        self.ports[name] = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Neither is served any more; the letters stay."""
        for server in self.servers:
            server.close()
        self.servers.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def letters(self) -> list[Letter]:
        """Every letter, the first one first."""
        return [self._read(path) for path in sorted(self.folder.glob("*.eml"))]

    def clear(self) -> None:
        """There is no letter."""
        for path in self.folder.glob("*.eml"):
            path.unlink()

    def _read(self, path: Path) -> Letter:
        return Letter(path.stem, message_from_bytes(path.read_bytes(), policy=policy.default))

    def _smtp(self) -> SMTP:
        return SMTP(self, hostname="localhost", data_size_limit=MAX_LETTER, enable_SMTPUTF8=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's
        """Keep a letter, with the addresses of its envelope."""
        content = envelope.content or b""
        data = content if isinstance(content, bytes) else content.encode()
        head = f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {', '.join(envelope.rcpt_tos)}\r\n"
        (self.folder / f"{time_ns()}.eml").write_bytes(head.encode() + data)
        return "250 Message accepted for delivery"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of a browser."""
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            words = head.decode("latin-1").split("\r\n")
            target = words[0].split(" ")[1]
            host = next((line.partition(":")[2].strip() for line in words if line.lower().startswith("host:")), "")
            status, body, rules = self._page(target) if LOCAL_HOST.fullmatch(host) else ("403 Forbidden", "", "")
            data = body.encode()
            lines = [f"HTTP/1.1 {status}", "Content-Type: text/html; charset=utf-8", f"Content-Length: {len(data)}"]
            lines += [f"Content-Security-Policy: {rules}"] if rules else []
            lines += ["Cache-Control: no-store", "X-Content-Type-Options: nosniff", "Connection: close", "", ""]
            writer.write("\r\n".join(lines).encode() + data)
            await writer.drain()
        except (OSError, TimeoutError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _page(self, target: str) -> tuple[str, str, str]:
        """Status, HTML and policy of a page."""
        found = PATH.fullmatch(target.partition("?")[0])
        name = found["name"] if found else None
        path = self.folder / f"{name}.eml"
        own = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'"
        if found and name is None:
            return "200 OK", self._list(), own
        if not found or not path.exists():
            return "404 Not Found", "<p>There is no such letter.</p>", own
        letter = self._read(path)
        if found["html"]:
            return "200 OK", letter.html, LETTER_POLICY
        return "200 OK", _letter_page(letter), own

    def _list(self) -> str:
        """The page with all letters, the newest first."""
        letters = [self._read(path) for path in sorted(self.folder.glob("*.eml"), reverse=True)[:SHOWN]]
        rows = "".join(
            f"<tr><td>{escape(letter.header('Date'))}<td>{escape(letter.header('To'))}"
            f'<td><a href="/{letter.name}">{escape(letter.header("Subject") or "(no subject)")}</a>'
            for letter in letters
        )
        table = (
            f"<table cellpadding=6><tr><th>Date<th>To<th>Subject{rows}</table>" if rows else "<p>No letters yet.</p>"
        )
        return _document("Mailbox of the sandbox", table)


def _letter_page(letter: Letter) -> str:
    """The page of one letter: its headers, its text, and its HTML in a frame."""
    heads = "".join(
        f"<tr><th align=left>{name}<td>{escape(letter.header(name))}" for name in ("From", "To", "Subject", "Date")
    )
    frame = f'<iframe sandbox src="/{letter.name}.html" width="100%" height="600"></iframe>' if letter.html else ""
    body = f'<p><a href="/">All letters</a><table cellpadding=4>{heads}</table><pre>{escape(letter.text)}</pre>{frame}'
    return _document(letter.header("Subject"), body)


def _document(title: str, body: str) -> str:
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return f"{head}<h1>{escape(title)}</h1>{body}</html>"
