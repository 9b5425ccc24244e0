"""Letters, from the request to a mailbox."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import datetime, time, timedelta
from email import message_from_bytes, policy
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from alfa_cloud.db import make_engine, make_session_factory
from alfa_cloud.jobs.calendar import Rules, turn
from tests.fixtures.cloud import Cloud
from tests.fixtures.post_office import PostOffice
from tests.processes import Process
from tests.system import free_port

PASSWORD = "canary-Пароль-'\"$-17"


@pytest.fixture(scope="module")
def smtp_port() -> int:
    """Where the mail server of this module listens."""
    return free_port()


@pytest.fixture(scope="module")
def cloud_settings(smtp_port: int) -> dict[str, str]:
    """Letters leave, and are tried quickly."""
    return {
        "ALFA_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
        "ALFA_MAIL_FROM": "Облако Альфа <cloud@example.org>",
        "ALFA_LETTER_DELAYS_S": "0,0.1,0.1,0.2,0.2",
    }


@pytest.fixture
async def office(smtp_port: int) -> AsyncIterator[PostOffice]:
    """A mail server that takes letters."""
    made = PostOffice(smtp_port)
    await made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive, with a password that must be nowhere but in its letter."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create(
        "letters", cloud.server_id, title="Гематология <1>", owner_password=PASSWORD
    )
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return client_id


@pytest.fixture(autouse=True)
def hourly(cloud: Cloud, client_id: str) -> None:
    """What this client got before was long ago."""
    cloud.sql(f"UPDATE operations SET created_at = created_at - interval '2 hours' WHERE client_id = {client_id}")


async def run(cloud: Cloud, path: str, *, expect: str = "ok", **options: Any) -> Any:
    """A command, to its end."""
    answer = await cloud.system.call("POST", path, status=202, **options)
    return await cloud.system.ended(answer["data"]["id"], expect=expect) | {"id": answer["data"]["id"]}


def text_of(letter: bytes) -> str:
    """The readable text of a letter, in both forms."""
    parts = message_from_bytes(letter, policy=policy.SMTP).iter_parts()
    return "\n".join(part.get_content() for part in parts)


async def log_of(cloud: Cloud, operation_id: str) -> str:
    """All lines of an operation's log."""
    return "\n".join(line["text"] for line in await cloud.system.log(f"/operations/{operation_id}/log"))


async def login(cloud: Cloud, client_id: str, password: str) -> int:
    """What the application answers to the owner."""
    client = await cloud.system.client(client_id)
    address = f"http://{cloud.practice.host}:{cloud.practice.layout.http_port}/login"
    async with httpx.AsyncClient(trust_env=False) as http:
        body = {"login": client["owner_login"], "password": password}
        return (await http.post(address, json=body, headers={"Host": client["domain"]})).status_code


def kept(cloud: Cloud, client_id: str) -> bool:
    """Whether a password is kept for the letter."""
    return cloud.sql(f"SELECT owner_password IS NOT NULL FROM clients WHERE id = {client_id}") == "t"


# In the order in which they happen to one client.


async def test_a_plan_shows_the_letter_without_the_password(cloud: Cloud, client_id: str) -> None:
    plan = await cloud.system.call("GET", f"/clients/{client_id}/send_success?dry_run=true", status=200)
    found = plan["data"]["attributes"]
    assert found["extra"]["recipient"] == "lab@example.org"
    assert found["extra"]["subject"]
    for form in ("text", "html"):
        assert "●●●●" in found["extra"][form]
    assert "Гематология &lt;1&gt;" in found["extra"]["html"]
    assert "canary" not in str(plan)
    assert found["steps"] == ["Letter to lab@example.org"]
    assert cloud.sql("SELECT count(*) FROM operations WHERE kind = 'send_success'") == "0"


@pytest.mark.usefixtures("worker")
async def test_a_mail_server_that_is_down_is_tried_five_times(cloud: Cloud, client_id: str) -> None:
    ended = await run(cloud, f"/clients/{client_id}/send_success", expect="error")
    assert (ended["error"]["code"], ended["retryable"]) == ("mail_server", True)
    lines = await log_of(cloud, ended["id"])
    assert lines.count("> [connect to") == 5
    assert "It was tried 5 times" in lines
    assert kept(cloud, client_id)


