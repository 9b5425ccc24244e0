"""What models of bodies are made of: a strict base, relationships to one resource, secrets."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, GetPydanticSchema, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

from alfa_cloud.specs import Secret

MAX_SECRET_LENGTH: Final = 1024


class BodyModel(BaseModel):
    """The attributes and relationships of a body; what it does not name is refused.

    A field `server_id: Annotated[int, RelatesTo("servers")]` is the relationship `server` of a document, and the
    member `server_id` of flat JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NoFields(BodyModel):
    """A command without any."""


@dataclass(frozen=True, slots=True)
class RelatesTo:
    """Marks a field `NAME_id` as the relationship `NAME` to a resource of this type."""

    type: str


def relationships(model: type[BaseModel]) -> dict[str, RelatesTo]:
    """The relationships of a model, by the names of their fields."""
    found: dict[str, RelatesTo] = {}
    for name, info in model.model_fields.items():
        for mark in info.metadata:
            if isinstance(mark, RelatesTo):
                found[name] = mark
    return found


def relationship_name(field: str) -> str:
    """`server` for `server_id`."""
    return field.removesuffix("_id")


def _to_secret(text: str) -> Secret:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise PydanticCustomError("control_characters", "Control characters are not taken")
    return Secret(text)


SecretText = Annotated[
    Secret,
    GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_after_validator_function(
            _to_secret, core_schema.str_schema(max_length=MAX_SECRET_LENGTH, strict=True)
        )
    ),
    WithJsonSchema({"type": "string", "format": "password", "writeOnly": True, "maxLength": MAX_SECRET_LENGTH}),
]
"""Text that comes in and is never shown again; no control characters."""
