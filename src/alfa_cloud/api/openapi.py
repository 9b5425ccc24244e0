"""The OpenAPI document: FastAPI's, and what holds for every route of this service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from alfa_cloud.api.jsonapi.body import COMMANDS, BodyReader
from alfa_cloud.api.jsonapi.fields import BodyModel, NoFields, RelatesTo, relationship_name, relationships
from alfa_cloud.api.jsonapi.negotiation import JSON, JSONAPI, MEDIA_TYPES, Media
from alfa_cloud.api.jsonapi.query import IncludeReader, ListReader, parameter
from alfa_cloud.api.openapi_parts import ERRORS, HEADERS, RESPONSES, SECURITY
from alfa_cloud.api.routing import ApiRoute

Schema = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/{model}"


def describe(app: FastAPI) -> Schema:
    """The document of all documented routes; built once."""
    if app.openapi_schema is None:
        routes = [route for route in app.routes if isinstance(route, ApiRoute) and route.include_in_schema]
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=routes,
            tags=app.openapi_tags,
        )
        _complete(document, routes)
        app.openapi_schema = document
    return app.openapi_schema


def _complete(document: Schema, routes: list[ApiRoute]) -> None:
    components = document.setdefault("components", {})
    schemas: Schema = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas.update(ERRORS)
    components.update({"securitySchemes": SECURITY, "responses": RESPONSES, "parameters": dict(HEADERS)})
    document["security"] = [{"basic": []}]
    for route in routes:
        for method in route.methods or ():
            operation = document["paths"][route.path_format][method.lower()]
            _complete_operation(operation, route, method, schemas)


def _complete_operation(operation: Schema, route: ApiRoute, method: str, schemas: Schema) -> None:
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]
    for status in _statuses(route, method):
        responses.setdefault(status, {"$ref": f"#/components/responses/{status}"})
    if route.offered is not None:
        _describe_media(responses, route)
    operation["responses"] = dict(sorted(responses.items()))
    parameters = [*operation.get("parameters", []), *_parameters(route, method)]
    if parameters:
        operation["parameters"] = parameters
    body = _request_body(route, schemas)
    if body is not None:
        operation["requestBody"] = body
    if "public" in route.tags:
        operation["security"] = []
        operation["tags"] = [tag for tag in route.tags if tag != "public"]


def _statuses(route: ApiRoute, method: str) -> list[str]:
    if "public" in route.tags:
        return []
    statuses = ["400", "401", "403", "406", "500", "503"]
    if "{" in route.path_format:
        statuses.append("404")
    if method != "GET":
        statuses += ["409", "413", "415", "422"]
    elif route.is_command:
        statuses += ["409", "422"]
    return statuses


def _describe_media(responses: Schema, route: ApiRoute) -> None:
    """A stream is text here: `itemSchema` is a word of OpenAPI 3.2."""
    content = responses["200"].setdefault("content", {})
    if Media.JSONAPI not in (route.offered or ()):
        content.clear()
    for media in route.offered or ():
        content.setdefault(MEDIA_TYPES[media], {"schema": {"type": "string"}})


def _parameters(route: ApiRoute, method: str) -> list[Schema]:
    found: list[Schema] = []
    if "public" in route.tags:
        return found
    for reader in route.readers:
        if isinstance(reader, ListReader | IncludeReader):
            found += reader.openapi()
    for type_, fields in route.resources.items():
        text = f"Fields of `{type_}` that are wanted, by comma: {', '.join(sorted(fields))}."
        found.append(parameter(f"fields[{type_}]", {"type": "string"}, text))
    if method == "POST":
        found.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if method != "GET" or route.is_command:
        found.append({"$ref": "#/components/parameters/Actor"})
    return found


def _request_body(route: ApiRoute, schemas: Schema) -> Schema | None:
    reader = route.body_reader
    if reader is None:
        return None
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
        flat = {**flat, "properties": {"id": {"type": ["string", "integer"]}, **flat.get("properties", {})}}
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
        members["id"] = {"type": "string"}
        must.add("id")
    if to_one:
        members["relationships"] = _object(to_one, needed)
        must |= {"relationships"} if needed else set()
    return {**_object({"data": _object(members, must)}, {"data"}), "title": f"{model.__name__}Document"}


def _linkage_schema(mark: RelatesTo) -> Schema:
    identifier = _object({"type": {"const": mark.type}, "id": {"type": "string"}}, {"type", "id"})
    return _object({"data": identifier}, {"data"})


def _object(properties: Schema, required: set[str]) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": sorted(required)} if required else schema


def _one_of(references: list[str]) -> Schema:
    schemas = [{"$ref": reference} for reference in references]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
