"""What is found on one server: its requirements, its samples; and the host key that is to be pinned."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from alfa_cloud.api.jsonapi.documents import Attributes, Resource, Version
from alfa_cloud.api.jsonapi.fields import BodyModel
from alfa_cloud.api.schemas.servers import HostKey, RequirementValue
from alfa_cloud.remote.requirements import Finding, all_met
from alfa_cloud.services.samples import Plot

Fingerprint = Annotated[
    str, Field(pattern=r"^SHA256:[A-Za-z0-9+/]{43}=?$", description="As `ssh-keygen -l` shows it on the server.")
]


class HostKeyPin(BodyModel):
    """The key that the server is to show from now on, by its fingerprint or whole; neither shows what it shows."""

    fingerprint: Fingerprint | None = None
    host_key: HostKey | None = None


class OwnLink(TypedDict):
    """Where this document is found."""

    self: str


class RequirementResource(Resource[Literal["requirements"], RequirementValue]):
    """Something a server must have; its id is its name."""


class RequirementMeta(BaseModel):
    """What they say together."""

    ok: bool = Field(description="Whether clients find all that they need; advice does not count.")


class RequirementCollection(BaseModel):
    """All requirements of a server, in the order of mending."""

    data: list[RequirementResource]
    links: OwnLink
    meta: RequirementMeta
    jsonapi: Version = Version()


def requirement_collection(findings: list[Finding], path: str) -> RequirementCollection:
    """What a look found, as a document."""
    return RequirementCollection(
        data=[RequirementResource.make(row.name, RequirementValue.model_validate(row)) for row in findings],
        links={"self": path},
        meta=RequirementMeta(ok=all_met(findings)),
    )


class SampleAttributes(Attributes):
    """What a server was busy with on average; sizes in bytes, times in seconds."""

    at: datetime = Field(description="The beginning of the time it stands for.")
    load_1m: float | None = None
    load_5m: float | None = None
    load_15m: float | None = None
    cpu_count: float | None = None
    cpu_percent: float | None = None
    memory_total_bytes: float | None = None
    memory_used_bytes: float | None = None
    swap_total_bytes: float | None = None
    swap_used_bytes: float | None = None
    disk_total_bytes: float | None = None
    disk_free_bytes: float | None = None
    uptime_s: float | None = None
    containers_running: float | None = None


class SampleResource(Resource[Literal["samples"], SampleAttributes]):
    """One point of a plot; its id is its moment."""


class SampleMeta(BaseModel):
    """What a point stands for."""

    step_s: int = Field(description="Each point is the average of so many seconds.")
    last_hours: int


class SampleCollection(BaseModel):
    """The points of a plot, the oldest first; where the server was not reached there are none."""

    data: list[SampleResource]
    links: OwnLink
    meta: SampleMeta
    jsonapi: Version = Version()


def sample_collection(plot: Plot, path: str, hours: int) -> SampleCollection:
    """A plot as a document."""
    return SampleCollection(
        data=[
            SampleResource.make(f"{at:%Y-%m-%dT%H:%M:%SZ}", SampleAttributes(at=at, **values))
            for at, values in plot.points
        ],
        links={"self": path},
        meta=SampleMeta(step_s=plot.step_s, last_hours=hours),
    )
