"""The administrator of this API."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base


class Credential(Base):
    """The one login; every change raises its version, which makes what a process remembers worthless."""

    __tablename__ = "credentials"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    login: Mapped[str] = mapped_column(String(200))
    password_hash: Mapped[str] = mapped_column(String(300))
    """argon2id, with its salt and costs."""
    version: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp(), onupdate=func.clock_timestamp())
