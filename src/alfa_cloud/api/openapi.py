"""The OpenAPI document: FastAPI's, and what holds for every route of this service."""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from alfa_cloud.api.jsonapi.negotiation import JSONAPI, MEDIA_TYPES, Media
from alfa_cloud.api.jsonapi.query import IncludeReader, ListReader, fields_openapi
from alfa_cloud.api.openapi_bodies import request_body
from alfa_cloud.api.openapi_examples import example_of
from alfa_cloud.api.openapi_parameters import complete_parameter
from alfa_cloud.api.openapi_parts import ANSWERS, ERRORS, HEADERS, RESPONSES, SECURITY, answer_headers
from alfa_cloud.api.routing import ApiRoute

Schema = dict[str, Any]

MAX_SUMMARY: Final = 110
PUBLIC: Final = "public"
"""The tag of a route that asks for no login; no document shows it."""


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
    used = {tag for path in document["paths"].values() for operation in path.values() for tag in operation["tags"]}
    document["tags"] = [tag for tag in document.get("tags", []) if tag["name"] in used]


def _complete_operation(operation: Schema, route: ApiRoute, method: str, schemas: Schema) -> None:
    _complete_texts(operation, route, method)
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]
    for status in _statuses(route, method):
        responses.setdefault(status, {"$ref": f"#/components/responses/{status}"})
    if route.offered is not None:
        _describe_media(responses, route)
    for status, response in responses.items():
        _complete_answer(response, status, route, schemas)
    operation["responses"] = dict(sorted(responses.items()))
    parameters = [*operation.get("parameters", []), *_parameters(route, method)]
    if parameters:
        operation["parameters"] = [complete_parameter(one) for one in parameters]
    if route.body_reader is not None:
        operation["requestBody"] = request_body(route.body_reader, schemas)
    if PUBLIC in route.tags:
        operation["security"] = []
        operation["tags"] = [tag for tag in route.tags if tag != PUBLIC]


def _complete_texts(operation: Schema, route: ApiRoute, method: str) -> None:
    """The summary is the first sentence of the description, or the first part of a long one; a command says that it is
    one.
    """
    text = " ".join(operation.get("description", "").split())
    summary = text.partition(". ")[0].removesuffix(".").replace("`", "")
    if len(summary) > MAX_SUMMARY:
        summary = re.split("[:;] ", summary)[0]
    if route.is_command and method == "GET":
        operation["summary"] = f"{summary} (a command: prefer POST)"
        text += (
            "\n\n**This GET changes something.** POST on the same path does the same, and takes an `Idempotency-Key`: "
            "prefer it. A browser's address bar and links are refused (403)."
        )
    else:
        operation["summary"] = summary
    operation["description"] = text


def _statuses(route: ApiRoute, method: str) -> list[str]:
    if PUBLIC in route.tags:
        return []
    statuses = ["400", "401", "403", "406", "429", "500", "503"]
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


def _complete_answer(response: Schema, status: str, route: ApiRoute, schemas: Schema) -> None:
    """A good answer says what it is, bears its headers, and has an example."""
    if "$ref" in response or not status.startswith("2"):
        return
    if response["description"] == "Successful Response":
        response["description"] = ANSWERS[status]
    if headers := answer_headers(status, is_resource=bool(route.resources)):
        response["headers"] = headers
    content = response.get("content", {}).get(JSONAPI)
    if content is None:
        return
    if "$ref" in content["schema"]:  # a model given beside the endpoint's own: that one is merged in
        content["schema"] = {"$ref": content["schema"]["$ref"]}
    example = example_of(content["schema"], route.path_format, schemas)
    if example is not None:
        content["example"] = example


def _parameters(route: ApiRoute, method: str) -> list[Schema]:
    found: list[Schema] = []
    if PUBLIC in route.tags:
        return found
    for reader in route.readers:
        if isinstance(reader, ListReader | IncludeReader):
            found += reader.openapi()
    found += [fields_openapi(type_, fields) for type_, fields in route.resources.items()]
    names = []
    if method == "POST":
        names.append("IdempotencyKey")
    if method != "GET" or route.is_command:
        names.append("Actor")
    if Media.SSE in (route.offered or ()):
        names.append("LastEventId")
    return found + [{"$ref": f"#/components/parameters/{name}"} for name in names]
