"""Swagger UI as a person uses it: Authorize, "Try it out", and a client that is there in the end."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.fixtures.cloud import Cloud
from tests.system import LOGIN, PASSWORD


async def block(page: Page, tag: str, operation_id: str) -> Locator:
    """The form of an operation, unfolded."""
    found = page.locator(f"#operations-{tag}-{operation_id}")
    await found.locator(".opblock-summary").click()
    await found.locator(".execute").wait_for()
    return found


async def execute(form: Locator) -> tuple[int, Any]:
    """What a form shows as its answer."""
    before = form.locator(".btn-clear")
    if await before.count():
        await before.click()
    await form.locator(".execute").click()
    answer = form.locator(".live-responses-table tbody tr")
    status = int((await answer.locator(".response-col_status").inner_text()).split()[0])
    return status, json.loads(await answer.locator(".highlight-code code, .highlight-code pre").first.inner_text())


async def authorize(page: Page) -> None:
    """The login is given by the button on the page."""
    await page.locator(".btn.authorize").first.click()
    dialog = page.locator(".modal-ux")
    await dialog.locator("input[name=username]").fill(LOGIN)
    await dialog.locator("input[name=password]").fill(PASSWORD)
    await dialog.locator("button.authorize").click()
    await dialog.locator(".btn-done").click()


@pytest.mark.usefixtures("worker")
async def test_a_client_is_made_by_try_it_out(cloud: Cloud, context: BrowserContext) -> None:
    page, outside, logins = await context.new_page(), list[str](), set[str]()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: outside.append(request.url))
    page.on("request", lambda request: logins.add(request.headers.get("authorization", "")))
    await page.goto(f"{cloud.system.url}/docs")
    await expect(page.locator(".opblock-tag").first).to_have_attribute("data-tag", "clients")
    await authorize(page)

    create = await block(page, "clients", "create_or_update_client")
    body = {"name": "chrome", "title": "Из браузера", "email": "lab@example.org", "server_id": int(cloud.server_id)}
    await create.locator(".opblock-section-request-body select.content-type").select_option("application/json")
    await create.locator("textarea.body-param__text").fill(json.dumps(body, ensure_ascii=False))
    status, made = await execute(create)
    assert (status, made["data"]["attributes"]["title"]) == (201, "Из браузера")

    log = await block(page, "clients", "read_create_log")
    await log.locator("tr[data-param-name=client_id] input").fill(made["data"]["id"])
    await log.locator("tr[data-param-name=wait_s] input").fill("2")
    lines: list[str] = []
    completed = None
    while completed is None:
        await log.locator("tr[data-param-name=after_seq] input").fill(str(len(lines)))
        status, document = await execute(log)
        assert status == 200
        lines += [line["text"] for line in document["data"]["attributes"]["lines"]]
        completed = document["data"]["attributes"]["completed"]
    assert completed == "ok"
    assert lines
    client = await cloud.system.client(made["data"]["id"])
    assert (client["status"], client["available"]) == ("active", True)

    assert errors == []
    assert [url for url in outside if not url.startswith((cloud.system.url, "data:"))] == []
    assert "Basic " + base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode() in logins
