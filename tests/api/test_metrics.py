"""Figures for Prometheus."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
from prometheus_client.parser import text_string_to_metric_families

from alfa_cloud.models import Worker
from alfa_cloud.specs import OperationKind
from tests.api.resources import JSONAPI, Api
from tests.factories import make_client, make_operation, make_server

pytest_plugins = ["tests.fixtures.api"]

PROMETHEUS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


async def scrape(api: Api) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every value by its name and labels."""
    answer = await api.ask("GET", "/metrics", 200, headers={"Accept": PROMETHEUS})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def counted(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], route: str, status: str) -> float:
    labels = (("method", "GET"), ("route", route), ("status", status))
    return found.get(("alfa_http_request_seconds_count", labels), 0)


async def test_requests_are_counted_by_route_and_status(api: Api) -> None:
    before = await scrape(api)
    for path in ("/clients/77", "/clients/78/", "/clients", "/no/such/path", "/no/other"):
        await api.http.get(path)
    after = await scrape(api)

    def more(route: str, status: str) -> float:
        return counted(after, route, status) - counted(before, route, status)

    assert (more("/clients/{client_id}", "404"), more("/clients", "200"), more("other", "404")) == (2, 1, 2)
    assert more("/metrics", "200") == 1
    assert not [labels for _, labels in after if "77" in str(labels) or "no/such" in str(labels)]


async def test_the_service_is_told_as_it_is(api: Api) -> None:
    async with api.sessions.begin() as session:
        server = await make_server(session, name='a "quoted" name', reachable=True)
        await make_server(session, name="away", reachable=False)
        await make_server(session, name="never-seen")
        for available in (True, True, False):
            await make_client(session, api.vault, server, available=available, available_at=datetime.now(UTC))
        await make_client(session, api.vault, server)
        await make_client(session, api.vault, server, available=False, status="failed")
        await make_operation(session, kind=OperationKind.REBOOT_SERVER, server_id=server.id, exclusive=True)
        session.add(Worker(name="w1"))
    found = await scrape(api)
    assert found["alfa_operations", (("kind", "reboot_server"), ("state", "queued"))] == 1
    assert 0 < found["alfa_queue_age_seconds", ()] < 60
    probes = {name: found["alfa_clients", (("probe", name),)] for name in ("available", "unavailable", "unknown")}
    assert probes == {"available": 2, "unavailable": 1, "unknown": 1}
    names = ('a "quoted" name', "away", "never-seen")
    assert [found["alfa_server_reachable", (("server", name),)] for name in names] == [1, 0, 0]
    assert found["alfa_workers", ()] == 1
    assert found["alfa_database_connections", ()] >= 0
    assert found["alfa_ssh_connections", ()] == 0


async def test_the_login_is_needed_and_text_is_all_there_is(api: Api) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api.app), base_url="http://127.0.0.1:8000") as http:
        assert (await http.get("/metrics")).status_code == 401
    assert await api.refused("GET", "/metrics", 406, headers={"Accept": JSONAPI}) == [("not_acceptable", "Accept")]
    assert (await api.http.get("/metrics")).text.startswith("# HELP alfa_http_request_seconds")
