"""Letters: written from a template for each kind and language, and put into a message for one recipient."""

from __future__ import annotations

import re
import traceback
import unicodedata
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any, Final
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, ValidatedEmail, validate_email
from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
    select_autoescape,
)

from alfa_cloud.errors import LetterInvalidError, LetterTemplateError
from alfa_cloud.mail.wording import Language, in_days, written_date
from alfa_cloud.specs import Secret

BREAKING: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of characters that end a line somewhere, or that no charset can carry."""
MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9]+([.-][A-Za-z0-9]+)*")
SENDER: Final = re.compile(r'(?:"?(?P<name>[^"<>]*?)"?\s*<)?(?P<address>[^<>\s]+)(?(name)>)')
BROKEN_TEMPLATE: Final = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, OSError)


class LetterKind(StrEnum):
    """What a letter tells."""

    SUCCESS = "success"
    """The cloud is ready."""
    EXPIRE = "expire"
    """Its term ends soon."""
    EXPIRED = "expired"
    """Its term has ended, and it is blocked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterContext:
    """All that a letter may tell of a client; templates know the fields by these names."""

    title: str
    """The laboratory's name; where it is empty, the letter names the host of `url`."""
    url: str
    login: str
    password: Secret | None = None
    """None where it is not kept any more."""
    set_password_url: str = ""
    """Where a new password can be set; empty where there is no such page."""
    expire_date: date | None = None
    """The last day of use."""
    days_left: int | None = None
    """From today to that day: 0 on the day itself."""
    contact: str = ""
    """Whom to ask (an address, a telephone number); where it is empty, the letter asks for a reply."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter as it will be read; its texts may contain a password."""

    subject: str
    html: str = field(repr=False)
    text: str = field(repr=False)
    language: Language


def render(kind: LetterKind, locale: str, context: LetterContext, *, templates: Path | None = None) -> Letter:
    """A letter of this kind in the client's language.

    Args:
        templates: a folder whose files replace the built-in ones of the same name (`success.ru.html.j2`).

    Raises:
        LetterInvalidError: a value has a line break in it, or the letter needs a date that is not there.
        LetterTemplateError: a template is broken; the message names its file and line.
    """
    language = Language.of(locale)
    values = _values(kind, context, language)
    environment = _environment(templates, language)
    stem = f"{kind}.{language}"
    values["subject"] = " ".join(_fill(environment, f"{stem}.subject.j2", values).split())
    html, text = (_fill(environment, f"{stem}.{form}.j2", values) for form in ("html", "txt"))
    return Letter(values["subject"], html, text, language)


def compose(letter: Letter, *, sender: str, recipient: str, message_id: str, sent_at: datetime) -> EmailMessage:
    """A message to exactly one recipient, in HTML and in plain text.

    Args:
        sender: an address, or `Name <address>`.
        message_id: what stands before the sender's domain: an operation's id, the same for every repeat of the letter.
        sent_at: an aware moment.

    Raises:
        LetterInvalidError: the subject, an address or the id cannot stand in a header.
    """
    parts = SENDER.fullmatch(_one_line("sender", sender))
    author = _address("sender", parts["address"] if parts else sender)
    reader = _address("recipient", recipient)
    if not MESSAGE_ID.fullmatch(message_id):
        raise LetterInvalidError("The letter's id may have letters, digits, hyphens and dots only.")
    message = EmailMessage(policy.SMTP)
    message["Subject"] = _plain(_one_line("subject", letter.subject))
    message["From"] = Address(_plain(parts["name"] or "") if parts else "", addr_spec=author.ascii_email or "")
    message["To"] = Address(addr_spec=reader.ascii_email or "")
    message["Date"] = sent_at
    message["Message-ID"] = f"<{message_id}@{author.ascii_domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text, cte="quoted-printable")
    message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
    message["Content-Language"] = str(letter.language)  # last: a second part takes Content-* into the first one
    return message


def _values(kind: LetterKind, context: LetterContext, language: Language) -> dict[str, Any]:
    """What templates know."""
    for name in ("title", "url", "login", "set_password_url", "contact"):
        _one_line(name, getattr(context, name))
    if kind is not LetterKind.SUCCESS and context.expire_date is None:
        raise LetterInvalidError("A client without an expire date gets no letter about the end of its term.")
    if context.days_left is not None and context.days_left < 0:
        raise LetterInvalidError("The term has ended already: it cannot end in some days.")
    return {
        **{each.name: getattr(context, each.name) for each in fields(context)},
        "title": context.title or urlsplit(context.url).hostname or context.url,
        "password": context.password.reveal() if context.password else None,
        "language": language,
    }


def _environment(templates: Path | None, language: Language) -> Environment:
    own: list[BaseLoader] = [FileSystemLoader(templates)] if templates else []
    environment = Environment(
        loader=ChoiceLoader([*own, PackageLoader("alfa_cloud.mail")]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["written"] = lambda day: written_date(day, language)
    environment.filters["in_days"] = lambda count: in_days(count, language)
    return environment


def _fill(environment: Environment, name: str, values: dict[str, Any]) -> str:
    try:
        return environment.get_template(name).render(values)
    except BROKEN_TEMPLATE as error:
        place, reason = _place(error, name), str(error)
        if values["password"]:
            reason = reason.replace(values["password"], "***")
    # Not chained: what jinja2 says may quote a value.
    raise LetterTemplateError(f"The template of a letter is broken: {place}: {reason}")


def _place(error: Exception, name: str) -> str:
    """The file and the line of a template where it broke."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.name or name}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return f"{PurePath(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else name


def _plain(text: str) -> str:
    """The text without encoded words (RFC 2047): EmailMessage decodes them, and the line breaks hidden in them."""
    return text.replace("=?", "= ?")


def _one_line(name: str, text: str) -> str:
    if any(unicodedata.category(character) in BREAKING for character in text):
        raise LetterInvalidError(f"The letter's {name} has a line break or a control character in it.")
    return text


def _address(name: str, text: str) -> ValidatedEmail:
    try:
        return validate_email(_one_line(name, text), check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise LetterInvalidError(f"The letter's {name} is not one plain e-mail address: {error}") from error
