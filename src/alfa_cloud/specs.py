"""Frozen value objects that pass unchanged from a request to a JSONB column to a playbook."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, NoReturn, Self, TypeVar

T = TypeVar("T")

PATH: Final = re.compile(r"(?:/[A-Za-z0-9._-]+)+")
NETWORK_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
LAST_PORT: Final = 65535
SUBNET_BITS: Final = (8, 29)
"""Of a client's containers: at least four of them, beside the gateway."""


class Secret:
    """Text that must not be shown: it prints as stars, and neither pickles nor encodes as JSON."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for standard input, a 0600 file or a cipher."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")


class OperationState(StrEnum):
    """Where an operation stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return self in TERMINAL_STATES


TERMINAL_STATES: Final = frozenset({OperationState.OK, OperationState.ERROR, OperationState.CANCELLED})


class StepState(StrEnum):
    """Where a step of an operation stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    """It already held: nothing was changed."""
    WAITING = "waiting"
    """It was put off, and is tried again later."""
    FAILED = "failed"
    UNDONE = "undone"


class Stream(StrEnum):
    """Where a log line comes from."""

    STEP = "step"
    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"


class ClientStatus(StrEnum):
    """What a client is, as a whole."""

    CREATING = "creating"
    ACTIVE = "active"
    EXPIRED = "expired"
    MOVING = "moving"
    FAILED = "failed"
    DELETING = "deleting"
    ARCHIVED = "archived"
    RESTORING = "restoring"


class DatabaseEngine(StrEnum):
    """The database system of a server's clients."""

    MARIADB = "mariadb"
    POSTGRESQL = "postgresql"


class Tls(StrEnum):
    """Where a server's certificates come from."""

    CERTBOT = "certbot"
    NONE = "none"


class ServerRole(StrEnum):
    """What a server is for."""

    PRODUCTION = "production"
    STAGE = "stage"


class OperationKind(StrEnum):
    """What an operation does; each has a playbook, but for the fleet commands, which have children."""

    PREPARE_SERVER = "prepare_server"
    PROVISION_SERVER = "provision_server"
    REBOOT_SERVER = "reboot_server"
    PRUNE_SERVER = "prune_server"
    BUILD_IMAGE = "build_image"

    CREATE_CLIENT = "create_client"
    UPDATE_CLIENT = "update_client"
    DELETE_CLIENT = "delete_client"
    REBOOT_CLIENT = "reboot_client"
    ENABLE_MAINTENANCE = "enable_maintenance"
    DISABLE_MAINTENANCE = "disable_maintenance"
    ENABLE_DEMO = "enable_demo"
    DISABLE_DEMO = "disable_demo"
    SET_OWNER_PASSWORD = "set_owner_password"  # noqa: S105  a kind of operation
    SET_EXPIRE_DATE = "set_expire_date"
    SWITCH_CLIENT = "switch_client"
    MIGRATE_CLIENT = "migrate_client"
    DEPLOY_CLIENT = "deploy_client"
    BACK_UP_CLIENT = "back_up_client"
    RESTORE_BACKUP = "restore_backup"
    PROVE_BACKUP = "prove_backup"
    REMOVE_BACKUP = "remove_backup"
    MOVE_CLIENT = "move_client"
    UNDO_MOVE = "undo_move"
    COPY_CLIENT = "copy_client"
    RESTORE_CLIENT = "restore_client"
    CLEAR_PLACE = "clear_place"
    SEND_SUCCESS = "send_success"
    SEND_EXPIRE = "send_expire"

    SWITCH_ALL = "switch_all"
    MIGRATE_ALL = "migrate_all"
    DEPLOY = "deploy"
    PRUNE = "prune"
    ENABLE_MAINTENANCE_ALL = "enable_maintenance_all"
    DISABLE_MAINTENANCE_ALL = "disable_maintenance_all"


FLEET_KINDS: Final = frozenset(
    {
        OperationKind.SWITCH_ALL,
        OperationKind.MIGRATE_ALL,
        OperationKind.DEPLOY,
        OperationKind.PRUNE,
        OperationKind.ENABLE_MAINTENANCE_ALL,
        OperationKind.DISABLE_MAINTENANCE_ALL,
    }
)
"""Parents: they hold no lock and no worker's slot; their children do the work."""


