"""The JavaScript of docs/frontend.md, run on a page of an allowed origin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route

from tests.fixtures.cloud import Cloud
from tests.system import LOGIN, PASSWORD

SCRIPT = "\n".join(re.findall(r"(?ms)^```js\n(.*?)^```$", (Path(__file__).parents[2] / "docs/frontend.md").read_text()))
FORM = """<!doctype html><meta charset=utf-8><form>
<label><input name=name><b class=error></b></label><label><input name=email><b class=error></b></label>
</form>"""
ORIGINS = ("https://mol.test", "https://other.test")


async def open_page(browser: Browser, cloud: Cloud, origin: str) -> Page:
    """A page of this origin with the script on it; only the service is asked for anything else."""

    async def serve(route: Route) -> None:
        await route.fulfill(body=FORM, content_type="text/html")

    page = await browser.new_page()
    await page.route(f"{origin}/**", serve)
    await page.goto(f"{origin}/")
    await page.add_script_tag(content=SCRIPT.replace("https://cloud.example.org", cloud.system.url))
    await page.evaluate("([name, password]) => login(name, password, 'Анна')", [LOGIN, PASSWORD])
    return page


@pytest.mark.usefixtures("worker")
async def test_a_page_creates_a_client_and_shows_what_happens(browser: Browser, cloud: Cloud) -> None:
    page = await open_page(browser, cloud, ORIGINS[0])
    made: Any = await page.evaluate(
        """async (server_id) => {
            const changes = [], lines = [], stop = new AbortController();
            const listening = listen((change) => changes.push(change), stop.signal);
            await api('/clients');
            await sleep(500);
            const attributes = {name: 'page', email: 'lab@example.org', server_id};
            const made = await createClient(attributes, (line) => lines.push(line));
            const restarted = await post(`/clients/${made.id}/reboot?wait_s=60`);
            while (changes.length < 6) await sleep(50);
            stop.abort();
            await listening;
            return {...made, changes, lines, restarted};
        }""",
        int(cloud.server_id),
    )
    assert made["completed"] == "ok"
    assert [line["seq"] for line in made["lines"]] == list(range(1, len(made["lines"]) + 1))
    assert made["restarted"]["data"]["attributes"]["completed"] == "ok"
    assert made["restarted"]["data"]["attributes"]["actor"] == "Анна"
    states = [(change["kind"], change["state"]) for change in made["changes"] if change["client"] == made["id"]]
    kinds = ("create_client", "reboot_client")
    assert states == [(kind, state) for kind in kinds for state in ("queued", "running", "ok")]
    await page.close()


async def test_errors_stand_at_their_fields(browser: Browser, cloud: Cloud) -> None:
    page = await open_page(browser, cloud, ORIGINS[0])
    status = await page.evaluate(
        """async () => {
            try { await post('/clients/', {name: 'A b', email: 'lab', server_id: 1}); }
            catch (refused) { showErrors(document.forms[0], refused); return refused.status; }
        }"""
    )
    assert status == 422
    texts = [await page.locator(f"label:has([name={name}]) .error").inner_text() for name in ("name", "email")]
    assert texts[1] == "Give one plain e-mail address."
    assert texts[0]
    await page.close()


async def test_another_origin_gets_nothing(browser: Browser, cloud: Cloud) -> None:
    page = await open_page(browser, cloud, ORIGINS[1])
    error = await page.evaluate("async () => { try { await api('/clients'); } catch (error) { return error.name; } }")
    assert error == "TypeError"
    await page.close()
