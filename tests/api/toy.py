"""A small application over the HTTP layer: laboratories in a dictionary, and one command that counts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import FastAPI
from pydantic import EmailStr, Field
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response
from uuid6 import uuid7

from alfa_cloud.api.app import create_app
from alfa_cloud.api.dependencies import AfterDep, CallerDep, IntId, OpenSessionDep, SessionDep, UuidId
from alfa_cloud.api.jsonapi.body import Body, body, command_body
from alfa_cloud.api.jsonapi.documents import (
    Attributes,
    Collection,
    Document,
    Relationships,
    Resource,
    ToOne,
    absent,
    to_one,
)
from alfa_cloud.api.jsonapi.fields import BodyModel, RelatesTo, SecretText
from alfa_cloud.api.jsonapi.negotiation import JsonApiResponse, Media
from alfa_cloud.api.jsonapi.query import Listing, includes, lists
from alfa_cloud.api.options import ApiOptions
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.streams import Event, event_stream, last_event_id, offers, text_stream
from alfa_cloud.errors import ClientNotFoundError, ConflictError, FieldError
from alfa_cloud.services import credentials
from alfa_cloud.services.credentials import CheckedLogins, StoredLogin

LOGIN, PASSWORD = "админ", "пароль-с-🔑-и:двоеточием"
MOL = "https://mol.example"
API = "https://api.example"


class LabAttributes(Attributes):
    name: str
    title: str
    expire_date: date | None


class LabRelationships(Relationships):
    server: ToOne


class LabResource(Resource[Literal["labs"], LabAttributes, LabRelationships]):
    """A laboratory."""

    path = "/labs"


class RackAttributes(Attributes):
    host: str


class RackResource(Resource[Literal["racks"], RackAttributes]):
    """A rack."""

    path = "/servers"


class LabDocument(Document[LabResource]):
    included: list[RackResource] | SkipJsonSchema[None] = absent()


class LabCollection(Collection[LabResource]):
    included: list[RackResource] | SkipJsonSchema[None] = absent()


class RackDocument(Document[RackResource]):
    """One rack."""


class WorkAttributes(Attributes):
    completed: str | None


class WorkResource(Resource[Literal["works"], WorkAttributes]):
    """A long work."""

    path = "/works"


class WorkDocument(Document[WorkResource]):
    """One long work."""


class NewLab(BodyModel):
    """A laboratory to be."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,38}$")]
    server_id: Annotated[int, RelatesTo("servers")]
    title: Annotated[str, Field(max_length=200)] = ""
    email: EmailStr | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    expire_date: date | None = None
    password: SecretText | None = None


class ChangedLab(BodyModel):
    """What can be changed of a laboratory."""

    title: Annotated[str, Field(max_length=200)] = ""
    expire_date: date | None = None


class NewPassword(BodyModel):
    """A new password."""

    password: SecretText


def refuse_image(value: Any) -> Any:
    """A field that another command changes."""
    raise PydanticCustomError("use_switch", "Use the command switch for the image")


EXAMPLE = {"name": "alpha", "server_id": 1, "title": "Альфа"}
LabListing = Annotated[
    Listing, lists(filters=("q", "status"), sorts=("name", "title"), sort="name", include=("server",))
]
LabIncludes = Annotated[frozenset[str], includes("server")]
LabBody = Annotated[Body[NewLab | ChangedLab], body("labs", NewLab, update=ChangedLab, example=EXAMPLE)]
LabChange = Annotated[Body[ChangedLab], body("labs", ChangedLab, path_id="lab_id", example={"title": "Бета"})]
PasswordBody = Annotated[Body[NewPassword], command_body(NewPassword, example={"password": "long enough, really"})]
LogMedia = Annotated[Media, offers(Media.JSONAPI, Media.SSE, Media.TEXT)]

router = ApiRouter(tags=["clients"])


@dataclass
class Toy:
    """What the application holds."""

    labs: dict[int, NewLab] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    rung: list[UUID] = field(default_factory=list)
    broken_bell: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    closed_streams: int = 0

    async def wake(self, operation_id: UUID) -> None:
        if self.broken_bell:
            raise ConnectionError("Redis is away")
        self.rung.append(operation_id)


