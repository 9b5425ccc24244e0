"""First tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


STATE_TRIGGERS = """
CREATE FUNCTION operations_state_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('ok', 'error', 'cancelled') AND NEW.state IS DISTINCT FROM OLD.state THEN
        RAISE EXCEPTION 'operation % has ended as %', OLD.id, OLD.state USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER state_is_final BEFORE UPDATE OF state ON operations
    FOR EACH ROW EXECUTE FUNCTION operations_state_is_final();

-- Runs at the commit, under a lock held to its end: the order of ids is the order of commits, so a reader that
-- resumes after an id misses nothing.
CREATE FUNCTION operations_tell_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.state = OLD.state THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(1634494052);
    INSERT INTO operation_events (operation_id, state) VALUES (NEW.id, NEW.state);
    PERFORM pg_notify('alfa_state', NEW.id::text);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER tell_state AFTER INSERT OR UPDATE OF state ON operations
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION operations_tell_state();
"""


def statements(script: str) -> list[str]:
    """The statements of a script; none of them has an empty line within."""
    return [part for part in script.split("\n\n") if part.strip()]


def upgrade() -> None:
    """Bring the change in."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "credentials",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("login", sa.String(length=200), nullable=False),
        sa.Column("password_hash", sa.String(length=300), nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("id = 1", name=op.f("ck_credentials_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credentials")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("method", sa.String(length=8), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(
        op.f("ix_idempotency_keys_created_at"),
        "idempotency_keys",
        ["created_at"],
        unique=False,
    )
    op.create_table(
        "operation_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column(
            "at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation_events")),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("client_id", sa.Integer(), nullable=True),
        sa.Column("server_id", sa.Integer(), nullable=True),
        sa.Column("exclusive", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column(
            "params",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("equal_key", sa.String(length=64), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), server_default="queued", nullable=False),
        sa.Column("step", sa.String(length=200), nullable=True),
        sa.Column("progress", sa.Double(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("worker", sa.String(length=100), nullable=True),
        sa.Column(
            "error",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
        ),
        sa.Column(
            "warnings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column(
            "result",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
        ),
        sa.Column("cancel_requested_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("deadline_s", sa.Double(), server_default="14400", nullable=False),
        sa.Column("last_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("log_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "checkpoints",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("actor", sa.String(length=200), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'ok', 'error', 'cancelled')",
            name=op.f("ck_operations_state"),
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["operations.id"],
            name=op.f("fk_operations_parent_id_operations"),
        ),
        sa.ForeignKeyConstraint(
            ["retry_of"],
            ["operations.id"],
            name=op.f("fk_operations_retry_of_operations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index("ix_operations_client_id_id", "operations", ["client_id", "id"], unique=False)
    op.create_index(
        "ix_operations_created_at", "operations", [sa.literal_column("created_at DESC NULLS LAST"), "id"], unique=False
    )
    op.create_index("ix_operations_finished_at", "operations", ["finished_at"], unique=False)
    op.create_index(
        "ix_operations_preparations",
        "operations",
        ["server_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("kind = 'prepare_server'"),
    )
    op.create_index("ix_operations_kind_id", "operations", ["kind", "id"], unique=False)
    op.create_index(op.f("ix_operations_parent_id"), "operations", ["parent_id"], unique=False)
    op.create_index(op.f("ix_operations_server_id"), "operations", ["server_id"], unique=False)
    op.create_index(
        "ix_operations_unfinished",
        "operations",
        ["created_at", "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_operations_unfinished_client_id",
        "operations",
        ["client_id", "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_operations_unfinished_server_id",
        "operations",
        ["server_id", "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "servers",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("port", sa.Integer(), server_default="22", nullable=False),
        sa.Column("username", sa.String(length=32), server_default="www-data", nullable=False),
        sa.Column("role", sa.String(length=16), server_default="production", nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("database_engine", sa.String(length=16), nullable=False),
        sa.Column("base_domain", sa.String(length=200), nullable=False),
        sa.Column("tls", sa.String(length=16), server_default="certbot", nullable=False),
        sa.Column("host_key", sa.String(length=2000), nullable=False),
        sa.Column(
            "host_key_changed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
        ),
        sa.Column("max_clients", sa.Integer(), server_default="100", nullable=False),
        sa.Column("max_parallel", sa.Integer(), server_default="4", nullable=False),
        sa.Column(
            "layout",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("reachable", sa.Boolean(), nullable=True),
        sa.Column("seen_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "requirements",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("requirements_ok", sa.Boolean(), nullable=True),
        sa.Column(
            "images",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("images_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("load", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("load_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("max_parallel BETWEEN 1 AND 64", name=op.f("ck_servers_max_parallel")),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_servers_port")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_servers")),
    )
    op.create_index("uq_servers_host_port", "servers", ["host", "port"], unique=True)
    op.create_index("uq_servers_name", "servers", ["name"], unique=True)
    op.create_table(
        "ssh_identities",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("public_key", sa.String(length=2000), nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_ssh_identities_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ssh_identities")),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column(
            "seen_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "clients",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("title", sa.String(length=200), server_default="", nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("locale", sa.String(length=2), server_default="ru", nullable=False),
        sa.Column("domain", sa.String(length=253), nullable=False),
        sa.Column("owner_login", sa.String(length=254), nullable=False),
        sa.Column("server_id", sa.Integer(), nullable=False),
        sa.Column("image", sa.String(length=300), nullable=False),
        sa.Column("image_ref", sa.String(length=300), server_default="", nullable=False),
        sa.Column("version", sa.String(length=128), server_default="", nullable=False),
        sa.Column(
            "migration_pending",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
        ),
        sa.Column("status", sa.String(length=16), server_default="creating", nullable=False),
        sa.Column("activated_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("available", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("available_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("available_reason", sa.String(length=200), server_default="", nullable=False),
        sa.Column("dns_ok", sa.Boolean(), nullable=True),
        sa.Column("maintenance", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("demo", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("turbostart", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("tutorial", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("expire_date", sa.Date(), nullable=True),
        sa.Column("users_count", sa.Integer(), nullable=True),
        sa.Column("users_counted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "max_resources",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("last_backup_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_proven_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("app_key", sa.LargeBinary(), nullable=False),
        sa.Column("database_password", sa.LargeBinary(), nullable=False),
        sa.Column("owner_password", sa.LargeBinary(), nullable=True),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "name ~ '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$'",
            name=op.f("ck_clients_name"),
        ),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_clients_server_id_servers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
        sa.UniqueConstraint("uid", name=op.f("uq_clients_uid")),
    )
    op.create_index(op.f("ix_clients_server_id"), "clients", ["server_id"], unique=False)
    op.create_index(
        "uq_clients_domain",
        "clients",
        ["domain"],
        unique=True,
        postgresql_where=sa.text("status <> 'archived'"),
    )
    op.create_index(
        "uq_clients_name",
        "clients",
        ["name"],
        unique=True,
        postgresql_where=sa.text("status <> 'archived'"),
    )
    op.create_index(
        "uq_clients_server_id_port",
        "clients",
        ["server_id", "port"],
        unique=True,
        postgresql_where=sa.text("port IS NOT NULL"),
    )
    op.create_table(
        "operation_lines",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column(
            "at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("stream", sa.String(length=8), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.id"],
            name=op.f("fk_operation_lines_operation_id_operations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("operation_id", "seq", name=op.f("pk_operation_lines")),
    )
    op.create_table(
        "operation_steps",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=16), server_default="pending", nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.id"],
            name=op.f("fk_operation_steps_operation_id_operations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("operation_id", "position", name=op.f("pk_operation_steps")),
    )
    for statement in statements(STATE_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Take the change back."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("operation_steps")
    op.drop_table("operation_lines")
    op.drop_index(
        "uq_clients_server_id_port",
        table_name="clients",
        postgresql_where=sa.text("port IS NOT NULL"),
    )
    op.drop_index(
        "uq_clients_name",
        table_name="clients",
        postgresql_where=sa.text("status <> 'archived'"),
    )
    op.drop_index(
        "uq_clients_domain",
        table_name="clients",
        postgresql_where=sa.text("status <> 'archived'"),
    )
    op.drop_index(op.f("ix_clients_server_id"), table_name="clients")
    op.drop_table("clients")
    op.drop_table("workers")
    op.drop_table("ssh_identities")
    op.drop_index("uq_servers_name", table_name="servers")
    op.drop_index("uq_servers_host_port", table_name="servers")
    op.drop_table("servers")
    op.drop_index(
        "ix_operations_unfinished_server_id",
        table_name="operations",
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.drop_index(
        "ix_operations_unfinished_client_id",
        table_name="operations",
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.drop_index(
        "ix_operations_unfinished",
        table_name="operations",
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.drop_index(op.f("ix_operations_server_id"), table_name="operations")
    op.drop_index(op.f("ix_operations_parent_id"), table_name="operations")
    op.drop_index("ix_operations_kind_id", table_name="operations")
    op.drop_index("ix_operations_client_id_id", table_name="operations")
    op.drop_table("operations")
    op.drop_table("operation_events")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("credentials")
    op.execute("DROP FUNCTION operations_state_is_final, operations_tell_state")
