"""Answers kept for repeats with the same Idempotency-Key."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import LargeBinary, SmallInteger, String, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base


class IdempotencyKey(Base):
    """The answer to one POST, written in the transaction of its work."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    method: Mapped[str] = mapped_column(String(8))
    path: Mapped[str] = mapped_column(Text)
    """With its query."""
    body_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    """HMAC-SHA-256 of media type and body, by the vault's key: a body may hold a password that could be guessed."""
    status: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp(), index=True)
