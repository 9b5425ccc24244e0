"""Worker processes that are alive."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, func
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base


class Worker(Base):
    """A worker process, and when it was last heard of."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
