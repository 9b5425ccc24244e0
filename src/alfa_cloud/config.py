"""Settings: frozen, and the only reader of the environment. `.env.example` explains each."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from alfa_cloud.profile import Keeping, MailProfile, Profile, Source
from alfa_cloud.specs import AppProfile, Secret

Network = IPv4Network | IPv6Network
Csv = NoDecode
"""Values of a list stand in one variable, separated by commas."""


def split_csv(value: Any) -> Any:
    """A tuple of the trimmed, non-empty parts of a comma-separated text; anything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class Settings(BaseSettings):
    """Everything that can be set; units stand in the names."""

    model_config = SettingsConfigDict(env_prefix="ALFA_", env_nested_delimiter="__", frozen=True, extra="ignore")

    database_url: str
    redis_url: str
    smtp_url: str = ""
    mail_from: str = ""
    mail_contact: str = ""
    """Whom a letter's reader may ask; empty is whoever sent it."""
    mail_templates: str = ""
    """A folder whose files replace the built-in letters of the same name."""
    send_success_automatically: bool = False
    reminders: bool = True
    reminder_days: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], Csv] = (30, 14, 7, 3, 1)
    remind_from_hour: int = Field(9, ge=0, le=23)
    expired_letter: bool = False
    """Whether a letter says that the term has ended."""
    block_expired: bool = True
    letter_delays_s: Annotated[tuple[float, ...], Csv] = (0.0, 30.0, 120.0, 600.0, 900.0)
    """Before each try to hand a letter over, while the mail server takes none."""
    users_interval_s: float = Field(600, gt=0)
    dns_interval_s: float = Field(600, gt=0)
    timezone: str = "Europe/Moscow"
    secret_key: Annotated[tuple[SecretStr, ...], Csv]
    """Keys that encrypt secrets in the database, the current one first; 32 bytes each, base64."""

    admin_login: str | None = None
    admin_password: SecretStr | None = None
    """The first administrator; read only while the database has none."""
    login_tries: int = Field(10, ge=1)
    """Wrong logins that an address has free; then one after each pause."""
    login_pause_s: float = Field(30, gt=0)
    login_tries_all: int = Field(50, ge=1)
    """The same for all addresses together that no right login came from."""
    login_pause_all_s: float = Field(1, gt=0)

    allowed_origins: Annotated[tuple[str, ...], Csv]
    allowed_networks: Annotated[tuple[str, ...], Csv]
    public_url: str = "http://127.0.0.1:8000"
    trusted_proxies: Annotated[tuple[str, ...], Csv] = ()
    server_networks: Annotated[tuple[str, ...], Csv] = ()
    """Private and loopback networks in which servers may stand; public addresses need no naming."""

    sandbox: bool = False
    """Set by `alfa-cloud sandbox` alone: origins on localhost are allowed."""

    app: AppProfile = AppProfile()
    source: Source = Source()

    lease_s: float = Field(30, gt=0)
    heartbeat_s: float = Field(10, gt=0)
    reconcile_s: float = Field(5, gt=0)
    worker_slots: int = Field(16, ge=1, le=200)
    poll_delay_s: float = Field(0.5, gt=0)
    retry_delays_s: Annotated[tuple[float, ...], Csv] = (1.0, 5.0, 25.0)
    connect_timeout_s: float = Field(10, gt=0)

    log_lines: int = Field(100_000, ge=100)
    log_bytes: int = Field(10_000_000, ge=100_000)
    log_keep_days: int = Field(90, ge=1)
    probe_interval_s: float = Field(60, gt=0)
    sample_keep_days: int = Field(14, ge=1)
    reboot_deadline_s: float = Field(600, gt=0)
    """How long a server may be away that is rebooted."""
    keep: Keeping = Keeping()
    min_free_bytes: int = 2_000_000_000
    certbot_email: str = ""
    certbot_server: str = ""
    """An ACME directory other than Let's Encrypt's; empty for that one."""
    log_level: str = "INFO"
    failpoint: str = ""
    """Tests only: where a worker is to die; see `jobs/failpoint.py`."""

    @field_validator(
        "secret_key",
        "allowed_origins",
        "allowed_networks",
        "trusted_proxies",
        "server_networks",
        "retry_delays_s",
        "reminder_days",
        "letter_delays_s",
        mode="before",
    )
    @classmethod
    def split(cls, value: Any) -> Any:
        """Comma-separated text becomes a tuple."""
        return split_csv(value)

    @field_validator("app", "source", mode="before")
    @classmethod
    def parse_commands(cls, value: Any) -> Any:
        """Commands stand in their variables as JSON lists."""
        if not isinstance(value, dict):
            return value
        names = (
            "migrate",
            "owner",
            "demo",
            "demo_inverse",
            "scrub",
            "copy_environment",
            "dev_frontend",
            "master_frontend",
        )
        commands = {name: json.loads(value[name]) for name in names if isinstance(value.get(name), str)}
        return {**value, **commands}

    @field_validator("allowed_networks", "trusted_proxies", "server_networks")
    @classmethod
    def check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Every entry is a network; `*` stands for all of them."""
        for entry in value:
            if entry != "*":
                ip_network(entry, strict=False)
        return value

    @field_validator("timezone")
    @classmethod
    def check_timezone(cls, value: str) -> str:
        """The name of a time zone that is known here."""
        ZoneInfo(value)
        return value

    @model_validator(mode="after")
    def check_doors(self) -> Self:
        """The doors are set on purpose: `*` must be said, and a heartbeat comes twice in a lease."""
        if not self.allowed_networks:
            raise ValueError("ALFA_ALLOWED_NETWORKS is needed; say * for every address")
        if not self.allowed_origins:
            raise ValueError("ALFA_ALLOWED_ORIGINS is needed; say * for no limit by origin")
        if not self.secret_key:
            raise ValueError("ALFA_SECRET_KEY is needed: 32 random bytes in base64")
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError("ALFA_HEARTBEAT_S must be at most half of ALFA_LEASE_S")
        return self

    @property
    def profile(self) -> Profile:
        """What plans take of these settings."""
        mail = MailProfile(
            smtp_url=Secret(self.smtp_url),
            sender=self.mail_from,
            contact=self.mail_contact,
            templates=self.mail_templates,
            delays_s=self.letter_delays_s,
            success_automatically=self.send_success_automatically,
        )
        return Profile(
            self.app,
            self.min_free_bytes,
            self.certbot_email,
            self.certbot_server,
            mail=mail,
            zone=ZoneInfo(self.timezone),
            block_expired=self.block_expired,
            source=self.source,
            reboot_deadline_s=self.reboot_deadline_s,
            keeping=self.keep,
        )


def networks(entries: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks named by settings; `*` is every address."""
    every = ("0.0.0.0/0", "::/0")
    return tuple(ip_network(text, strict=False) for entry in entries for text in (every if entry == "*" else (entry,)))


def load() -> Settings:
    """Settings from the environment.

    Raises:
        pydantic.ValidationError: something is missing or wrong; the message names the field.
    """
    return Settings()