@pytest.mark.usefixtures("worker")
async def test_a_letter_that_is_put_off_arrives_once(cloud: Cloud, client_id: str, office: PostOffice) -> None:
    failed = cloud.sql("SELECT id FROM operations WHERE kind = 'send_success' AND state = 'error'")
    office.replies = ["451 Try again later", "452 Too many"]
    answer = await cloud.system.call("POST", f"/operations/{failed}/retry", status=202)
    operation_id = answer["data"]["id"]
    ended = await cloud.system.ended(operation_id, expect="ok")
    assert (office.tries, len(office.letters), office.recipients) == (3, 1, [["lab@example.org"]])
    letter = office.letters[0]
    assert PASSWORD in text_of(letter)
    assert f"Message-ID: <{failed}@example.org>".encode() in letter
    assert ended["result"]["message_id"] == f"<{failed}@example.org>"
    lines = await log_of(cloud, operation_id)
    assert "< 451 Try again later" in lines
    assert "> RCPT TO:<lab@example.org>" in lines
    assert "canary" not in lines


async def test_the_password_is_forgotten_when_it_has_left(cloud: Cloud, client_id: str) -> None:
    assert not kept(cloud, client_id)
    assert cloud.sql(f"SELECT success_sent_at IS NOT NULL FROM clients WHERE id = {client_id}") == "t"
    assert "canary" not in cloud.system.logs()
    for table in ("operations", "operation_lines", "clients"):
        assert cloud.sql(f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%canary%'") == "0"


@pytest.mark.usefixtures("worker")
async def test_asked_for_again_it_says_where_to_set_a_new_one(cloud: Cloud, client_id: str, office: PostOffice) -> None:
    await run(cloud, f"/clients/{client_id}/send_success")
    text, client = text_of(office.letters[0]), await cloud.system.client(client_id)
    assert f"{client['url']}/forgot-password" in text
    assert "canary" not in text


@pytest.mark.usefixtures("worker")
async def test_a_new_password_is_set_and_sent(cloud: Cloud, client_id: str, office: PostOffice) -> None:
    ended = await run(cloud, f"/clients/{client_id}/send_success?new_password=true")
    text = text_of(office.letters[0])
    password = next(line.partition("Пароль: ")[2].strip() for line in text.splitlines() if "Пароль: " in line)
    assert len(password) == 20
    assert (await login(cloud, client_id, password), await login(cloud, client_id, PASSWORD)) == (200, 401)
    assert password not in await log_of(cloud, ended["id"])
    assert password not in str(ended)
    assert password not in cloud.system.logs()
    assert not kept(cloud, client_id)


@pytest.mark.usefixtures("worker")
async def test_a_new_password_whose_letter_does_not_leave_is_kept_for_the_next(
    cloud: Cloud, client_id: str, office: PostOffice
) -> None:
    office.replies = ["550 Spam"]
    ended = await run(cloud, f"/clients/{client_id}/send_success?new_password=true", expect="error")
    assert ended["error"]["code"] == "mail_refused"
    assert kept(cloud, client_id)
    await run(cloud, f"/clients/{client_id}/send_success")
    text = text_of(office.letters[0])
    password = next(line.partition("Пароль: ")[2].strip() for line in text.splitlines() if "Пароль: " in line)
    assert await login(cloud, client_id, password) == 200
    assert not kept(cloud, client_id)


@pytest.mark.usefixtures("worker")
async def test_a_letter_about_the_end_of_the_term(cloud: Cloud, client_id: str, office: PostOffice) -> None:
    refused = await cloud.system.call("POST", f"/clients/{client_id}/send_expire", status=409)
    assert refused["errors"][0]["code"] == "client_state"
    body = {"expire_date": "2099-12-31"}
    await cloud.system.call("POST", f"/clients/{client_id}/expire_date?wait_s=60", status=200, json=body)
    await run(cloud, f"/clients/{client_id}/send_expire")
    assert "31 декабря 2099" in text_of(office.letters[0])


async def test_it_can_be_cancelled_while_it_waits(
    cloud: Cloud, client_id: str, office: PostOffice, worker: Process
) -> None:
    cloud.system.end(worker)
    cloud.system.environment["ALFA_LETTER_DELAYS_S"] = "0,60"
    patient = cloud.start_worker()
    office.replies = ["451 Later"]
    answer = await cloud.system.call("POST", f"/clients/{client_id}/send_expire", status=202)
    await asyncio.wait_for(office.came.wait(), 20)
    await cloud.system.call("POST", f"/operations/{answer['data']['id']}/cancel", status=202)
    ended = await cloud.system.ended(answer["data"]["id"], expect="error", within_s=20)
    assert (ended["state"], office.letters) == ("cancelled", [])
    cloud.system.end(patient)


async def test_letters_that_wait_hold_no_worker_and_outlive_it(
    cloud: Cloud, client_id: str, office: PostOffice, worker: Process
) -> None:
    cloud.system.end(worker)
    cloud.system.environment |= {"ALFA_LETTER_DELAYS_S": "0,12", "ALFA_WORKER_SLOTS": "1"}
    office.replies = ["451 Later"] * 2
    busy = cloud.start_worker()
    paths = [f"/clients/{client_id}/{word}" for word in ("send_expire", "send_success")]
    asked = [(await cloud.system.call("POST", path, status=202))["data"]["id"] for path in paths]
    await run(cloud, f"/clients/{client_id}/reboot")
    for operation_id in asked:
        found = (await cloud.system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]
        assert (found["state"], found["steps"][-1]["state"]) == ("running", "waiting")
        assert "Trying again at 20" in await log_of(cloud, operation_id)
    busy.kill()
    await asyncio.to_thread(busy.wait, 30)
    assert office.letters == []
    heir = cloud.start_worker()
    for operation_id in asked:
        ended = await cloud.system.ended(operation_id, expect="ok")
        assert ended["result"]["put_off"] == 1
    assert (office.tries, len(office.letters)) == (4, 2)
    cloud.system.end(heir)
    del cloud.system.environment["ALFA_WORKER_SLOTS"]


async def test_a_worker_killed_after_the_servers_word_sends_no_second_letter(
    cloud: Cloud, client_id: str, office: PostOffice, worker: Process
) -> None:
    cloud.system.end(worker)
    dying = cloud.start_worker("send_expire.send_letter:effect:kill")
    answer = await cloud.system.call("POST", f"/clients/{client_id}/send_expire", status=202)
    await asyncio.to_thread(dying.wait, 30)
    assert dying.returncode == -signal.SIGKILL
    heir = cloud.start_worker()
    ended = await cloud.system.ended(answer["data"]["id"], expect="ok")
    assert (ended["attempt"], len(office.letters)) == (2, 1)
    cloud.system.end(heir)


async def test_what_the_calendar_asks_for_arrives(
    cloud: Cloud, client_id: str, office: PostOffice, worker: Process
) -> None:
    del worker
    zone = ZoneInfo("Europe/Moscow")
    noon = datetime.combine(datetime.now(zone).date(), time(12), zone)
    last = noon.date() + timedelta(days=7)
    body = {"expire_date": last.isoformat()}
    await cloud.system.call("POST", f"/clients/{client_id}/expire_date?wait_s=60", status=200, json=body)
    engine = make_engine(cloud.postgres.url)
    for _ in range(2):
        await turn(make_session_factory(engine), noon, Rules(zone, (30, 14, 7, 3, 1)))
    await engine.dispose()
    asked = cloud.sql(f"SELECT operation_id FROM reminders WHERE client_id = {client_id}")
    await cloud.system.ended(asked, expect="ok")
    assert ["через 7 дней" in text_of(letter) for letter in office.letters] == [True]


async def test_the_letter_of_a_new_client_leaves_by_itself_where_that_is_wanted(
    cloud: Cloud, office: PostOffice
) -> None:
    cloud.system.environment["ALFA_SEND_SUCCESS_AUTOMATICALLY"] = "true"
    worker = cloud.start_worker()
    new, operation_id = await cloud.system.create("herald", cloud.server_id, owner_password=PASSWORD)
    await cloud.system.ended(operation_id, expect="ok")
    sending = cloud.sql(f"SELECT id FROM operations WHERE kind = 'send_success' AND client_id = {new}")
    await cloud.system.ended(sending, expect="ok")
    assert [PASSWORD in text_of(letter) for letter in office.letters] == [True]
    assert not kept(cloud, new)
    cloud.system.end(worker)


async def test_only_so_many_an_hour(cloud: Cloud, client_id: str) -> None:
    cloud.sql(
        "INSERT INTO operations (id, kind, client_id, state, finished_at) SELECT gen_random_uuid(), 'send_expire', "
        f"{client_id}, 'ok', now() FROM generate_series(1, 10)"
    )
    refused = await cloud.system.call("POST", f"/clients/{client_id}/send_expire", status=409)
    assert refused["errors"][0]["code"] == "too_many_letters"


async def test_without_a_mail_server_the_setting_is_named(cloud: Cloud, client_id: str) -> None:
    url = cloud.system.environment.pop("ALFA_SMTP_URL")
    port = free_port()
    api = cloud.system.start("api", "--port", str(port))
    cloud.system.environment["ALFA_SMTP_URL"] = url
    try:
        async with httpx.AsyncClient(auth=cloud.system.http.auth, trust_env=False) as http:
            address = f"http://127.0.0.1:{port}/clients/{client_id}/send_success"
            while True:
                try:
                    answer = await http.post(address)
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.1)
    finally:
        cloud.system.end(api)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (409, "mail_not_configured")
    assert "ALFA_SMTP_URL" in answer.json()["errors"][0]["detail"]
