"""What is published is there, nothing of it without the login, and every word of it is described."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import jsonschema
import pytest

from alfa_cloud.api.app import TAGS, create_app
from alfa_cloud.api.jsonapi.negotiation import JSON, JSONAPI
from alfa_cloud.api.options import ApiOptions
from alfa_cloud.api.server import ROUTERS, openapi_document
from tests.api.conftest import client_of
from tests.published import PUBLIC, PUBLISHED

ENDPOINTS = [(method, path) for path, methods in PUBLISHED.items() for method in methods]
DOCUMENT = openapi_document()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
RARE = {"413", "429", "500", "502", "503", "504"}
"""Statuses that the run which the examples come from does not provoke."""


def every(*names: str) -> pytest.MarkDecorator:
    """A test for each operation of the document."""
    return pytest.mark.parametrize("name", names or sorted(OPERATIONS))


def resolved(described: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    while "$ref" in described:
        here: Any = DOCUMENT
        for key in described["$ref"].removeprefix("#/").split("/"):
            here = here[key]
        described = here
    return described


def check(value: Any, schema: dict[str, Any]) -> None:
    """The value is one that the schema takes."""
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_a_published_endpoint_is_in_the_document(method: str, path: str) -> None:
    assert f"{method} {path}" in OPERATIONS


async def test_nothing_published_answers_without_the_login() -> None:
    app = create_app(ApiOptions(allowed_origins=(), allowed_networks=(ip_network("0.0.0.0/0"),)), ROUTERS)
    async with client_of(app, base_url="http://127.0.0.1:8000", peer="127.0.0.1", Authorization=None) as stranger:
        for method, path in ENDPOINTS:
            if path not in PUBLIC:
                answer = await stranger.request(method, re.sub(r"\{\w+\}", "1", path))
                assert (answer.status_code, answer.headers["www-authenticate"].split()[0]) == (401, "Basic"), path


@every()
def test_an_operation_says_what_it_does_and_belongs_to_a_tag(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert not operation["summary"].endswith(".")
    assert len(operation["summary"]) <= 140
    assert operation["description"].partition("\n")[0].endswith((".", "`"))
    assert set(operation["tags"]) <= {tag["name"] for tag in TAGS}


@every()
def test_every_parameter_is_described_with_an_example_that_fits(name: str) -> None:
    for described in map(resolved, OPERATIONS[name].get("parameters", [])):
        assert described.get("description"), described
        examples = described["schema"].get("examples") or [described.get("example")]
        assert examples[0] is not None, described
        for example in examples:
            check(example, described["schema"])


@every()
def test_every_answer_is_described_with_an_example_that_fits(name: str) -> None:
    for status, answer in OPERATIONS[name]["responses"].items():
        found = resolved(answer)
        assert found["description"] not in ("", "Successful Response")
        content = found.get("content", {}).get(JSONAPI)
        if content is not None and status not in RARE:
            check(content["example"], content["schema"])


@every(*(name for name, operation in sorted(OPERATIONS.items()) if "requestBody" in operation))
def test_both_forms_of_a_body_have_an_example_that_fits(name: str) -> None:
    content = OPERATIONS[name]["requestBody"]["content"]
    assert set(content) == {JSON, JSONAPI}
    for form in content.values():
        check(form["example"], form["schema"])


def commands() -> Iterator[str]:
    """The paths that change something by GET."""
    for name, operation in OPERATIONS.items():
        if name.startswith("GET ") and "202" in operation["responses"]:
            yield name.removeprefix("GET ")


@every(*commands())
def test_a_command_is_marked_and_says_what_it_takes(name: str) -> None:
    by_get, by_post = OPERATIONS[f"GET {name}"], OPERATIONS[f"POST {name}"]
    assert by_get["summary"] == f"{by_post['summary']} (a command: prefer POST)"
    for operation in (by_get, by_post):
        names = {described["name"] for described in map(resolved, operation["parameters"])}
        assert {"wait_s", "dry_run", "X-Actor"} <= names
        assert {"200", "202", "409"} <= set(operation["responses"])
    assert "Idempotency-Key" in {described["name"] for described in map(resolved, by_post["parameters"])}
