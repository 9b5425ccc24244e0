"""The administrator's login and password: made once, checked at every request, changed in one step."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import secrets
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import FieldError
from alfa_cloud.models.credential import Credential
from alfa_cloud.specs import Secret

MIN_PASSWORD_LENGTH: Final = 15
MAX_LOGIN_LENGTH: Final = 100
MAX_BASIC_BYTES: Final = 512
"""Login, colon and password together, in UTF-8: longer ones no request could bring."""
MAX_HASHES: Final = 4
"""At a time, in one process: each takes 64 MiB."""
REMEMBER_S: Final = 60.0

_HASHER: Final = PasswordHasher()
_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$tIrkfa5PT1qDr9TcZPSZwA$FI2xIbTG2nkri3iU+fcRxUcWRsOE68xgAe/LWikcVjM"
"""A hash that no password has, so that a check takes as long while there is no administrator."""


@dataclass(frozen=True, slots=True)
class StoredLogin:
    """The credential as it stands in the database now."""

    login: str
    password_hash: str
    version: int


@dataclass(slots=True)
class CheckedLogins:
    """What one process remembers of right logins: a keyed digest of login, password and version.

    It is forgotten a minute after its last use. The key is random for each process; neither a login nor a password
    is kept.
    """

    clock: Callable[[], float] = time.monotonic
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _known: dict[bytes, float] = field(default_factory=dict, repr=False)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_HASHES), repr=False)

    def mark(self, stored: StoredLogin | None, login: str, password: str) -> bytes:
        """A digest of all that a check depends on."""
        version = stored.version if stored else 0
        parts = (str(version).encode(), *_digests(login, password))
        return hmac.digest(self._key, b"\0".join(parts), "sha256")

    def knows(self, mark: bytes) -> bool:
        """Whether this was found right, or asked for here, less than a minute ago."""
        now = self.clock()
        if self._known.get(mark, -math.inf) <= now:
            return False
        self._known[mark] = now + REMEMBER_S
        return True

    def remember(self, mark: bytes) -> None:
        """Know it; what is older than a minute is forgotten."""
        now = self.clock()
        self._known = {known: until for known, until in self._known.items() if until > now}
        self._known[mark] = now + REMEMBER_S

    async def check(self, stored: StoredLogin | None, login: str, password: str) -> bool:
        """Whether they are right, by their hash; four at most are computed at a time."""
        async with self._slots:
            return await asyncio.to_thread(_matches, stored, login, password)


async def read(session: AsyncSession) -> StoredLogin | None:
    """The credential now; None while there is none."""
    columns = select(Credential.login, Credential.password_hash, Credential.version)
    row = (await session.execute(columns.where(Credential.id == 1))).one_or_none()
    return None if row is None else StoredLogin(*row)


async def verify(stored: StoredLogin | None, checked: CheckedLogins, login: str, password: str) -> bool:
    """Whether these are the stored login and password; a wrong login takes as long as a wrong password."""
    mark = checked.mark(stored, login, password)
    if checked.knows(mark):
        return True
    right = await checked.check(stored, login, password)
    if right:
        checked.remember(mark)
    return right


async def bootstrap(session: AsyncSession, login: str, password: Secret) -> bool:
    """Make the administrator where there is none; False where there is one, which stays as it is.

    Raises:
        FieldError: the login or the password does not follow the rules.
    """
    check_login(login)
    check_password(login, password)
    values = {"id": 1, "login": _normal(login), "password_hash": await _hash(password)}
    made = await session.execute(insert(Credential).values(**values).on_conflict_do_nothing().returning(Credential.id))
    return made.scalar_one_or_none() is not None


async def change(session: AsyncSession, current: Secret, login: str, password: Secret) -> None:
    """The new login and password are the only ones, in every process, once this commits.

    Raises:
        FieldError: the current password is wrong, or a new value does not follow the rules.
    """
    check_change(current, login, password)
    row = await session.scalar(select(Credential).where(Credential.id == 1).with_for_update())
    stored = None if row is None else StoredLogin(row.login, row.password_hash, row.version)
    if row is None or not await asyncio.to_thread(_matches, stored, row.login, current.reveal()):
        raise FieldError("current_password", "This is not the current password.", code="wrong_password")
    await _replace(session, row, login, password)


async def reset(session: AsyncSession, login: str, password: Secret) -> bool:
    """The administrator has this login and password, whatever was before: for a person on the host.

    Returns:
        Whether there was one before.

    Raises:
        FieldError: the login or the password does not follow the rules.
    """
    if await bootstrap(session, login, password):
        return False
    await _replace(session, await session.get_one(Credential, 1, with_for_update=True), login, password)
    return True


async def _replace(session: AsyncSession, row: Credential, login: str, password: Secret) -> None:
    row.login = _normal(login)
    row.password_hash = await _hash(password)
    row.version += 1
    row.updated_at = func.clock_timestamp()
    await session.flush()


def check_change(current: Secret, login: str, password: Secret) -> None:
    """New values follow the rules, and the password is a new one.

    Raises:
        FieldError: they don't, or it isn't.
    """
    check_login(login)
    check_password(login, password)
    if _normal(password.reveal()) == _normal(current.reveal()):
        raise FieldError("password", "The new password must differ from the current one.", code="same_password")


def check_login(login: str) -> None:
    """A login can be used with HTTP Basic.

    Raises:
        FieldError: it cannot.
    """
    if not login.strip() or len(_normal(login)) > MAX_LOGIN_LENGTH:
        raise FieldError("login", f"The login needs 1 to {MAX_LOGIN_LENGTH} characters.")
    if ":" in login or not _printable(login):
        raise FieldError("login", "The login must hold no colon and no control characters.")


def check_password(login: str, password: Secret) -> None:
    """A password is long enough, is not the login, and can be used with HTTP Basic.

    Raises:
        FieldError: it is not, or cannot.
    """
    text = password.reveal()
    if len(_normal(text)) < MIN_PASSWORD_LENGTH:
        raise FieldError("password", f"The password needs at least {MIN_PASSWORD_LENGTH} characters.")
    if not _printable(text):
        raise FieldError("password", "The password must hold no control characters.")
    if _normal(text) == _normal(login):
        raise FieldError("password", "The password must differ from the login.")
    if any(len(unicodedata.normalize(form, f"{login}:{text}").encode()) > MAX_BASIC_BYTES for form in ("NFC", "NFD")):
        raise FieldError("password", f"Login and password together must not exceed {MAX_BASIC_BYTES - 1} bytes.")


def _printable(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _normal(text: str) -> str:
    """NFC, as RFC 7617 asks: one spelling, whichever keyboard it came from."""
    return unicodedata.normalize("NFC", text)


def _digests(login: str, password: str) -> tuple[bytes, bytes]:
    return hashlib.sha256(_normal(login).encode()).digest(), hashlib.sha256(_normal(password).encode()).digest()


def _matches(stored: StoredLogin | None, login: str, password: str) -> bool:
    known = stored or StoredLogin("", _NOBODY, 0)
    same_login = hmac.compare_digest(
        hashlib.sha256(known.login.encode()).digest(), hashlib.sha256(_normal(login).encode()).digest()
    )
    try:
        _HASHER.verify(known.password_hash, _normal(password))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None and same_login


async def _hash(password: Secret) -> str:
    return await asyncio.to_thread(_HASHER.hash, _normal(password.reveal()))
