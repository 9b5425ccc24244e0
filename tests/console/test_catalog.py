"""The console offers every command that the API has, with all its parameters."""

from __future__ import annotations

import re
from typing import Any

import pytest

from alfa_cloud.api.server import openapi_document
from alfa_cloud.console.catalog import OF_KIND, Entry

COMMON = {"wait_s", "dry_run"}
ENTRIES = [entry for known in OF_KIND.values() for entry in known]


@pytest.fixture(scope="module")
def described() -> dict[tuple[str, str], Any]:
    """The operations of the OpenAPI document, by method and path."""
    paths = openapi_document()["paths"]
    return {
        (method.upper(), _plain(path)): operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def _plain(path: str) -> str:
    path = re.sub(r"^/server/", "/servers/", path)
    return re.sub(r"\{\w+\}", "{}", path).rstrip("/")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.path}")
def test_a_command_is_as_the_document_says(entry: Entry, described: dict[tuple[str, str], Any]) -> None:
    operation = described[entry.method, _plain(entry.path)]
    names = {one["name"] for one in operation.get("parameters", []) if one.get("in") == "query"}
    known = {name for name in names if not name.startswith(("fields[", "page[", "filter[", "sort", "include"))}
    offered = {option.name for option in entry.options if not option.repeated}
    if entry.subject:
        offered.add(entry.subject)
    assert offered == known - COMMON
    has_filters = any(name.startswith("filter[") for name in names)
    assert has_filters == any(option.repeated for option in entry.options)


def test_every_command_is_offered(described: dict[tuple[str, str], Any]) -> None:
    commands = {path for (_, path), operation in described.items() if _is_command(operation)}
    offered = {_plain(entry.path) for entry in ENTRIES if entry.method != "GET"}
    assert commands - offered == set()


def _is_command(operation: Any) -> bool:
    return "202" in operation["responses"]
