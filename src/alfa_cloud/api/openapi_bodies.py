"""Request bodies of the OpenAPI document: each stands there in both of its forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from alfa_cloud.api.jsonapi.body import COMMANDS, BodyReader
from alfa_cloud.api.jsonapi.fields import BodyModel, NoFields, RelatesTo, relationship_name, relationships
from alfa_cloud.api.jsonapi.negotiation import JSON, JSONAPI

Schema = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/{model}"
_ID: Final = {"type": "string", "pattern": "^[1-9][0-9]{0,9}$"}
_NUMBER: Final = {"type": "integer", "minimum": 1}


def request_body(reader: BodyReader, schemas: Schema) -> Schema:
    """What a route takes; the schemas of its models are added to `schemas`."""
    forms = [model for model in (reader.model, reader.update) if model is not None]
    for model in forms:
        _add_schemas(model, reader, schemas)
    flat = _one_of([_REFERENCE.format(model=model.__name__) for model in forms])
    document = _one_of([_REFERENCE.format(model=f"{model.__name__}Document") for model in forms])
    content: Schema = {JSONAPI: {"schema": document}, JSON: {"schema": flat}}
    if reader.example:
        content[JSONAPI]["example"] = document_example(reader)
        content[JSON]["example"] = dict(reader.example)
    return {"required": reader.model is not NoFields, "content": content}


def document_example(reader: BodyReader) -> Schema:
    """The flat example as a document."""
    linked = relationships(reader.model)
    attributes = {name: value for name, value in reader.example.items() if name not in linked and name != "id"}
    data: Schema = {"type": reader.type_name}
    if reader.path_id is not None or "id" in reader.example:
        data["id"] = str(reader.example.get("id", "1"))
    data["attributes"] = attributes
    for name in linked:
        if name in reader.example:
            identifier = {"type": linked[name].type, "id": str(reader.example[name])}
            data.setdefault("relationships", {})[relationship_name(name)] = {"data": identifier}
    return {"data": data}


def _add_schemas(model: type[BodyModel], reader: BodyReader, schemas: Schema) -> None:
    flat = model.model_json_schema(ref_template=_REFERENCE)
    schemas.update(flat.pop("$defs", {}))
    schemas[f"{model.__name__}Document"] = _document_schema(flat, relationships(model), reader, model)
    if reader.type_name != COMMANDS and (reader.update is model or reader.path_id is not None):
        flat = {**flat, "properties": {"id": {"anyOf": [_ID, _NUMBER]}, **flat.get("properties", {})}}
    schemas[model.__name__] = flat


def _document_schema(
    flat: Schema, linked: Mapping[str, RelatesTo], reader: BodyReader, model: type[BodyModel]
) -> Schema:
    properties, required = flat.get("properties", {}), set(flat.get("required", []))
    attributes = {name: schema for name, schema in properties.items() if name not in linked}
    to_one = {relationship_name(name): _linkage_schema(mark) for name, mark in linked.items()}
    needed = {relationship_name(name) for name in required if name in linked}
    members: Schema = {"type": {"const": reader.type_name}, "attributes": _object(attributes, required - set(linked))}
    must = {"type"} | ({"attributes"} if required - set(linked) else set())
    if reader.path_id is not None or reader.update is model:
        members["id"] = _ID
        must.add("id")
    if to_one:
        members["relationships"] = _object(to_one, needed)
        must |= {"relationships"} if needed else set()
    return {**_object({"data": _object(members, must)}, {"data"}), "title": f"{model.__name__}Document"}


def _linkage_schema(mark: RelatesTo) -> Schema:
    identifier = _object({"type": {"const": mark.type}, "id": _ID}, {"type", "id"})
    return _object({"data": identifier}, {"data"})


def _object(properties: Schema, required: set[str]) -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "required": sorted(required)} if required else schema


def _one_of(references: list[str]) -> Schema:
    schemas = [{"$ref": reference} for reference in references]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
