"""Servers that hold something of a client beside the one that it stands on."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, func
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base


class Place(Base):
    """What a client has on a server that is not its own: a move's target before the move, its source after it.

    The row stays until a look at the server has found that nothing is left there.
    """

    __tablename__ = "places"

    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"), primary_key=True, index=True)
    slot: Mapped[str] = mapped_column(String(1), default="a", server_default="a")
    port: Mapped[int]
    spare_port: Mapped[int]
    image_ref: Mapped[str] = mapped_column(String(300))
    """What it ran from there."""
    kept: Mapped[bool]
    """Whether its data is the client's as it was when it moved away: the way back."""
    keep_until: Mapped[datetime | None]
    """When its data may go; None while an operation works on it."""
    forward_until: Mapped[datetime | None]
    """How long visitors who still come here are sent on."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
