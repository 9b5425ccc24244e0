"""Operations: listed, shown, cancelled, retried."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from alfa_cloud.models import Client, Operation, OperationStep
from alfa_cloud.services.operation_views import SORTS
from alfa_cloud.specs import OperationKind
from tests.api.resources import Api
from tests.factories import make_client, make_operation, make_server

pytest_plugins = ["tests.fixtures.api"]

Ids = dict[str, str]
UNKNOWN = "0f6d3c1e-7f0b-4b52-9d6a-5d2f4d0c8a11"


@pytest.fixture(scope="module")
async def ids(api: Api) -> Ids:
    """Operations of every state, by their states; the client's and the server's ids."""
    states = {"queued": {}, "running": {"lease_until": datetime.now(UTC)}, "ok": {}, "error": {}, "cancelled": {}}
    error = {"code": "disk_full", "message": "Too little room.", "step": "Check the server"}
    found: Ids = {}
    async with api.sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, api.vault, server)
        found |= {"client": str(client.id), "server": str(server.id)}
        for state, values in states.items():
            row = await make_operation(session, client_id=client.id, server_id=server.id)
            row.state, found[state] = state, str(row.id)
            if state in ("error", "cancelled"):
                row.error = error
            for name, value in values.items():
                setattr(row, name, value)
            steps = enumerate(("done", "failed", "pending"))
            session.add_all(
                OperationStep(operation_id=row.id, position=at, name=f"step_{at}", title=f"Step {at}", state=how)
                for at, how in steps
            )
        prepared = await make_operation(session, kind=OperationKind.PREPARE_SERVER, server_id=server.id)
        found["prepare"] = str(prepared.id)
        for state in ("ok", "ok", "error"):
            child = await make_operation(session, server_id=server.id, kind=OperationKind.DELETE_CLIENT)
            child.state, child.parent_id = state, prepared.id
    return found


async def test_an_operation_is_shown_whole(api: Api, ids: Ids) -> None:
    data = (await api.get(f"/operations/{ids['error']}"))["data"]
    shown = data["attributes"]
    assert shown["error"] == {"code": "disk_full", "message": "Too little room.", "step": "Check the server"}
    assert (shown["state"], shown["completed"]) == ("error", "error")
    assert (shown["cancellable"], shown["retryable"], shown["queue_position"]) == (False, True, None)
    assert [step["state"] for step in shown["steps"]] == ["done", "failed", "pending"]
    linked = {name: one.get("data") for name, one in data["relationships"].items()}
    assert linked["client"] == {"type": "clients", "id": ids["client"]}
    assert linked["server"] == {"type": "servers", "id": ids["server"]}
    assert (linked["parent"], linked["retry_of"]) == (None, None)
    words = {state: (await api.get(f"/operations/{ids[state]}"))["data"]["attributes"]["completed"] for state in STATES}
    assert words == {"queued": None, "running": None, "ok": "ok", "error": "error", "cancelled": "error"}


STATES = ("queued", "running", "ok", "error", "cancelled")


async def test_a_parent_counts_its_children(api: Api, ids: Ids) -> None:
    children = (await api.get(f"/operations/{ids['prepare']}"))["data"]["relationships"]["children"]
    assert children["meta"] == {"ok": 2, "error": 1}
    assert (await api.get(children["links"]["related"]))["meta"]["page"]["total"] == 3


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("filter[state]=queued", 2),
        ("filter[state]=queued,running", 3),
        ("filter[kind]=update_client", 5),
        ("filter[kind]=prepare_server,delete_client", 4),
        ("filter[client]={client}", 5),
        ("filter[client]=7777", 0),
        ("filter[server]={server}", 9),
        ("filter[parent]={prepare}", 3),
        ("filter[parent]={ok}", 0),
        ("filter[state]=error&filter[client]={client}", 1),
    ],
)
async def test_every_filter(api: Api, ids: Ids, query: str, total: int) -> None:
    assert (await api.get(f"/operations?{query.format(**ids)}"))["meta"]["page"]["total"] == total


@pytest.mark.parametrize("sort", sorted(SORTS))
async def test_every_order_goes_both_ways(api: Api, ids: Ids, sort: str) -> None:
    del ids
    up, down = await api.get(f"/operations?sort={sort}"), await api.get(f"/operations?sort=-{sort}")
    assert len(up["data"]) == len(down["data"]) == 9
    if sort in ("id", "created_at"):
        assert [row["id"] for row in up["data"]] == [row["id"] for row in down["data"]][::-1]


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("filter[state]=done", "invalid_filter", "filter[state]"),
        ("filter[kind]=x", "invalid_filter", "filter[kind]"),
        ("filter[client]=x", "invalid_filter", "filter[client]"),
        ("filter[client]=-1", "invalid_filter", "filter[client]"),
        ("filter[server]=1,,2", "invalid_filter", "filter[server]"),
        ("filter[parent]=1", "invalid_filter", "filter[parent]"),
        ("filter[name]=1", "unknown_parameter", "filter[name]"),
        ("sort=progress", "invalid_parameter", "sort"),
        ("include=client", "unknown_parameter", "include"),
        ("page[size]=1000", "invalid_parameter", "page[size]"),
        ("fields[operations]=params", "invalid_parameter", "fields[operations]"),
    ],
)
async def test_a_wrong_question_is_400(api: Api, query: str, code: str, parameter: str) -> None:
    assert await api.refused("GET", f"/operations?{query}", 400) == [(code, parameter)]


@pytest.mark.parametrize("wrong", [UNKNOWN, "1", "x", "0" * 32, "{" + UNKNOWN + "}"])
async def test_what_is_not_there_is_404(api: Api, wrong: str) -> None:
    for method, path in (("GET", ""), ("GET", "/log"), ("POST", "/cancel"), ("POST", "/retry")):
        code = "operation_not_found" if len(wrong) == 36 else "not_found"
        assert await api.refused(method, f"/operations/{wrong}{path}", 404) == [(code, None)]
    assert (await api.http.get(f"/operations/{wrong}/cancel")).status_code == 405


async def test_what_has_ended_or_runs_on_is_not_cancelled(api: Api, ids: Ids) -> None:
    for state, words in (("ok", "ended"), ("error", "ended"), ("cancelled", "ended"), ("running", "half-way")):
        answer = await api.ask("POST", f"/operations/{ids[state]}/cancel", 409)
        (error,) = answer.json()["errors"]
        assert error["code"] == "not_cancellable"
        assert words in error["detail"]


async def test_what_did_not_fail_is_not_retried(api: Api, ids: Ids) -> None:
    for state in ("ok", "queued", "running"):
        assert await api.refused("POST", f"/operations/{ids[state]}/retry", 409) == [("not_retryable", None)]
    body = {"json": {"reason": "x"}}
    assert await api.refused("POST", f"/operations/{ids['error']}/retry", 422, **body) == [("unknown_field", "/reason")]


async def test_a_queued_one_ends_at_once_and_is_retried_once(api: Api) -> None:
    async with api.sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, api.vault, server, status="creating")
        made = await make_operation(session, kind=OperationKind.CREATE_CLIENT, client_id=client.id, server_id=server.id)
    answer = await api.ask("POST", f"/operations/{made.id}/cancel?wait_s=5", 200)
    shown = answer.json()["data"]["attributes"]
    assert (shown["state"], shown["completed"], shown["error"]["code"]) == ("cancelled", "error", "cancelled")
    assert await api.refused("POST", f"/operations/{made.id}/cancel", 409) == [("not_cancellable", None)]
    assert (await api.get(f"/clients/{client.id}"))["data"]["attributes"]["status"] == "failed"
    headers = {"X-Actor": "%D0%98%D0%B2%D0%B0%D0%BD", "X-Request-ID": "retry-1"}
    answer = await api.ask("POST", f"/operations/{made.id}/retry", 202, headers=headers)
    data = answer.json()["data"]
    assert answer.headers["location"] == answer.headers["content-location"] == f"/operations/{data['id']}"
    assert data["relationships"]["retry_of"]["data"] == {"type": "operations", "id": str(made.id)}
    assert (data["attributes"]["actor"], data["attributes"]["request_id"]) == ("Иван", "retry-1")
    assert (await api.get(f"/clients/{client.id}"))["data"]["attributes"]["status"] == "creating"
    assert await api.refused("POST", f"/operations/{made.id}/retry", 409) == [("not_retryable", None)]
    waited = await api.ask("POST", f"/operations/{data['id']}/cancel?wait_s=0", 202)
    assert waited.json()["data"]["attributes"]["state"] == "cancelled"


async def test_what_came_to_life_or_is_gone_is_not_retried(api: Api) -> None:
    async with api.sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, api.vault, server, activated_at=datetime.now(UTC))
        made: list[Operation] = []
        for kind, client_id in ((OperationKind.CREATE_CLIENT, client.id), (OperationKind.UPDATE_CLIENT, 987654)):
            row = await make_operation(session, kind=kind, client_id=client_id, server_id=server.id)
            row.state = "error"
            made.append(row)
    for row, words in zip(made, ("come to life", "gone"), strict=True):
        answer = await api.ask("POST", f"/operations/{row.id}/retry", 409)
        assert words in answer.json()["errors"][0]["detail"]


async def test_a_wait_ends_with_its_time(api: Api) -> None:
    async with api.sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, api.vault, server, status="failed")
    answer = await api.ask("DELETE", f"/clients/{client.id}?wait_s=1", 202)
    assert answer.json()["data"]["attributes"]["queue_position"] == 0
    for wrong in ("-1", "301", "x", "1.5"):
        path = f"/clients/{client.id}?wait_s={wrong}"
        assert await api.refused("DELETE", path, 400) == [("invalid_parameter", "wait_s")]
    async with api.sessions() as session:
        assert (await session.get_one(Client, client.id)).status == "deleting"


async def test_a_log_is_polled_to_its_end(api: Api, ids: Ids) -> None:
    found: Any = await api.get(f"/operations/{ids['queued']}/log?wait_s=1")
    assert found["links"]["next"] == f"/operations/{ids['queued']}/log?after_seq=0&wait_s=1"
    assert found["data"]["attributes"]["last_seq"] == 0
    ended = await api.get(f"/operations/{ids['ok']}/log")
    assert (ended["data"]["attributes"]["completed"], "next" in ended["links"]) == ("ok", False)
    for accept in ("image/png", "text/html"):
        path = f"/operations/{ids['ok']}/log"
        assert await api.refused("GET", path, 406, headers={"Accept": accept}) == [("not_acceptable", "Accept")]
