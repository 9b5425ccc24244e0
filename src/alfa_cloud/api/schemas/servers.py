"""Servers and their images, as they are written and shown."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from alfa_cloud.api.jsonapi.documents import Attributes, Collection, Document, Relationships, Resource, ToOne, to_one
from alfa_cloud.api.jsonapi.fields import BodyModel
from alfa_cloud.api.jsonapi.negotiation import JSONAPI
from alfa_cloud.errors import FieldError
from alfa_cloud.models import Server
from alfa_cloud.remote.docker import Image
from alfa_cloud.remote.keys import fingerprint, parse_host_key
from alfa_cloud.services.clients import normal_domain
from alfa_cloud.services.samples import Seen, last_known
from alfa_cloud.specs import DatabaseEngine, ServerRole, Tls

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9._:-]{1,253}", re.ASCII)


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise PydanticCustomError("invalid_host", "Give an IP address or a host name")
    return value.lower()


def _host_key(value: str) -> str:
    try:
        return parse_host_key(value)
    except ValueError as error:
        raise PydanticCustomError("invalid_host_key", "{reason}", {"reason": str(error)}) from error


_DOMAIN_PATTERN = r"^(?=.{3,200}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", examples=["berlin-1"])]
Host = Annotated[str, AfterValidator(_host), Field(examples=["cloud1.example.org"])]
Port = Annotated[int, Field(ge=1, le=65535)]
Username = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
BaseDomain = Annotated[str, Field(description="Clients get NAME.base_domain.", examples=["cloud.example.org"])]
HostKey = Annotated[str, AfterValidator(_host_key), Field(max_length=2000)]
MaxClients = Annotated[int, Field(ge=1, le=10_000)]
MaxParallel = Annotated[int, Field(ge=1, le=64, description="Operations on it at once.")]


def _is_domain(value: str) -> bool:
    try:
        return re.fullmatch(_DOMAIN_PATTERN, value) is not None and normal_domain(value) == value
    except FieldError:
        return False


def _base_domain(value: str) -> str:
    if not _is_domain(value):
        raise PydanticCustomError("invalid_domain", "Give a domain name in lower case, such as cloud.example.org")
    return value


CheckedDomain = Annotated[BaseDomain, AfterValidator(_base_domain)]


class ServerCreate(BodyModel):
    """A new server; it is looked at before the answer."""

    name: Name
    host: Host
    port: Port = 22
    username: Username = "www-data"
    role: ServerRole = ServerRole.PRODUCTION
    active: bool = True
    database_engine: DatabaseEngine
    base_domain: CheckedDomain
    tls: Tls = Tls.CERTBOT
    host_key: HostKey | None = Field(None, description="Its SSH host key; taken at first contact where none is given.")
    max_clients: MaxClients = 100
    max_parallel: MaxParallel = 4


class ServerUpdate(BodyModel):
    """What is to be changed of a server; a new address, user or key is tried before it is taken."""

    name: Name = ""
    host: Host = ""
    port: Port = 22
    username: Username = ""
    role: ServerRole = ServerRole.PRODUCTION
    active: bool = True
    database_engine: DatabaseEngine = DatabaseEngine.MARIADB
    base_domain: CheckedDomain = ""
    tls: Tls = Tls.CERTBOT
    host_key: HostKey = ""
    max_clients: MaxClients = 100
    max_parallel: MaxParallel = 4


SERVER_EXAMPLE: Final[dict[str, Any]] = {
    "name": "berlin-1",
    "host": "cloud1.example.org",
    "database_engine": "mariadb",
    "base_domain": "cloud.example.org",
}


Responses = dict[int | str, dict[str, Any]]

NO_SUCH: Final[Responses] = {404: {"$ref": "#/components/responses/404"}}
"""What a route answers whose body names an id."""
KEY_CHANGED: Final[Responses] = {
    502: {
        "description": "The server showed another host key than the pinned one; nothing is done on it any more.",
        "content": {JSONAPI: {"schema": {"$ref": "#/components/schemas/ErrorDocument"}}},
    }
}
"""What a route answers that looks at a server."""


class RequirementValue(Attributes):
    """Something a server must have, and the line that mends what is missing."""

    name: str = Field(examples=["docker"])
    ok: bool
    found: str = Field(description="The version that was found; empty where there is none.")
    needed: str
    mend: str = Field(description="The line for the server's shell, as root; empty where nothing is missing.")
    required: bool = Field(True, description="Whether clients need it; the rest is advice.")


class LoadValue(Attributes):
    """What a server is busy with; sizes in bytes, times in seconds."""

    at: datetime
    age_s: int = Field(description="How old it is.")
    stale: bool = Field(description="It is older than it should be: the server was not reached since.")
    load_1m: float
    load_5m: float
    load_15m: float
    cpu_count: int
    cpu_percent: float = Field(description="Of all processors, over a quarter of a second.")
    memory_total_bytes: int
    memory_used_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    disk_total_bytes: int = Field(description="Of the file system that clients lie on.")
    disk_free_bytes: int
    uptime_s: int
    containers_running: int | None = Field(description="null where Docker does not answer.")


class ServerAttributes(Attributes):
    """A server of the fleet."""

    name: str
    host: str
    port: int
    username: str
    role: ServerRole
    active: bool
    database_engine: DatabaseEngine
    base_domain: str
    tls: Tls
    host_key: str = Field(description="The fingerprint of its pinned host key.", examples=["SHA256:..."])
    host_key_changed: bool = Field(description="It showed another key: nothing is done on it until that is pinned.")
    max_clients: int
    max_parallel: int
    clients_count: int
    reachable: bool | None
    seen_at: datetime | None
    requirements_ok: bool | None
    requirements: list[RequirementValue] = Field(description="As they were at the last look.")
    load: LoadValue | None = Field(
        description="One server: now, or else the last known with `stale`. Lists: of the last minute. null before."
    )
    created_at: datetime
    updated_at: datetime


class ServerRelationships(Relationships):
    """The operation that prepares it, or prepared it last."""

    operation: ToOne


class ServerResource(Resource[Literal["servers"], ServerAttributes, ServerRelationships]):
    """A server."""

    path = "/servers"


class ServerDocument(Document[ServerResource]):
    """One server."""


class ServerCollection(Collection[ServerResource]):
    """A page of servers."""


def load_value(seen: Seen | None) -> LoadValue | None:
    """A load as it is shown."""
    if seen is None:
        return None
    return LoadValue(at=seen.at, age_s=seen.age_s, stale=seen.stale, **seen.values)


def server_resource(
    row: Server, clients_count: int, operation_id: UUID | None, seen: Seen | None = None
) -> ServerResource:
    """A server as a resource object.

    Args:
        seen: its load; the last known where none is given.
    """
    attributes = ServerAttributes(
        name=row.name,
        host=row.host,
        port=row.port,
        username=row.username,
        role=ServerRole(row.role),
        active=row.active,
        database_engine=DatabaseEngine(row.database_engine),
        base_domain=row.base_domain,
        tls=Tls(row.tls),
        host_key=fingerprint(row.host_key),
        host_key_changed=row.host_key_changed,
        max_clients=row.max_clients,
        max_parallel=row.max_parallel,
        clients_count=clients_count,
        reachable=row.reachable,
        seen_at=row.seen_at,
        requirements_ok=row.requirements_ok,
        requirements=[RequirementValue(**found) for found in row.requirements],
        load=load_value(seen or last_known(row)),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
    return ServerResource.make(row.id, attributes, ServerRelationships(operation=to_one("operations", operation_id)))


class ImageAttributes(Attributes):
    """An image of the app on a server."""

    tag: str = Field(examples=["alfa:1.4.2-master"])
    digest: str
    version: str
    branch: str
    commit: str
    size_bytes: int
    created_at: str = Field(description="When it was built.")
    age_s: int | None
    clients: list[str] = Field(description="The ids of the clients that use it.")
    prunable: bool = Field(description="Whether a prune would remove it.")


class ImageResource(Resource[Literal["images"], ImageAttributes]):
    """An image; its id is its tag."""


class ImageCollection(Collection[ImageResource]):
    """The images on a server, the newest first."""


def image_resource(image: Image, clients: list[int], *, prunable: bool, now: datetime) -> ImageResource:
    """An image as a resource object."""
    try:
        age_s = int((now - datetime.fromisoformat(image.created_at)).total_seconds())
    except (ValueError, TypeError):
        age_s = None
    attributes = ImageAttributes(
        tag=image.tag,
        digest=image.digest,
        version=image.version,
        branch=image.branch,
        commit=image.commit,
        size_bytes=image.size_bytes,
        created_at=image.created_at,
        age_s=age_s,
        clients=[str(client_id) for client_id in clients],
        prunable=prunable,
    )
    return ImageResource.make(image.tag, attributes)
