"""Servers of the fleet, and the key this service logs in with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from alfa_cloud.db import Base
from alfa_cloud.specs import Address, DatabaseEngine, Layout, ServerRole, Tls


class Server(Base):
    """A Linux server that clients stand on."""

    __tablename__ = "servers"
    __table_args__ = (
        Index("uq_servers_name", "name", unique=True),
        Index("uq_servers_host_port", "host", "port", unique=True),
        CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
        CheckConstraint("max_parallel BETWEEN 1 AND 64", name="max_parallel"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    host: Mapped[str] = mapped_column(String(253))
    port: Mapped[int] = mapped_column(default=22, server_default="22")
    username: Mapped[str] = mapped_column(String(32), default="www-data", server_default="www-data")
    role: Mapped[str] = mapped_column(String(16), default=ServerRole.PRODUCTION, server_default="production")
    active: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    database_engine: Mapped[str] = mapped_column(String(16))
    base_domain: Mapped[str] = mapped_column(String(200))
    tls: Mapped[str] = mapped_column(String(16), default=Tls.CERTBOT, server_default="certbot")
    host_key: Mapped[str] = mapped_column(String(2000))
    """One OpenSSH public key line; the only key the server may show."""
    host_key_changed: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Another key was shown: nothing is done on this server until it is pinned anew."""
    max_clients: Mapped[int] = mapped_column(default=100, server_default="100")
    max_parallel: Mapped[int] = mapped_column(default=4, server_default="4")
    layout: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))
    reachable: Mapped[bool | None]
    """None before the first look."""
    seen_at: Mapped[datetime | None]
    requirements: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    """The last check, a row for each requirement."""
    requirements_ok: Mapped[bool | None]
    images: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default=text("'[]'"))
    """The images at the last look, for when the server does not answer."""
    images_at: Mapped[datetime | None]
    load: Mapped[dict[str, Any] | None]
    load_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp(), onupdate=func.clock_timestamp())

    @property
    def address(self) -> Address:
        """What a connection needs."""
        return Address(self.id, self.host, self.port, self.username, self.host_key)

    @property
    def layout_spec(self) -> Layout:
        """Where things are on it."""
        return Layout.parse(self.layout)

    @property
    def engine(self) -> DatabaseEngine:
        """The database system of its clients."""
        return DatabaseEngine(self.database_engine)


class ServerSample(Base):
    """What a server's load was at one moment."""

    __tablename__ = "server_samples"

    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True, server_default=func.clock_timestamp())
    values: Mapped[dict[str, Any]]
    """As `remote.load.Load` has them."""


class SshIdentity(Base):
    """The key pair this service logs in to servers with: one row, made once."""

    __tablename__ = "ssh_identities"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    public_key: Mapped[str] = mapped_column(String(2000))
    private_key: Mapped[bytes]
    """Sealed by the vault."""
