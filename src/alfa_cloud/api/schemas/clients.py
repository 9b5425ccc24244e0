"""Clients, as they are written and shown."""

from __future__ import annotations

import re
import unicodedata
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from alfa_cloud.api.jsonapi.documents import Attributes, Relationships, Resource, ToOne, to_one
from alfa_cloud.api.jsonapi.fields import AnySecretText, BodyModel, Day, RelatesTo
from alfa_cloud.models import Client, Server
from alfa_cloud.services.client_commands import actions
from alfa_cloud.services.client_specs import client_url
from alfa_cloud.specs import ClientStatus, Secret, Tls

BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _email(value: str) -> str:
    if value.startswith("-"):
        raise PydanticCustomError("invalid_email", "An address must not begin with a hyphen")
    try:
        found = validate_email(value, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise PydanticCustomError("invalid_email", "Give one plain e-mail address") from error
    return found.normalized


def _title(value: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in BIDI for c in value):
        raise PydanticCustomError("invalid_title", "Only characters that can be seen, on one line")
    return value


_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        reason = "1 to 40 small Latin letters, digits and hyphens, and no hyphen at an end"
        raise PydanticCustomError("string_pattern_mismatch", "{reason}", {"reason": reason})
    return value


Name = Annotated[
    str,
    AfterValidator(_name),
    Field(
        json_schema_extra={"pattern": f"^{_NAME.pattern}$"},
        description="Fixed for ever; part of its address.",
        examples=["hematology"],
    ),
]
Title = Annotated[str, AfterValidator(_title), Field(max_length=200, examples=["Лаборатория гематологии"])]
Email = Annotated[str, AfterValidator(_email), Field(max_length=254, examples=["lab@example.org"])]
Login = Annotated[str, AfterValidator(_email), Field(max_length=254, examples=["owner@example.org"])]
Locale = Annotated[Literal["ru", "en"], Field(description="The language of its letters and pages.")]
Domain = Annotated[str, Field(max_length=300, examples=["hematology.cloud.example.org"])]
Image = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,170}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$",
        description="A tag, REPOSITORY:TAG, or a channel: dev, master.",
        examples=["1.4.2-master"],
    ),
]


class MaxResources(BodyModel):
    """The most that a client's container may take."""

    memory_bytes: int = Field(ge=64 * 1024**2, le=1024**4)


MIN_PASSWORD_LENGTH: Final = 8


def _owner_password(value: Secret | None) -> Secret | None:
    if value is None or value.reveal() == "":
        return None
    if len(value.reveal()) < MIN_PASSWORD_LENGTH:
        raise PydanticCustomError("too_short", "At least {least} characters", {"least": MIN_PASSWORD_LENGTH})
    if set(value.reveal()) & {"\r", "\n", "\0"}:
        raise PydanticCustomError("control_characters", "No line end and no NUL; any other character is good")
    return value


def _new_password(value: Secret) -> Secret:
    found = _owner_password(value)
    if found is None:
        raise PydanticCustomError("too_short", "At least {least} characters", {"least": MIN_PASSWORD_LENGTH})
    return found


OwnerPassword = Annotated[AnySecretText, AfterValidator(_owner_password)]


class OwnerPasswordChange(BodyModel):
    """A new password of the laboratory's administrator."""

    password: Annotated[AnySecretText, AfterValidator(_new_password)] = Field(
        description="At least 8 characters, any but line ends and NUL.", examples=["correct horse battery staple"]
    )


class ClientCreate(BodyModel):
    """A new client."""

    name: Name
    email: Email
    server_id: Annotated[int, RelatesTo("servers"), Field(ge=1, le=2**31 - 1)]
    title: Title = ""
    locale: Locale = "ru"
    domain: Domain | None = Field(None, description="NAME.base_domain of its server, where none is given.")
    owner_login: Login | None = Field(
        None, description="The laboratory's administrator; the email, where none is given."
    )
    owner_password: OwnerPassword | None = Field(None, description="Generated where none is given.")
    image: Image | None = Field(None, description="The newest -master (on a stage server -dev), where none is given.")
    max_resources: MaxResources | None = None
    turbostart: bool = False
    tutorial: bool = False
    expire_date: Day | None = Field(None, description="The last day of use; null is without end.")


