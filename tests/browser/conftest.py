"""Debian's Chromium without a screen; left out where there is none, unless `ALFA_BROWSER` says that it is required."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, HttpCredentials, async_playwright, expect

from tests.fixtures.cloud import Cloud
from tests.system import LOGIN, PASSWORD

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ("--no-sandbox", "--disable-features=LocalNetworkAccessChecks")
"""A page of a name that is not local may ask this machine, without a person who allows it."""
expect.set_options(timeout=30_000)
"""Milliseconds: as long as Playwright waits for everything else. A busy machine may take more than its usual 5 s."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these out where there is no browser."""
    if CHROMIUM or os.environ.get("ALFA_BROWSER"):
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="the browser was left out: there is no chromium"))


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser that asks no outside host for anything."""
    assert CHROMIUM, "ALFA_BROWSER asks for a browser, and there is no chromium"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        await started.close()


@pytest.fixture
async def context(browser: Browser, cloud: Cloud) -> AsyncIterator[BrowserContext]:
    """A window of a person who gave the login when the page asked for it."""
    credentials = HttpCredentials(username=LOGIN, password=PASSWORD, origin=cloud.system.url)
    opened = await browser.new_context(http_credentials=credentials)
    yield opened
    await opened.close()
