"""The page for the author of a front end, and the examples of the OpenAPI document, are what a run gives.

`make docs` sets ALFA_WRITE_DOCS: both are written anew.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pytest

from alfa_cloud.api.openapi_examples import FILE
from alfa_cloud.api.server import openapi_document
from tests.docs import examples
from tests.docs.exchange import Calls, Steady
from tests.fixtures.cloud import Cloud
from tests.system import LOGIN, PASSWORD

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "frontend.md"
FIRST = {"name": "hemato-2", "title": "Гематология №2", "email": "two@example.org", "server_id": 1}
CURL = DOCS / "curl.md"


@dataclass(frozen=True)
class Written:
    """What this run gives."""

    page: str
    examples: dict[str, Any]


def write(calls: Calls) -> Written:
    """The page, its calls made while it is rendered."""
    calls.call("POST", "/clients/?wait_s=60", FIRST)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(DOCS / "source"),
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        keep_trailing_newline=True,
    )
    page = environment.get_template("frontend.md.j2").render(call=calls.call, events=calls.events)
    return Written(page, examples.take(calls))


@pytest.fixture(scope="module")
def written(cloud: Cloud) -> Written:
    """The page and the examples, made by calls."""
    worker = cloud.start_worker()
    replaced = {
        f":{cloud.practice.layout.http_port}": "",
        str(cloud.practice.folder.root): "",
        f'"port": {cloud.practice.port}': '"port": 22',
        '"host": "127.0.0.1"': '"host": "cloud1.example.org"',
        "practice.test": "cloud.example.org",
    }
    with Calls(cloud.system.url, (LOGIN, PASSWORD), Steady(replaced)) as calls:
        found = write(calls)
    cloud.system.end(worker)
    if os.environ.get("ALFA_WRITE_DOCS"):
        PAGE.write_text(found.page)
        FILE.write_text(json.dumps(found.examples, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
    return found


def shape(value: Any) -> Any:
    """A JSON value without what differs from run to run: names, and words that programs compare."""
    if isinstance(value, dict):
        kept = ("type", "code", "status", "completed", "kind", "field", "pointer")
        return {name: member if name in kept else shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(item), sort_keys=True) for item in value})
    return "…"


def shape_of_page(text: str) -> list[Any]:
    """The page's text as it stands, its bodies by their shape."""
    found: list[Any] = []
    for part in re.split(r"(?ms)^```(?=http\n)(.*?)^```$", text):
        head, _, body = part.partition("\n\n{")
        is_json = part.startswith("http\n") and body
        found += [head, shape(json.loads("{" + body))] if is_json else [re.sub(r"\d+", "0", part)]
    return found


def test_the_page_is_true(written: Written) -> None:
    assert shape_of_page(PAGE.read_text()) == shape_of_page(written.page), "make docs writes it anew"


def test_the_examples_are_true(written: Written) -> None:
    assert shape(json.loads(FILE.read_text())) == shape(written.examples), "make docs writes them anew"


def test_there_is_an_example_of_every_type() -> None:
    schemas = openapi_document()["components"]["schemas"].values()
    types = {schema.get("properties", {}).get("type", {}).get("const") for schema in schemas} - {None}
    assert types - {"commands"} <= set(json.loads(FILE.read_text())["resources"])


@pytest.mark.parametrize("page", [PAGE, CURL], ids=lambda page: str(page.name))
def test_every_address_on_a_page_is_in_the_document(page: Path) -> None:
    paths = openapi_document()["paths"]
    known = [
        re.compile(re.sub(r"\\\{\w+\\\}", r"([\\w.-]+|\\{\\w+\\})", re.escape(path.rstrip("/")))) for path in paths
    ]
    found = re.findall(r"(?:(?:GET|POST|PATCH|DELETE) |\$ALFA)(/[\w/{}.-]*)", page.read_text())
    assert found
    for path in found:
        plain = path.rstrip("/")
        others = (plain, plain.replace("/servers/", "/server/"))
        assert any(pattern.fullmatch(one) for pattern in known for one in others), path
