"""What the commands of clients and servers keep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
MOMENT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Make the change."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("operations", sa.Column("secrets", sa.LargeBinary(), nullable=True))
    op.add_column("operations", sa.Column("locks_client", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("clients", sa.Column("former_image_ref", sa.String(length=300), server_default="", nullable=False))
    op.add_column("clients", sa.Column("slot", sa.String(length=1), server_default="a", nullable=False))
    op.add_column("clients", sa.Column("spare_port", sa.Integer(), nullable=True))
    op.add_column("clients", sa.Column("maintenance_text", sa.String(length=500), server_default="", nullable=False))
    op.add_column("clients", sa.Column("maintenance_ends_at", MOMENT, nullable=True))
    op.add_column("clients", sa.Column("success_sent_at", MOMENT, nullable=True))
    op.create_table(
        "server_samples",
        sa.Column("server_id", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("values", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_server_samples_server_id_servers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", "at", name=op.f("pk_server_samples")),
    )
    op.create_table(
        "expire_dates",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("client_id", sa.Integer(), nullable=False),
        sa.Column("old_date", sa.Date(), nullable=True),
        sa.Column("new_date", sa.Date(), nullable=True),
        sa.Column("comment", sa.String(length=500), server_default="", nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_expire_dates_client_id_clients"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expire_dates")),
    )
    op.create_index(op.f("ix_expire_dates_client_id"), "expire_dates", ["client_id"])
    op.create_table(
        "reminders",
        sa.Column("client_id", sa.Integer(), nullable=False),
        sa.Column("expire_date", sa.Date(), nullable=False),
        sa.Column("days", sa.SmallInteger(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_reminders_client_id_clients"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client_id", "expire_date", "days", name=op.f("pk_reminders")),
    )


def downgrade() -> None:
    """Take the change back."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("reminders")
    op.drop_table("expire_dates")
    op.drop_table("server_samples")
    for column in (
        "success_sent_at",
        "maintenance_ends_at",
        "maintenance_text",
        "spare_port",
        "slot",
        "former_image_ref",
    ):
        op.drop_column("clients", column)
    for column in ("locks_client", "secrets"):
        op.drop_column("operations", column)
