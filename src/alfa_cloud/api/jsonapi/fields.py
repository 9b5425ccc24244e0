"""What models of bodies are made of: a strict base, relationships to one resource, days, secrets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetPydanticSchema, WithJsonSchema
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


_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _written_day(value: Any) -> date:
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise PydanticCustomError("invalid_value", "Give a date as YYYY-MM-DD")


Day = Annotated[date, BeforeValidator(_written_day)]
"""YYYY-MM-DD and nothing else: a number of seconds is no day."""


def _secret_text(to_secret: Callable[[str], Secret]) -> GetPydanticSchema:
    text = core_schema.str_schema(max_length=MAX_SECRET_LENGTH, strict=True)
    return GetPydanticSchema(lambda _source, _handler: core_schema.no_info_after_validator_function(to_secret, text))


def _without_control(text: str) -> Secret:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise PydanticCustomError("control_characters", "Control characters are not taken")
    return Secret(text)


_SHOWN: Final = WithJsonSchema(
    {"type": "string", "format": "password", "writeOnly": True, "maxLength": MAX_SECRET_LENGTH}
)

AnySecretText = Annotated[Secret, _secret_text(Secret), _SHOWN]
"""Text that comes in and is never shown again."""
SecretText = Annotated[Secret, _secret_text(_without_control), _SHOWN]
"""The same without control characters."""
