"""Operations: long work, with its steps and its log."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, String, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base

UNFINISHED = "state IN ('queued', 'running')"


class Operation(Base):
    """One long work. Only `services/operations.py` writes its state; a terminal state is final, by a trigger."""

    __tablename__ = "operations"
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'ok', 'error', 'cancelled')", name="state"),
        Index("ix_operations_unfinished", "created_at", "id", postgresql_where=text(UNFINISHED)),
        Index("ix_operations_unfinished_client_id", "client_id", "id", postgresql_where=text(UNFINISHED)),
        Index("ix_operations_unfinished_server_id", "server_id", "id", postgresql_where=text(UNFINISHED)),
        Index("ix_operations_client_id_id", "client_id", "id"),
        Index("ix_operations_created_at", text("created_at DESC NULLS LAST"), "id"),
        Index("ix_operations_finished_at", "finished_at"),
        Index(
            "ix_operations_preparations", "server_id", "created_at", postgresql_where=text("kind = 'prepare_server'")
        ),
        Index("ix_operations_kind_id", "kind", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """UUIDv7, so that ids grow with time."""
    kind: Mapped[str] = mapped_column(String(40))
    client_id: Mapped[int | None]
    """No foreign key: an operation outlives what it worked on."""
    server_id: Mapped[int | None] = mapped_column(index=True)
    other_server_id: Mapped[int | None]
    """Another server that it works on; of both it takes a slot, and waits for whoever has one of them alone."""
    exclusive: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """It takes its server alone."""
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("operations.id"), index=True)
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("operations.id"))
    params: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    secrets: Mapped[bytes | None]
    """Parameters that must not be seen, sealed; erased at the end."""
    locks_client: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    """Whether it takes its turn among its client's operations; a letter does not."""
    equal_key: Mapped[str] = mapped_column(String(64), default="", server_default="")
    """Equal for equal commands: kind, subject and every parameter."""
    state: Mapped[str] = mapped_column(String(16), default="queued", server_default="queued")
    step: Mapped[str | None] = mapped_column(String(200))
    progress: Mapped[float] = mapped_column(default=0.0, server_default="0")
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    fence: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Raised by every claim; a write with an older one matches no row."""
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(100))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """`code`, `message`, `step`."""
    warnings: Mapped[list[str]] = mapped_column(JSONB, default=list, server_default=text("'[]'"))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    cancel_requested_at: Mapped[datetime | None]
    deadline_s: Mapped[float] = mapped_column(default=14400.0, server_default="14400")
    """Seconds from its first start, on the database's clock."""
    last_seq: Mapped[int] = mapped_column(default=0, server_default="0")
    log_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    checkpoints: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    """How far the output of each detached command is in the log, in bytes."""
    actor: Mapped[str | None] = mapped_column(String(200))
    request_id: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class OperationStep(Base):
    """One step of an operation's playbook."""

    __tablename__ = "operation_steps"

    operation_id: Mapped[UUID] = mapped_column(ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    name: Mapped[str] = mapped_column(String(60))
    title: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16), default="pending", server_default="pending")
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class OperationLine(Base):
    """One line of an operation's log."""

    __tablename__ = "operation_lines"

    operation_id: Mapped[UUID] = mapped_column(ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    stream: Mapped[str] = mapped_column(String(8))
    text: Mapped[str] = mapped_column(Text)
