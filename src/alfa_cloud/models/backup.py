"""Back-ups of clients: dumps with their files, on a server."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base


class Backup(Base):
    """A client's database and files as they were at one moment."""

    __tablename__ = "backups"
    __table_args__ = (
        CheckConstraint("reason IN ('command', 'schedule', 'restore', 'final')", name="reason"),
        Index("ix_backups_client_id_created_at", "client_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """That of the operation that made it."""
    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"))
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"), index=True)
    """Where it lies, under the client's archive folder."""
    name: Mapped[str] = mapped_column(String(80))
    """Of its files there."""
    reason: Mapped[str] = mapped_column(String(16))
    version: Mapped[str] = mapped_column(String(128), default="", server_default="")
    """Of the application whose data it is."""
    tables: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    """The rows of each table."""
    files_count: Mapped[int] = mapped_column(BigInteger)
    files_bytes: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the file that is downloaded."""
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the same."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    keep_until: Mapped[datetime | None]
    """When it may be removed; None where nobody said."""
    checked_at: Mapped[datetime | None]
    """When it was last looked at whole."""
    proven_at: Mapped[datetime | None]
    """When it was last restored into a scratch database, and was what it says."""
    proof_error: Mapped[str] = mapped_column(String(500), default="", server_default="")
    """What the last look found wrong; empty where nothing."""
