"""The last day of use, as it is written and shown."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from alfa_cloud.api.jsonapi.documents import Attributes, Collection, Resource
from alfa_cloud.api.jsonapi.fields import BodyModel, Day
from alfa_cloud.models import ExpireDate

LINE_ENDS: Final = frozenset("\n\r\t")


def _comment(value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in set(value) - LINE_ENDS):
        raise PydanticCustomError("invalid_comment", "No control characters but line ends")
    return value


class ExpireDateChange(BodyModel):
    """A client's new last day of use."""

    expire_date: Day | None = Field(
        description="The last day on which the client works; null is without end.", examples=["2027-12-31"]
    )
    comment: Annotated[str, AfterValidator(_comment), Field(max_length=500)] = Field(
        "", description="Why, for the history.", examples=["Договор № 17 продлён"]
    )


class ExpireDateAttributes(Attributes):
    """One change of a client's last day of use."""

    old_date: date | None
    new_date: date | None
    comment: str
    actor: str | None = Field(description="Who changed it, as told by X-Actor.")
    created_at: datetime


class ExpireDateResource(Resource[Literal["expire_dates"], ExpireDateAttributes]):
    """One change of a client's last day of use."""


class ExpireDateCollection(Collection[ExpireDateResource]):
    """A page of the changes, the newest first."""


def expire_date_resource(row: ExpireDate) -> ExpireDateResource:
    """A change as a resource object."""
    return ExpireDateResource.make(row.id, ExpireDateAttributes.model_validate(row))