def toy_of(request: Request) -> Toy:
    toy: Toy = request.app.state.toy
    return toy


def resource(lab_id: int, lab: NewLab) -> LabResource:
    attributes = LabAttributes(name=lab.name, title=lab.title, expire_date=lab.expire_date)
    return LabResource.make(lab_id, attributes, LabRelationships(server=to_one("servers", lab.server_id)))


def rack(rack_id: int) -> RackResource:
    return RackResource.make(rack_id, RackAttributes(host="10.0.0.1"))


@router.get("/labs")
async def list_labs(request: Request, listing: LabListing) -> LabCollection:
    """All laboratories."""
    labs = sorted(toy_of(request).labs.items(), key=lambda item: item[1].name)
    first = (listing.query.number - 1) * listing.query.size
    rows = [resource(*item) for item in labs[first : first + listing.query.size]]
    included = [rack(1)] if "server" in listing.include else None
    return LabCollection.of(rows, listing, len(labs), included=included)


@router.get("/labs/{lab_id}")
async def read_lab(request: Request, lab_id: IntId, include: LabIncludes) -> LabDocument:
    """One laboratory."""
    labs = toy_of(request).labs
    if lab_id not in labs:
        raise ClientNotFoundError("No such laboratory.")
    return LabDocument.of(resource(lab_id, labs[lab_id]), included=[rack(1)] if include else None)


@router.post("/labs/", status_code=201)
async def create_lab(request: Request, response: Response, given: LabBody) -> LabDocument:
    """Create a laboratory, or change one."""
    labs = toy_of(request).labs
    if isinstance(given.value, ChangedLab):
        if given.int_id not in labs:
            raise ClientNotFoundError("No such laboratory.")
        response.status_code = 200
        return LabDocument.of(resource(given.int_id, labs[given.int_id]))
    if given.value.name == "taken":
        raise FieldError("name", "Another one bears it.", code="name_taken")
    if given.value.name == "wrong":
        raise ExceptionGroup("wrong", [FieldError("port", "No."), FieldError("server", "No such server.")])
    lab_id = len(labs) + 1
    labs[lab_id] = given.value
    made = resource(lab_id, given.value)
    response.headers["Location"] = made.own_link
    return LabDocument.of(made)


@router.patch("/labs/{lab_id}")
async def update_lab(request: Request, lab_id: IntId, given: LabChange) -> LabDocument:
    """Change a laboratory."""
    lab = toy_of(request).labs[lab_id]
    changed = lab.model_copy(update=given.value.model_dump(exclude_unset=True))
    toy_of(request).labs[lab_id] = changed
    return LabDocument.of(resource(lab_id, changed))


@router.delete("/labs/{lab_id}", status_code=204)
async def delete_lab(request: Request, lab_id: IntId) -> None:
    """Forget a laboratory."""
    toy_of(request).labs.pop(lab_id, None)


@router.post("/labs/{lab_id}/password", status_code=204)
async def set_password(lab_id: IntId, given: PasswordBody) -> None:
    """Take a password."""
    assert given.value.password.reveal()


@command(router, "/server/{server_id}/deploy")
async def deploy(
    request: Request, response: Response, server_id: IntId, after: AfterDep, wait_s: int = 0, image_name: str = ""
) -> WorkDocument:
    """A command."""
    toy = toy_of(request)
    if image_name == "evil":
        raise FieldError("image_name", "Not on the server.")
    toy.commands.append(request.method)
    work_id = uuid7()
    response.headers["Location"] = response.headers["Content-Location"] = f"/works/{work_id}"
    after.wake(work_id)
    if wait_s:

        async def ending() -> tuple[int, WorkDocument] | None:
            try:
                async with asyncio.timeout(wait_s):
                    await toy.ended.wait()
            except TimeoutError:
                return None
            return 200, work(work_id, "ok")

        after.wait(ending)
    return work(work_id, None)


def work(work_id: UUID, completed: str | None) -> WorkDocument:
    return WorkDocument.of(WorkResource.make(work_id, WorkAttributes(completed=completed)))


@router.get("/servers/{server_id}")
async def read_server(server_id: IntId) -> RackDocument:
    """One rack."""
    return RackDocument.of(rack(server_id))


