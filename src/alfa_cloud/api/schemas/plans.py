"""Plans: what a command would do, as it is shown."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from alfa_cloud.api.jsonapi.documents import Attributes, Document, Resource
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.servers import KEY_CHANGED
from alfa_cloud.services.plans.preview import Preview


class PlanAttributes(Attributes):
    """What a command would do; nothing was done."""

    kind: str = Field(examples=["migrate_client"])
    steps: list[str] = Field(description="The titles of its steps, in order; none where something blocks it.")
    clients: list[str] = Field(description="The ids of the clients it touches.")
    blocks: list[str] = Field(description="Why it would not be taken now; empty where it would.")
    took_before_s: float | None = Field(description="The median of the last ones of its kind on this server.")
    extra: dict[str, Any] = Field(description="What this kind of command has to say beside that.")


class PlanResource(Resource[Literal["plans"], PlanAttributes]):
    """What a command would do."""


class PlanDocument(Document[PlanResource]):
    """What a command would do."""


def plan_document(found: Preview) -> PlanDocument:
    """A preview as a document; its id is its kind."""
    attributes = PlanAttributes(
        kind=found.kind,
        steps=list(found.steps),
        clients=[str(client_id) for client_id in found.clients],
        blocks=list(found.blocks),
        took_before_s=found.took_before_s,
        extra=found.extra,
    )
    return PlanDocument.of(PlanResource.make(found.kind, attributes))


COMMANDED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": OperationDocument | PlanDocument,
        "description": "The operation, ended within `wait_s`; or with `dry_run` the plan.",
    },
    202: {"model": OperationDocument},
    **KEY_CHANGED,
}
"""What a command answers."""
