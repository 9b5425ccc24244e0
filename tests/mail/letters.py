"""Letters as the tests write them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from email.message import EmailMessage
from typing import Any

from alfa_cloud.mail.message import Letter, LetterContext, LetterKind, compose, render
from alfa_cloud.specs import Secret

SENT_AT = datetime(2026, 11, 8, 9, 30, tzinfo=UTC)
OPERATION = "01937c5e-8f00-7000-8000-000000000001"
PASSWORD = "Гп<5>&\"'  z"
CONTEXT = LetterContext(
    title="Гематология",
    url="https://hematology.example.org",
    login="owner@example.org",
    password=Secret(PASSWORD),
    expire_date=date(2026, 11, 22),
    days_left=14,
)


def letter(kind: LetterKind = LetterKind.SUCCESS, locale: str = "ru", **values: Any) -> Letter:
    """A letter from the built-in templates."""
    return render(kind, locale, replace(CONTEXT, **values))


def message(written: Letter | None = None, **values: Any) -> EmailMessage:
    """A message with a letter in it."""
    given = {"sender": "Облако Альфа <cloud@example.org>", "recipient": "lab@example.org", "message_id": OPERATION}
    return compose(written or letter(), sent_at=SENT_AT, **{**given, **values})


def bodies(got: EmailMessage) -> list[str]:
    """The text and the HTML of a message that arrived."""
    return [part.get_content().replace("\r\n", "\n") for part in got.iter_parts()]
