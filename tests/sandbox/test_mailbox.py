"""The sandbox's mailbox takes letters and shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit

import aiosmtplib
import httpx
import pytest

from alfa_cloud.sandbox.mailbox import Mailbox


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[Mailbox]:
    """A running mailbox."""
    async with Mailbox(tmp_path) as opened:
        yield opened


async def send(mailbox: Mailbox, subject: str) -> None:
    """Send a letter with both parts."""
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "cloud@example.org", "лаборатория@example.org", subject
    letter.set_content("Ваше облако готово.")
    letter.add_alternative("<p>Ваше облако <script>alert(1)</script>готово.</p>", subtype="html")
    to = urlsplit(mailbox.smtp_url)
    await aiosmtplib.send(letter, hostname=to.hostname, port=to.port, recipients=["lab@example.org"])


async def test_letters_are_kept_and_shown(mailbox: Mailbox) -> None:
    await send(mailbox, "Готово <b>&</b>")
    [letter] = mailbox.letters()
    assert (letter.header("Subject"), letter.text.strip()) == ("Готово <b>&</b>", "Ваше облако готово.")
    assert letter.header("X-Envelope-To") == "lab@example.org"
    async with httpx.AsyncClient(base_url=mailbox.url, trust_env=False) as browser:
        assert "Готово &lt;b&gt;&amp;&lt;/b&gt;" in (await browser.get("/")).text
        assert "Ваше облако готово." in (await browser.get(f"/{letter.name}")).text
        html = await browser.get(f"/{letter.name}.html")
        assert "sandbox" in html.headers["Content-Security-Policy"]
        assert (await browser.get("/../ports")).status_code == 404
        assert (await browser.get("/", headers={"Host": "evil.example"})).status_code == 403
    mailbox.clear()
    assert mailbox.letters() == []


async def test_ports_and_letters_stay_with_the_folder(tmp_path: Path) -> None:
    async with Mailbox(tmp_path) as first:
        await send(first, "one")
        ports = dict(first.ports)
    async with Mailbox(tmp_path) as second:
        assert second.ports == ports
        assert [letter.header("Subject") for letter in second.letters()] == ["one"]
