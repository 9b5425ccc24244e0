"""Back-ups as they are shown, the signed links to their files, and the clients that have no fresh one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import delete
from uuid6 import uuid7

from alfa_cloud.models import Backup, Client, Server
from alfa_cloud.services import backups, operations
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, OperationKind
from tests.api.resources import Api
from tests.factories import make_client, make_operation, make_server

pytest_plugins = ["tests.fixtures.api"]

SHA256 = "a" * 64


@pytest.fixture
async def backup(api: Api) -> AsyncIterator[Backup]:
    """A client's back-up, on a server that is away."""
    async with api.sessions.begin() as session:
        server = await make_server(session, host="127.0.0.1", port=1)
        client = await make_client(session, api.vault, server)
        row = Backup(
            id=uuid7(), client_id=client.id, server_id=server.id, name="backup-1", reason="command", files_count=1,
            files_bytes=2, size_bytes=3, sha256=SHA256, tables={"public.users": 1},
        )  # fmt: skip
        session.add(row)
    yield row
    async with api.sessions.begin() as session:
        await session.execute(delete(Client))
        await session.execute(delete(Server))


def path_of(row: Backup) -> str:
    return f"/clients/{row.client_id}/backups/{row.id}"


async def link_of(api: Api, row: Backup) -> str:
    url: str = (await api.get(path_of(row)))["data"]["attributes"]["download_url"]
    return url


def stranger(api: Api, **headers: str) -> httpx.AsyncClient:
    """Somebody without the login."""
    transport = httpx.ASGITransport(app=api.app, client=("127.0.0.1", 40001))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers)


async def refusal(api: Api, method: str, url: str, **headers: str) -> tuple[int, str]:
    """What somebody without the login is told."""
    async with stranger(api, **headers) as http:
        answer = await http.request(method, url)
    if method == "GET":
        api.described.check(answer)
    return answer.status_code, answer.json()["errors"][0]["code"]


async def test_a_link_is_shown_with_its_end_and_only_where_one_backup_is_asked_for(api: Api, backup: Backup) -> None:
    shown = (await api.get(path_of(backup)))["data"]["attributes"]
    parts = urlsplit(shown["download_url"])
    assert parts.path == f"{path_of(backup)}/file"
    until = datetime.fromisoformat(shown["download_expires_at"])
    assert int(parse_qs(parts.query)["expires"][0]) == until.timestamp()
    assert timedelta(minutes=14) < until - datetime.now(UTC) <= timedelta(minutes=15)
    (listed,) = (await api.get(f"/clients/{backup.client_id}/backups"))["data"]
    assert (listed["attributes"]["download_url"], listed["attributes"]["download_expires_at"]) == (None, None)


async def test_a_good_link_needs_no_login_and_a_server_that_is_away_is_503(api: Api, backup: Backup) -> None:
    url = await link_of(api, backup)
    assert await refusal(api, "GET", url) == (503, "server_unavailable")
    assert await refusal(api, "GET", url.replace("/file?", "/file/?")) == (503, "server_unavailable")
    assert await refusal(api, "GET", url.replace(str(backup.id), str(backup.id).upper())) == (503, "server_unavailable")


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.partition("?")[0],
        lambda url: url.partition("&")[0],
        lambda url: f"{url[:-1]}{'0' if url[-1] != '0' else '1'}",
        lambda url: url.replace("expires=1", "expires=9"),
        lambda url: url.replace("expires=1", "expires=+1"),
        lambda url: url.replace("expires=", "expires=%D9%A1"),
        lambda url: url.replace("signature=", "signature=%D1%91"),
        lambda url: url.replace("/clients/", "/clients/1"),
        lambda url: url.partition("signature=")[0] + "signature=",
    ],
    ids=["nothing", "unsigned", "forged", "later", "plus", "digits", "not-ascii", "another-client", "empty"],
)
async def test_a_link_that_is_not_ours_is_refused(api: Api, backup: Backup, change: Any) -> None:
    assert await refusal(api, "GET", change(await link_of(api, backup))) == (403, "link_refused")