@command(router, "/clients/{client_id}/switch/{image_name:path}")
async def switch(client_id: IntId, image_name: str) -> RackDocument:
    """A path that swallows slashes."""
    return RackDocument.of(RackResource.make(client_id, RackAttributes(host=image_name)))


@router.get("/works/{work_id}/log", response_model=WorkDocument)
async def read_log(request: Request, work_id: UuidId, media: LogMedia) -> Response | WorkDocument:
    """A log in three forms."""
    if media is Media.SSE:
        return event_stream(events(toy_of(request), last_event_id(request) or 0), keep_alive_s=0.05)
    if media is Media.TEXT:
        return text_stream(lines())
    return work(work_id, None)


async def events(toy: Toy, after: int) -> AsyncIterator[Event]:
    try:
        for seq in range(after + 1, 4):
            yield Event(seq, "line", {"text": f"<b>{seq}\n</b>"})
        await toy.ended.wait()
        yield Event(None, "completed", {"completed": "ok"})
    finally:
        toy.closed_streams += 1


async def lines() -> AsyncIterator[str]:
    yield "первая"
    yield "<second>"


@router.get("/fail")
async def fail(kind: str = "bug") -> WorkDocument:
    """Fails in many ways."""
    if kind == "conflict":
        raise ConflictError("Not now: <b>.", meta={"why": "busy"})
    if kind == "database":
        raise ConnectionRefusedError("/run/postgresql refused")
    raise RuntimeError("secret /etc/passwd psycopg Traceback")


@router.get("/whoami")
async def whoami(caller: CallerDep) -> Response:
    """The caller."""
    return JsonApiResponse(
        {"meta": {"actor": caller.actor, "request_id": caller.request_id, "address": caller.address}}
    )


@router.get("/ssh_public_key", response_model=None)
async def read_key(media: Annotated[Media, offers(Media.TEXT)]) -> Response:
    """Plain text alone."""
    return Response("ssh-ed25519 AAAA", media_type="text/plain")


@router.post("/rows/{name}")
async def write_row(request: Request, name: str, session: SessionDep, after: AfterDep, wait: bool = False) -> Response:
    """Write a row in the request's transaction."""
    toy = toy_of(request)
    toy.commands.append(name)
    await session.execute(text("INSERT INTO workers (name) VALUES (:name)"), {"name": name})
    after.wake(UUID(int=len(toy.commands)))
    if wait:
        await toy.ended.wait()
    if name == "broken":
        raise ConflictError("After the insert.")
    number = len(toy.commands)
    return JsonApiResponse({"meta": {"number": number}}, 201, headers={"Location": f"/rows/{number}"})


@router.post("/late/{name}")
async def write_late(request: Request, name: str, open_session: OpenSessionDep) -> Response:
    """Look elsewhere first, then write."""
    toy_of(request).commands.append(name)
    session = await open_session()
    await session.execute(text("INSERT INTO workers (name) VALUES (:name)"), {"name": name})
    return JsonApiResponse({"meta": {"number": len(toy_of(request).commands)}}, 201)


def options(**changes: Any) -> ApiOptions:
    """Options of the toy: one friend, every network."""
    every = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    values: dict[str, Any] = {"allowed_origins": (MOL,), "allowed_networks": every, "public_url": API}
    return ApiOptions(**(values | changes))


class FakeSession:
    """Gives the one row of the login door."""

    def __init__(self, stored: StoredLogin | None) -> None:
        self.stored = stored

    async def __aenter__(self) -> FakeSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def execute(self, *_: object) -> FakeSession:
        return self

    def one_or_none(self) -> tuple[str, str, int] | None:
        if self.stored is None:
            return None
        return self.stored.login, self.stored.password_hash, self.stored.version


STORED = StoredLogin(LOGIN, credentials._HASHER.hash(PASSWORD), 1)


def make_app(toy: Toy, *, checked: CheckedLogins | None = None, **changes: Any) -> FastAPI:
    """The toy without a database: the login door sees one row."""
    app = create_app(options(**changes), [router], checked=checked)
    app.state.toy = toy
    app.state.broker = toy
    app.state.digest = lambda data: hashlib.sha256(data).digest()
    app.state.session_factory = lambda: FakeSession(STORED)
    app.state.ready_checks = {}
    return app
