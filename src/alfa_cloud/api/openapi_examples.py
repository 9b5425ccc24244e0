"""Examples of answers: resources and errors of a real run (`make docs` writes them), put together as answers are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

Schema = dict[str, Any]

FILE: Final = Path(__file__).parent / "static" / "examples.json"

_TAKEN: Final = json.loads(FILE.read_text(encoding="utf-8"))
_JSONAPI: Final = {"version": "1.1"}


def error_example(status: str) -> Schema | None:
    """What is answered with this status, where the run came by one."""
    found: Schema | None = _TAKEN["errors"].get(status)
    return found


def example_of(schema: Schema, path: str, schemas: Schema) -> Schema | None:
    """A document of this schema; None where no resource of its type is known."""
    if path in _TAKEN["documents"]:
        known: Schema = _TAKEN["documents"][path]
        return known
    members = _resolve(schema, schemas).get("properties", {})
    if "data" not in members:
        return None
    is_list = "items" in members["data"]
    resource = _resource(members["data"].get("items", members["data"]), schemas)
    if resource is None:
        return None
    if is_list:
        return _collection(resource, path)
    links = {"links": resource["links"]} if "links" in resource else {}
    return {"data": resource, **links, "jsonapi": _JSONAPI}


def _collection(resource: Schema, path: str) -> Schema:
    page = f"{path}?page[number]=1&page[size]=25"
    links = {"self": page, "first": page, "last": page}
    meta = {"page": {"number": 1, "size": 25, "total": 1}}
    return {"data": [resource], "links": links, "meta": meta, "jsonapi": _JSONAPI}


def _resource(schema: Schema, schemas: Schema) -> Schema | None:
    type_ = _resolve(schema, schemas).get("properties", {}).get("type", {})
    found: Schema | None = _TAKEN["resources"].get(type_.get("const"))
    return found


def _resolve(schema: Schema, schemas: Schema) -> Schema:
    """The schema itself; of several, the first."""
    while "$ref" in schema or "anyOf" in schema:
        name = schema.get("$ref", "").rpartition("/")[2]
        schema = schemas[name] if name else schema["anyOf"][0]
    return schema