COMMAND_OF: Final = {
    "name": "nothing: a name is for ever",
    "server_id": "/clients/{id}/move_to/{server_id}",
    "image": "/clients/{id}/switch/{image_name}",
    "status": "the commands of a client",
    "expire_date": "POST /clients/{id}/expire_date",
    "owner_password": "POST /clients/{id}/owner_password",
}
"""What is changed by commands of its own."""


class ClientUpdate(BodyModel):
    """What is to be changed of a client; what is not sent stays as it is."""

    title: Title = ""
    email: Email = ""
    locale: Locale = "ru"
    domain: Domain = ""
    owner_login: Login = ""
    max_resources: MaxResources | None = None
    turbostart: bool = False
    tutorial: bool = False
    name: Any = Field(None, deprecated=True)
    server_id: Annotated[Any, RelatesTo("servers")] = Field(None, deprecated=True)
    image: Any = Field(None, deprecated=True)
    status: Any = Field(None, deprecated=True)
    expire_date: Any = Field(None, deprecated=True)
    owner_password: Any = Field(None, deprecated=True)

    @field_validator(*COMMAND_OF, mode="before")
    @classmethod
    def name_the_command(cls, value: Any, info: ValidationInfo) -> Any:
        """422 with the command that changes it; an empty password is ignored."""
        field = info.field_name or ""
        if field == "owner_password" and value in (None, ""):
            return None
        raise PydanticCustomError("use_command", "This is changed by {command}", {"command": COMMAND_OF[field]})


CLIENT_EXAMPLE: Final[dict[str, Any]] = {
    "name": "hematology",
    "title": "Лаборатория гематологии",
    "email": "lab@example.org",
    "server_id": 1,
}


class ActionValue(Attributes):
    """Whether a command is allowed now, and if not, why."""

    allowed: bool
    reason: str | None


class ClientAttributes(Attributes):
    """A laboratory's private cloud."""

    name: str
    title: str
    email: str
    locale: str
    domain: str
    url: str = Field(description="The address people open.")
    owner_login: str
    image: str = Field(description="As asked: a tag or a channel.")
    version: str = Field(description="What runs; empty while nothing does.")
    migration_pending: bool
    status: ClientStatus
    available: bool = Field(description="Its application is healthy, seen through its server's nginx.")
    available_at: datetime | None
    available_reason: str
    dns_ok: bool | None
    maintenance: bool
    blocked: bool
    demo: bool
    turbostart: bool
    tutorial: bool
    expire_date: date | None
    users_count: int | None
    users_counted_at: datetime | None
    max_resources: dict[str, Any]
    last_backup_at: datetime | None
    last_proven_at: datetime | None
    actions: dict[str, ActionValue] = Field(description="The commands, and whether each is allowed now.")
    created_at: datetime
    updated_at: datetime


COLUMNS: Final = tuple(name for name in ClientAttributes.model_fields if hasattr(Client, name))
"""The attributes that are columns as they stand."""


class ClientRelationships(Relationships):
    """Where it stands, and the operation that created or changed it last."""

    server: ToOne
    operation: ToOne


class ClientResource(Resource[Literal["clients"], ClientAttributes, ClientRelationships]):
    """A client."""

    path = "/clients"


def client_resource(row: Client, server: Server) -> ClientResource:
    """A client as a resource object."""
    plain = {name: getattr(row, name) for name in COLUMNS}
    attributes = ClientAttributes(
        **plain,
        url=client_url(row.domain, Tls(server.tls), server.layout_spec),
        actions={name: ActionValue(allowed=why is None, reason=why) for name, why in actions(row).items()},
    )
    relationships = ClientRelationships(
        server=to_one("servers", row.server_id), operation=to_one("operations", row.operation_id)
    )
    return ClientResource.make(row.id, attributes, relationships)
