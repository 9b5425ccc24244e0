"""The database's schema: brought to the newest revision, one process at a time."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config


def migrations_dir() -> Path:
    """The migrations: in an installed package beside this module, in a checkout at its top."""
    inside = Path(__file__).resolve().parent / "migrations"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "migrations"


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration for a database."""
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config


def upgrade(database_url: str) -> None:
    """The database has the newest schema."""
    command.upgrade(alembic_config(database_url), "head")
