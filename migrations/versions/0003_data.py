"""What moves and back-ups of clients keep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
MOMENT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Make the change."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("operations", sa.Column("other_server_id", sa.Integer(), nullable=True))
    op.add_column("clients", sa.Column("copy_of", sa.String(length=40), server_default="", nullable=False))
    op.create_table(
        "places",
        sa.Column("client_id", sa.Integer(), nullable=False),
        sa.Column("server_id", sa.Integer(), nullable=False),
        sa.Column("slot", sa.String(length=1), server_default="a", nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("spare_port", sa.Integer(), nullable=False),
        sa.Column("image_ref", sa.String(length=300), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("keep_until", MOMENT, nullable=True),
        sa.Column("forward_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_places_client_id_clients"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_places_server_id_servers")),
        sa.PrimaryKeyConstraint("client_id", "server_id", name=op.f("pk_places")),
    )
    op.create_index(op.f("ix_places_server_id"), "places", ["server_id"])
    op.create_table(
        "backups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Integer(), nullable=False),
        sa.Column("server_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=128), server_default="", nullable=False),
        sa.Column("tables", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("files_count", sa.BigInteger(), nullable=False),
        sa.Column("files_bytes", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("keep_until", MOMENT, nullable=True),
        sa.Column("checked_at", MOMENT, nullable=True),
        sa.Column("proven_at", MOMENT, nullable=True),
        sa.Column("proof_error", sa.String(length=500), server_default="", nullable=False),
        sa.CheckConstraint("reason IN ('command', 'schedule', 'restore', 'final')", name=op.f("ck_backups_reason")),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_backups_client_id_clients"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_backups_server_id_servers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_index("ix_backups_client_id_created_at", "backups", ["client_id", "created_at"])
    op.create_index(op.f("ix_backups_server_id"), "backups", ["server_id"])