class Slot(StrEnum):
    """Which of a client's two places its container is in; a new one starts in the other, beside it."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        """The place beside this one."""
        return Slot.B if self is Slot.A else Slot.A


class PageKind(StrEnum):
    """A page that nginx shows instead of a client's application."""

    MAINTENANCE = "maintenance"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are on a server; a server may say otherwise in `.alfa.json` in its user's home.

    Everything has the value of a Debian server by default.
    """

    root: str = "/srv/alfa"
    nginx_dir: str = "/etc/nginx/conf.d"
    http_port: int = 80
    https_port: int = 443
    docker_network: str = "alfa"
    docker_subnet: str = "172.30.0.0/24"
    database_host: str = "172.30.0.1"
    """What containers connect to: the gateway of the containers' network."""
    database_port: int = 0
    """0 is the engine's own."""
    first_port: int = 20000
    last_port: int = 29999
    certbot_webroot: str = "/var/www/html"
    certificates_dir: str = "/etc/letsencrypt/live"

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Take the known keys of the right type; others are left out.

        Raises:
            ValueError: a value cannot be what it is for; the message names it.
        """
        known = {f.name: type(f.default) for f in fields(cls)}
        values: dict[str, Any] = {k: v for k, v in raw.items() if k in known and type(v) is known[k]}
        layout = cls(**values)
        layout._check()
        return layout

    def _check(self) -> None:
        for name in ("root", "nginx_dir", "certbot_webroot", "certificates_dir"):
            path = getattr(self, name)
            if not PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
                raise ValueError(f"{name} is no absolute path of letters, digits and . _ - between single slashes")
        for name in ("http_port", "https_port", "first_port", "last_port"):
            if not 1 <= getattr(self, name) <= LAST_PORT:
                raise ValueError(f"{name} is no port from 1 to {LAST_PORT}")
        if not 0 <= self.database_port <= LAST_PORT:
            raise ValueError(f"database_port is no port from 1 to {LAST_PORT}, nor 0")
        if self.first_port > self.last_port:
            raise ValueError("first_port is greater than last_port")
        if not NETWORK_NAME.fullmatch(self.docker_network):
            raise ValueError("docker_network is no name of letters, digits and . _ -, at most 63")
        try:
            IPv4Address(self.database_host)
            subnet = IPv4Network(self.docker_subnet)
        except ValueError as error:
            raise ValueError(f"database_host or docker_subnet: {str(error)[:200]}") from error
        if not SUBNET_BITS[0] <= subnet.prefixlen <= SUBNET_BITS[1] or "/" not in self.docker_subnet:
            raise ValueError(f"docker_subnet is no network of {SUBNET_BITS[0]} to {SUBNET_BITS[1]} bits")

    def client_dir(self, name: str) -> str:
        """The folder of one client."""
        return f"{self.root}/clients/{name}"

    def operation_dir(self, operation_id: str) -> str:
        """The folder of one operation's detached commands."""
        return f"{self.root}/operations/{operation_id}"

    def vhost_path(self, name: str) -> str:
        """The nginx file of one client."""
        return f"{self.nginx_dir}/alfa-{name}.conf"


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach a server: everything a connection needs."""

    server_id: int
    host: str
    port: int
    username: str
    host_key: str
    """One line of an OpenSSH public key: the only key this server may show."""


@dataclass(frozen=True, slots=True)
class AppProfile:
    """How the clients' application is run; the defaults are Laravel's. Commands run in the container."""

    image: str = "alfa"
    port: int = 80
    health_path: str = "/up"
    health_deadline_s: float = 120
    migrate: tuple[str, ...] = ("php", "artisan", "migrate", "--force")
    migrate_deadline_s: float = 3600
    owner: tuple[str, ...] = ("php", "artisan", "owner:password", "{login}", "--create")
    demo: tuple[str, ...] = ("php", "artisan", "db:seed", "--class=DemoSeeder", "--force")
    demo_inverse: tuple[str, ...] = ("php", "artisan", "db:seed", "--class=DemoInverseSeeder", "--force")
    demo_deadline_s: float = 3600
    users_table: str = "users"
    new_password_path: str = "/forgot-password"  # noqa: S105
    """Where a user sets a new password; empty where there is no such page."""
    storage_dir: str = "/srv/app/storage"
    copy_environment: tuple[str, ...] = (
        "APP_ENV=staging", "MAIL_MAILER=log", "QUEUE_CONNECTION=null", "SCHEDULER_ENABLED=false",
    )  # fmt: skip
    """NAME=VALUE: what a copy is told beside the rest, so that it sends no letters and does no work by itself."""
    scrub: tuple[str, ...] = ()
    """Takes personal data out of a copy; empty where there is no such command."""
    scrub_deadline_s: float = 3600
    memory_bytes: int = 512 * 1024**2
    pids: int = 256


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """All that is needed to bring a client to life on its server, but for its secrets."""

    id: int
    uid: str
    """Marks the client's folder and database as its own."""
    name: str
    title: str
    domain: str
    email: str
    locale: str
    owner_login: str
    image: str
    """REPOSITORY:TAG."""
    version: str
    url: str
    slot: Slot
    port: int
    """Of that slot, on the server's loopback."""
    spare_port: int
    """Of the other one."""
    database: str
    database_user: str
    engine: DatabaseEngine
    tls: Tls
    memory_bytes: int
    layout: Layout
    app: AppProfile
    copy_of: str = ""
    """The client that this one is a copy of; empty for all others."""
    page: PageKind | None = None
    """What nginx shows instead of the application; None is the application."""
    page_text: str = ""
    """What an administrator wants on the maintenance page."""
    page_ends_at: str = ""
    """When maintenance is thought to end, RFC 3339; empty where nobody said."""

    @property
    def directory(self) -> str:
        """The client's folder on the server."""
        return self.layout.client_dir(self.name)

    @property
    def certificate(self) -> str:
        """certbot's name of its certificate: that of its domain, so that a new domain gets a new one."""
        return self.domain

    @property
    def project(self) -> str:
        """The name of the compose project."""
        return f"alfa-{self.name}"

    @property
    def container(self) -> str:
        """The name of the app's container."""
        return f"alfa-{self.name}-{self.service}"

    @property
    def service(self) -> str:
        """The name of the app's service in the compose project."""
        return f"app-{self.slot}"

    def beside(self, image: str) -> ClientSpec:
        """The same client in its other slot, from an image."""
        return replace(
            self,
            image=image,
            version=image.rpartition(":")[2],
            slot=self.slot.other,
            port=self.spare_port,
            spare_port=self.port,
        )


CloudSettings = tuple[tuple[str, str | None], ...]
"""What `cloud_settings` in a client's database says, as (name, value)."""


@dataclass(frozen=True, slots=True)
class ClientSecrets:
    """A client's secrets; they live encrypted, and never leave the worker but to the server."""

    app_key: Secret
    database_password: Secret
    owner_password: Secret | None


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=asdict)


def fingerprint(value: Any) -> str:
    """A short name for a value: equal values have equal ones."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
