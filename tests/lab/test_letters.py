"""Letters about clients on real hosts: who opens them can log in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from typing import Any

import pytest

from tests.fixtures.post_office import PostOffice
from tests.lab.conftest import ON_MARIADB, Lab
from tests.lab.test_create import PASSWORD, assert_login


@pytest.fixture
async def office(lab: Lab) -> AsyncIterator[PostOffice]:
    """A mail server that takes letters."""
    made = PostOffice(lab.smtp_port)
    await made.open()
    yield made
    made.close()


async def send(lab: Lab, client_id: str, word: str, **params: Any) -> None:
    """A letter, handed over."""
    answer = await lab.system.call("GET", f"/clients/{client_id}/{word}", status=202, params=params)
    await lab.system.ended(answer["data"]["id"], expect="ok")


def text_of(letter: bytes) -> str:
    """The plain text of a letter."""
    part = message_from_bytes(letter, policy=policy.default).get_body(("plain",))
    assert part is not None
    return "\n".join(str(part.get_content()).splitlines())


@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_who_opens_the_letter_can_log_in(lab: Lab, office: PostOffice, engine: str) -> None:
    system, host = lab.system, lab.hosts[engine]
    client_id, operation_id = await system.create(f"post-{engine}", lab.servers[engine], owner_password=PASSWORD)
    await system.ended(operation_id, expect="ok")
    client = await system.client(client_id)
    await send(lab, client_id, "send_success")
    assert PASSWORD in text_of(office.letters[-1])
    await send(lab, client_id, "send_success")
    assert PASSWORD not in text_of(office.letters[-1])
    await send(lab, client_id, "send_success", new_password="true")
    found = re.search(r"^Пароль: +(\S+)$", text_of(office.letters[-1]), re.MULTILINE)
    assert found is not None, text_of(office.letters[-1])
    await assert_login(host, client["domain"], client["owner_login"], found[1])
    await system.call("POST", f"/clients/{client_id}/expire_date", status=200, json={"expire_date": "2099-12-31"})
    await send(lab, client_id, "send_expire")
    assert "31 декабря 2099" in text_of(office.letters[-1])
    assert office.recipients == [["lab@example.org"]] * 4
