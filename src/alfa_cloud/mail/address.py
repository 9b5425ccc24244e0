"""Where letters are handed over, and as whom: a mail server's address, as the settings name it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from alfa_cloud.specs import Secret

HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
PERCENT: Final = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


class Encryption(StrEnum):
    """When a connection becomes encrypted; the values are the schemes of addresses."""

    NONE = "smtp"
    STARTTLS = "smtp+starttls"
    """After the greeting, and always."""
    TLS = "smtps"


PORTS: Final = {Encryption.NONE: 25, Encryption.STARTTLS: 587, Encryption.TLS: 465}


class _UrlError(ValueError):
    """Says what is wrong, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class SmtpAddress:
    """Where letters are handed over, and as whom."""

    host: str
    port: int
    encryption: Encryption = Encryption.NONE
    username: str = ""
    """Empty where the server wants no login."""
    password: Secret | None = None

    @classmethod
    def parse(cls, smtp_url: str) -> Self:
        """The address of `smtp://`, `smtp+starttls://` or `smtps://USER:PASSWORD@HOST:PORT`, percent-encoded UTF-8.

        Raises:
            ValueError: it is not that; the message says what is wrong, and shows no part of it.
        """
        try:
            return cls._parse(smtp_url)
        except _UrlError as error:
            reason = str(error)
        except ValueError:
            reason = "the host or the port is wrong; percent-encode / ? # and @ in the user and the password"
        # Not chained: what the library says quotes the URL.
        raise ValueError(f"smtp_url: {reason}")

    @classmethod
    def _parse(cls, smtp_url: str) -> Self:
        parts = urlsplit(smtp_url)
        if parts.scheme not in set(Encryption):
            raise _UrlError("the scheme is one of smtp, smtp+starttls, smtps")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise _UrlError("nothing may follow the port; percent-encode / ? # and @ in the user and the password")
        if not parts.hostname or not HOST.fullmatch(parts.hostname):
            raise _UrlError("the host is missing, or has characters that no host has")
        if bool(parts.username) != bool(parts.password):
            raise _UrlError("a user goes with a password, or neither is given")
        encryption = Encryption(parts.scheme)
        username, password = _decoded("user", parts.username), _decoded("password", parts.password)
        port = PORTS[encryption] if parts.port is None else parts.port
        if not port:
            raise _UrlError("the port is 1 to 65535")
        return cls(parts.hostname, port, encryption, username, Secret(password) if password else None)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _decoded(name: str, text: str | None) -> str:
    if not PERCENT.fullmatch(text or ""):
        raise _UrlError(f"the {name} has a % that encodes nothing; write it as %25")
    try:
        return unquote(text or "", errors="strict")
    except UnicodeDecodeError as error:
        raise _UrlError(f"the {name} is not percent-encoded UTF-8") from error
