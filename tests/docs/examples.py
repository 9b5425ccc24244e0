"""Examples of answers for the OpenAPI document: a resource of each type, and an error of each status."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.docs.exchange import Calls, Exchange, shortened

LINES: Final = 3
REFUSED: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "400": ("GET", "/clients?sort=colour", {}),
    "404": ("GET", "/clients/404", {}),
    "406": ("GET", "/clients", {"headers": {"Accept": "image/png"}}),
    "403": ("GET", "/clients", {"headers": {"Origin": "https://other.example"}}),
    "409": ("DELETE", "/servers/1", {}),
    "415": ("POST", "/clients/", {"content": b"name=hematology", "headers": {"Content-Type": "text/plain"}}),
    "422": ("POST", "/clients/", {"json": {"name": "Hematology", "email": "lab@example.org", "server_id": 1}}),
}
"""A request for each status that one can easily come by."""


def take(calls: Calls) -> dict[str, Any]:
    """The examples of this run, after all that the page does; their shape is that of any other."""
    client_id = calls.call("GET", "/clients?filter[q]=hematology").document["data"][0]["id"]
    errors = {"401": calls.stranger.get("/clients").json()}
    for status, (method, path, options) in REFUSED.items():
        answer = calls.http.request(method, path, **options)
        assert str(answer.status_code) == status, answer.text
        errors[status] = answer.json()
    client, server = f"/clients/{client_id}", "/servers/1"
    backup_id = calls.call("POST", f"{client}/backups?wait_s=60").id
    check, metrics = calls.call("GET", f"{server}/check"), calls.call("GET", f"{server}/metrics")
    shown = [
        calls.call("GET", client),
        calls.call("GET", server),
        calls.call("GET", f"{server}/images"),
        check,
        calls.call("GET", f"{client}/expire_dates_history"),
        calls.call("GET", f"{client}/create_log"),
        calls.call("GET", f"{client}/container_log"),
        calls.call("GET", f"{client}/backups/{backup_id}"),
        calls.call("POST", f"{client}/reboot?dry_run=true"),
        calls.call("POST", f"{client}/reboot?wait_s=60"),
    ]
    resources = {found["type"]: found for found in (shortened(_first(exchange), LINES) for exchange in shown)}
    resources["samples"] = _sample(resources["servers"]["attributes"]["load"])
    documents = {
        "/servers/{server_id}/check": {**check.document, "data": [resources["requirements"]]},
        "/servers/{server_id}/metrics": {**metrics.document, "data": [resources["samples"]]},
    }
    taken: dict[str, Any] = calls.steady.value({"errors": errors, "resources": resources, "documents": documents})
    return taken


def _sample(load: dict[str, Any]) -> dict[str, Any]:
    """The load as the next minute's sample has it."""
    figures = {name: value for name, value in load.items() if name not in ("age_s", "stale")}
    return {"type": "samples", "id": "1", "attributes": figures}


def _first(exchange: Exchange) -> Any:
    assert exchange.status < 300, json.dumps(exchange.document)
    data = exchange.document["data"]
    return data[0] if isinstance(data, list) else data
