"""State changes of operations, in the order of their commits."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Identity, String, func
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base


class OperationEvent(Base):
    """One change of an operation's state; a trigger writes it when the change commits."""

    __tablename__ = "operation_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    operation_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
