"""What must agree: migrations and models, `.env.example` and the settings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from alembic import command
from pydantic_settings import BaseSettings

from alfa_cloud import schema
from alfa_cloud.config import Settings, networks
from alfa_cloud.profile import Keeping, Source
from alfa_cloud.sandbox.stores import EmbeddedPostgres
from alfa_cloud.specs import AppProfile

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {
    "ALFA_DATABASE_URL": "postgresql://alfa@db/alfa",
    "ALFA_REDIS_URL": "redis://redis",
    "ALFA_SECRET_KEY": "A" * 43 + "=",
    "ALFA_ALLOWED_ORIGINS": "https://mol.test",
    "ALFA_ALLOWED_NETWORKS": "10.0.0.0/8",
}


def test_the_migrations_make_what_the_models_say(postgres: EmbeddedPostgres, template: str) -> None:
    command.check(schema.alembic_config(postgres.url_for(template)))


def test_the_example_names_every_setting() -> None:
    named = set(re.findall(r"^(ALFA_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    wanted = {f"ALFA_{name.upper()}" for name in Settings.model_fields if name not in ("app", "source", "keep")}
    wanted |= {f"ALFA_APP__{name.upper()}" for name in (field.name for field in fields(AppProfile))}
    wanted |= {f"ALFA_SOURCE__{field.name.upper()}" for field in fields(Source)}
    wanted |= {f"ALFA_KEEP__{field.name.upper()}" for field in fields(Keeping)}
    assert named == wanted


def test_the_example_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (ROOT / ".env.example").read_text().splitlines():
        if line.startswith("ALFA_"):
            name, _, value = line.partition("=")
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert isinstance(settings, BaseSettings)
    assert settings.app.migrate == ("php", "artisan", "migrate", "--force")
    assert settings.app == AppProfile()
    assert settings.keep == settings.profile.keeping == Keeping()


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_the_service_does_not_start_without_what_it_needs(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    assert Settings()
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=missing.removeprefix("ALFA_").lower()):
        Settings()
    monkeypatch.setenv(missing, "")
    if missing not in ("ALFA_DATABASE_URL", "ALFA_REDIS_URL"):
        with pytest.raises(ValueError, match=missing):
            Settings()


def test_every_network_must_be_said() -> None:
    assert {str(network) for network in networks(("*",))} == {"0.0.0.0/0", "::/0"}
