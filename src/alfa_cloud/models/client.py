"""Clients: laboratories' private clouds."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column
from uuid6 import uuid7

from alfa_cloud.db import Base
from alfa_cloud.specs import ClientStatus


class Client(Base):
    """One laboratory's private cloud: a container, a database, a folder and an address on a server."""

    __tablename__ = "clients"
    __table_args__ = (
        Index("uq_clients_name", "name", unique=True, postgresql_where=text("status <> 'archived'")),
        Index("uq_clients_domain", "domain", unique=True, postgresql_where=text("status <> 'archived'")),
        Index("uq_clients_server_id_port", "server_id", "port", unique=True, postgresql_where=text("port IS NOT NULL")),
        CheckConstraint(r"name ~ '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$'", name="name"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    uid: Mapped[UUID] = mapped_column(default=uuid7, unique=True)
    """Marks what is ours on a server, so that nothing else is ever taken for it."""
    name: Mapped[str] = mapped_column(String(40))
    title: Mapped[str] = mapped_column(String(200), default="", server_default="")
    email: Mapped[str] = mapped_column(String(254))
    locale: Mapped[str] = mapped_column(String(2), default="ru", server_default="ru")
    domain: Mapped[str] = mapped_column(String(253))
    owner_login: Mapped[str] = mapped_column(String(254))
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"), index=True)
    image: Mapped[str] = mapped_column(String(300))
    """As asked: a tag or a channel."""
    image_ref: Mapped[str] = mapped_column(String(300), default="", server_default="")
    """REPOSITORY:TAG that the wish was resolved to."""
    former_image_ref: Mapped[str] = mapped_column(String(300), default="", server_default="")
    """The one before it: the way back."""
    version: Mapped[str] = mapped_column(String(128), default="", server_default="")
    """What runs; empty while nothing does."""
    migration_pending: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    status: Mapped[str] = mapped_column(String(16), default=ClientStatus.CREATING, server_default="creating")
    activated_at: Mapped[datetime | None]
    """When it first came to life; before that it can be removed without an archive."""
    slot: Mapped[str] = mapped_column(String(1), default="a", server_default="a")
    """Which of its two places its container is in."""
    port: Mapped[int | None]
    """Of that slot, on the server's loopback; None once it is archived."""
    spare_port: Mapped[int | None]
    """Of the other slot; None until the first switch."""
    available: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    available_at: Mapped[datetime | None]
    available_reason: Mapped[str] = mapped_column(String(200), default="", server_default="")
    dns_ok: Mapped[bool | None]
    maintenance: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    maintenance_text: Mapped[str] = mapped_column(String(500), default="", server_default="")
    """What the maintenance page says beside its own words."""
    maintenance_ends_at: Mapped[datetime | None]
    blocked: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    demo: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    turbostart: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    tutorial: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    expire_date: Mapped[date | None]
    users_count: Mapped[int | None]
    users_counted_at: Mapped[datetime | None]
    max_resources: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    """`memory_bytes`, where it differs from the app profile's."""
    copy_of: Mapped[str] = mapped_column(String(40), default="", server_default="")
    """The name of the client that this one was copied from: it sends no letters."""
    success_sent_at: Mapped[datetime | None]
    """When the letter with the first password left; the password is erased by then."""
    last_backup_at: Mapped[datetime | None]
    last_proven_at: Mapped[datetime | None]
    app_key: Mapped[bytes]
    """Sealed; it must never change, or what the application encrypted is lost."""
    database_password: Mapped[bytes]
    """Sealed."""
    owner_password: Mapped[bytes | None]
    """Sealed, until the letter with it was sent."""
    operation_id: Mapped[UUID | None]
    """The last operation that creates or changes it."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp(), onupdate=func.clock_timestamp())

    @property
    def database(self) -> str:
        """The name of its database, and of the database's user."""
        return f"alfa_{self.id}"
