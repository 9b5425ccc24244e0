"""Last days of use: every change of them, and what was sent about them."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, SmallInteger, String, func
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base


class ExpireDate(Base):
    """One change of a client's last day of use; never changed itself."""

    __tablename__ = "expire_dates"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    old_date: Mapped[date | None]
    new_date: Mapped[date | None]
    comment: Mapped[str] = mapped_column(String(500), default="", server_default="")
    actor: Mapped[str | None] = mapped_column(String(200))
    """Who changed it, as told."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Reminder(Base):
    """A letter about a client's last day that was asked for by the calendar: one for each day and distance."""

    __tablename__ = "reminders"

    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True)
    expire_date: Mapped[date] = mapped_column(primary_key=True)
    days: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """How many days before; 0 is the letter that says that it has ended."""
    operation_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
