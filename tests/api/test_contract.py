"""Schemathesis over the whole document: whatever it makes up, the service answers as the document says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import schemathesis
from schemathesis import checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from uuid6 import uuid7

from alfa_cloud.api.openapi_parameters import PARAMETERS
from alfa_cloud.api.server import openapi_document
from tests.fixtures.cloud import Cloud
from tests.published import COMMAND, PUBLISHED
from tests.system import LOGIN, PASSWORD, free_port

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Case = schemathesis.Case[Any]

EXAMPLES: Final = 12
EXAMPLES_OF_GET: Final = 3
"""Of a command's GET, which is its POST in all but the method."""
ENDLESS: Final = "^/events$"
"""It has no form but an event stream, which never ends; tests/api/test_resources_streams.py reads it."""
CLIENTS: Final = 2
UNKNOWN: Final = 404
EXAMPLE_IMAGE: Final = PARAMETERS["image_name"][0]
IMAGE: Final = "1.1.0-dev"
"""Stands on a practice server."""
CLOSED_PORT: Final = free_port()
CONFIG: Final = SchemathesisConfig.from_dict(
    {
        "generation": {
            "mode": "all",
            "max-examples": EXAMPLES,
            "deterministic": True,
            "no-shrink": True,
            "with-security-parameters": False,
        },
        "phases": {"coverage": {"enabled": False}},
        "request-timeout": 30,
        "operations": [
            {"include-name": f"GET {path}", "generation": {"max-examples": EXAMPLES_OF_GET}}
            for path, methods in PUBLISHED.items()
            if methods == COMMAND
        ],
    }
)
CHECKS: Final = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
"""Not `positive_data_acceptance`: names that are taken, images that are not there and the like are 422, by intent."""

schema = schemathesis.openapi.from_dict(openapi_document(), config=CONFIG).exclude(path_regex=ENDLESS)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the service is, and an operation that it knows."""

    url: str
    operation_id: str


@pytest.fixture(scope="module")
async def target(cloud: Cloud) -> AsyncIterator[Target]:
    """The service with a worker, a practice server, and clients on it."""
    worker = cloud.start_worker()
    made = [await cloud.system.create(f"lab-{number}", cloud.server_id) for number in range(CLIENTS)]
    for _, operation_id in made:
        await cloud.system.ended(operation_id, expect="ok")
    yield Target(cloud.system.url, made[0][1])
    cloud.system.end(worker)


def tame(case: Case, operation_id: str) -> None:
    """Names that there are, short waits, nothing that takes the server or its clients away, and no address but one on
    this machine that nothing listens on.
    """
    path, query = case.path_parameters, case.query
    for name, known in (("client_id", CLIENTS), ("server_id", 1)):
        if isinstance(path.get(name), int) and path[name] > 0:
            path[name] = UNKNOWN if path[name] % 5 == 0 else 1 + path[name] % known
    if _UUID.fullmatch(str(path.get("operation_id"))):
        path["operation_id"] = operation_id
    for given in (path, query):
        if given.get("image_name") == EXAMPLE_IMAGE:
            given["image_name"] = IMAGE
    if case.headers.get("Idempotency-Key"):
        case.headers["Idempotency-Key"] = str(uuid7())
    if isinstance(query.get("wait_s"), int) and query["wait_s"] > 1:
        query["wait_s"] %= 2
    if case.path.endswith("/reboot_server") or (case.method, case.path) == ("DELETE", "/clients/{client_id}"):
        query["dry_run"] = "true"
    if case.path.startswith("/servers") and isinstance(case.body, dict):
        tame_server(case.body)


def tame_server(body: dict[str, Any]) -> None:
    """A server's body, in either form."""
    data = body.get("data")
    attributes = data.get("attributes") if isinstance(data, dict) else body
    if isinstance(attributes, dict):
        attributes.pop("active", None)
        if isinstance(attributes.get("host"), str):
            attributes |= {"host": "127.0.0.1", "port": CLOSED_PORT}


def is_read_otherwise(case: Case) -> bool:
    """Whether a wrong value may well be no wrong request: a list without words is an empty one, `Last-Event-ID` is for
    event streams alone, and keys are made anew here.
    """
    wrong = {"Last-Event-ID", "Idempotency-Key"} & set(case.headers)
    return bool(wrong) or any(value in ("", None, [""]) for value in case.query.values())


@schema.parametrize()
def test_every_answer_is_as_the_document_says(case: Case, target: Target) -> None:
    tame(case, target.operation_id)
    auth = (LOGIN.encode(), PASSWORD.encode())
    wanted = [one for one in CHECKS if one is not negative_data_rejection or not is_read_otherwise(case)]
    case.call_and_validate(base_url=target.url, auth=auth, checks=wanted)