async def test_a_link_is_over_after_a_quarter_of_an_hour(api: Api, backup: Backup) -> None:
    async with api.sessions() as session:
        now = await operations.database_now(session)
    for seconds, told in ((-895, (503, "server_unavailable")), (-905, (403, "link_expired"))):
        url, _ = backups.download_link(backup, now + timedelta(seconds=seconds), api.vault)
        assert await refusal(api, "GET", url) == told


async def test_a_link_is_for_one_backup_of_one_client(api: Api, backup: Backup) -> None:
    url = await link_of(api, backup)
    assert await refusal(api, "GET", url.replace(str(backup.id), str(uuid7()))) == (403, "link_refused")
    gone = Backup(id=uuid7(), client_id=backup.client_id)
    url, _ = backups.download_link(gone, datetime.now(UTC), api.vault)
    assert await refusal(api, "GET", url) == (404, "backup_not_found")


async def test_nothing_but_the_file_is_open(api: Api, backup: Backup) -> None:
    url = await link_of(api, backup)
    query = url.partition("?")[2]
    for method, path in (
        ("POST", f"{path_of(backup)}/file"),
        ("DELETE", f"{path_of(backup)}/file"),
        ("GET", path_of(backup)),
        ("GET", f"{path_of(backup)}/file/file"),
        ("GET", f"{path_of(backup)}/file%2f.."),
        ("GET", f"//clients/{backup.client_id}/backups/{backup.id}/file"),
        ("GET", "/clients/1/backups/1/file"),
    ):
        async with stranger(api) as http:
            answer = await http.request(method, f"http://127.0.0.1:8000{path}?{query}")
        assert answer.status_code == 401, (method, path)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 503),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Origin": "https://mol.test"}, 503),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Origin": "https://evil.test"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Referer": "https://evil.test/"}, 403),
        ({"Sec-Purpose": "prefetch", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 403),
    ],
)
async def test_the_origin_policy_is_that_of_a_read(
    api: Api, backup: Backup, headers: dict[str, str], status: int
) -> None:
    assert (await refusal(api, "GET", await link_of(api, backup), **headers))[0] == status


async def test_a_backup_that_is_being_removed_is_not_restored(api: Api, backup: Backup) -> None:
    path = f"{path_of(backup)}/restore"
    async with api.sessions.begin() as session:
        await operations.request(
            session, OperationKind.REMOVE_BACKUP, Caller(), client_id=backup.client_id, server_id=backup.server_id,
            params={"backup_id": str(backup.id)}, locks_client=False,
        )  # fmt: skip
    assert await api.refused("POST", path, 409) == [("client_state", None)]


async def test_another_backup_is_restored_meanwhile(api: Api, backup: Backup) -> None:
    async with api.sessions.begin() as session:
        await make_operation(
            session, kind=OperationKind.REMOVE_BACKUP, client_id=backup.client_id, server_id=backup.server_id,
            params={"backup_id": str(UUID(int=7))}, locks_client=False,
        )  # fmt: skip
    answer = await api.post(f"{path_of(backup)}/restore", status=202)
    assert answer["data"]["attributes"]["kind"] == "restore_backup"


@pytest.mark.parametrize(
    ("day", "names"),
    [("2026-01-01", ["never"]), ("2026-03-01", ["never", "old"]), ("2026-03-02", ["fresh", "never", "old"])],
)
async def test_clients_without_a_fresh_backup_are_found(api: Api, day: str, names: list[str]) -> None:
    moments = {
        "never": None,
        "old": datetime(2026, 2, 28, 23, 59, tzinfo=UTC),
        "fresh": datetime(2026, 3, 1, tzinfo=UTC),
    }
    async with api.sessions.begin() as session:
        server = await make_server(session)
        for name, moment in moments.items():
            await make_client(session, api.vault, server, name=name, last_backup_at=moment)
        gone = await make_client(session, api.vault, server, name="gone", status=ClientStatus.ARCHIVED)
    found = await api.get(f"/clients?filter[backup_older_than]={day}")
    shown = [row["attributes"]["name"] for row in found["data"]]
    async with api.sessions.begin() as session:
        await session.execute(delete(Client))
    assert shown == names
    assert gone.name not in shown


async def test_a_wrong_day_is_refused(api: Api) -> None:
    place = "filter[backup_older_than]"
    assert await api.refused("GET", f"/clients?{place}=7", 400) == [("invalid_filter", place)]
