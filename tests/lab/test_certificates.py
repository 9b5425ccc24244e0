"""Clients get certificates from a real ACME authority by a real certbot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.lab.conftest import Lab
from tests.lab.hosts import LabHost
from tests.lab.pebble import Pebble

ENGINE = "mariadb"
RELOAD_S = 10
CHALLENGES = "/.well-known/acme-challenge"


async def set_tls(lab: Lab, tls: str) -> None:
    """From now on this is what clients of the server get."""
    changed = await lab.system.call("PATCH", f"/servers/{lab.servers[ENGINE]}", json={"tls": tls}, status=200)
    assert changed["data"]["attributes"]["tls"] == tls
    await lab.system.ended(changed["data"]["relationships"]["operation"]["data"]["id"], expect="ok")


@pytest.fixture(scope="module")
async def pebble(lab: Lab) -> AsyncIterator[Pebble]:
    """An authority on the host, whose clients are to have certificates of it."""
    pebble = Pebble(lab.hosts[ENGINE])
    try:
        pebble.start()
        await set_tls(lab, "certbot")
        yield pebble
        await set_tls(lab, "none")
    finally:
        pebble.stop()


async def plain(host: LabHost, domain: str, path: str = "/") -> httpx.Response:
    """What a visitor gets over http."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://{host.address}{path}", headers={"Host": domain})


async def secure(pebble: Pebble, domain: str, path: str = "/") -> httpx.Response:
    """What a visitor gets over https, who trusts this authority alone and looks for the domain's name."""
    async with httpx.AsyncClient(trust_env=False, verify=pebble.trust()) as http:
        url = f"https://{pebble.host.address}{path}"
        return await http.get(url, headers={"Host": domain}, extensions={"sni_hostname": domain})


async def assert_secure(pebble: Pebble, domain: str, title: str) -> None:
    """The application is under https; http leads there, but for the health path and the authority's questions."""
    page = await secure(pebble, domain)
    assert (page.status_code, title in page.text) == (200, True)
    assert "max-age" in page.headers["Strict-Transport-Security"]
    moved = await plain(pebble.host, domain, "/samples/count?a=1")
    assert (moved.status_code, moved.headers["Location"]) == (308, f"https://{domain}/samples/count?a=1")
    assert (await plain(pebble.host, domain, "/.alfa/health")).status_code == 200
    assert (await plain(pebble.host, domain, f"{CHALLENGES}/none")).status_code == 404


async def assert_plain(lab: Lab, client_id: str, host: LabHost, title: str) -> None:
    """The application is under http."""
    client = await lab.system.client(client_id)
    assert (client["status"], client["available"]) == ("active", True)
    page = await plain(host, client["domain"])
    assert (page.status_code, title in page.text) == (200, True)


def assert_warning(warnings: list[str], domain: str, reason: str) -> None:
    """The one warning says whose certificate is missing, why, and what to do."""
    (warning,) = warnings
    assert f"No certificate for {domain}" in warning
    assert reason in warning
    assert "updating the client" in warning


async def serial_number(pebble: Pebble, domain: str) -> str:
    """Of the certificate that nginx shows under a domain."""
    _, writer = await asyncio.open_connection(pebble.host.address, 443, ssl=pebble.trust(), server_hostname=domain)
    shown = writer.get_extra_info("peercert")
    writer.close()
    await writer.wait_closed()
    return str(shown["serialNumber"])


async def update(lab: Lab, client_id: str, title: str) -> list[str]:
    """The warnings of an operation that gives a client another title."""
    changed = await lab.system.call("PATCH", f"/clients/{client_id}", json={"title": title}, status=200)
    ended = await lab.system.ended(changed["data"]["relationships"]["operation"]["data"]["id"], expect="ok")
    return [str(warning) for warning in ended["warnings"]]


async def test_clients_get_certificates_at_the_same_time(lab: Lab, pebble: Pebble) -> None:
    """certbot refuses to run twice on one server; those who come at once wait for each other."""
    system, server_id = lab.system, lab.servers[ENGINE]
    domains = {"latin": "latin.lab.test", "cyrillic": "xn--80aac3alubocs0m.lab.test"}
    made = {
        "latin": await system.create("latin", server_id, title="Latin"),
        "cyrillic": await system.create("cyrillic", server_id, title="Cyrillic", domain="лаборатория.lab.test"),
    }
    ended = await asyncio.gather(*(system.ended(operation_id, expect="ok") for _, operation_id in made.values()))
    assert [one["warnings"] for one in ended] == [[], []]
    for name, (client_id, _) in made.items():
        client = await system.client(client_id)
        assert (client["url"], client["available"]) == (f"https://{domains[name]}", True)
        await assert_secure(pebble, domains[name], name.title())


async def test_a_renewed_certificate_is_served_without_a_word_from_the_service(lab: Lab, pebble: Pebble) -> None:
    """What certbot's timer does on a server, done now."""
    domain = "renewed.lab.test"
    _, operation_id = await lab.system.create("renewed", lab.servers[ENGINE])
    await lab.system.ended(operation_id, expect="ok")
    former = await serial_number(pebble, domain)
    renew = ["certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew", "--cert-name", domain]
    renewed = pebble.host.exec(renew)
    assert renewed.returncode == 0, renewed.stderr.decode()
    async with asyncio.timeout(RELOAD_S):
        while await serial_number(pebble, domain) == former:
            pass


@pytest.mark.full
async def test_a_name_that_points_elsewhere_is_served_over_http_until_it_is_right(lab: Lab, pebble: Pebble) -> None:
    domain, elsewhere = "astray.lab.test", f"{pebble.host.address.rpartition('.')[0]}.1"
    pebble.point(domain, elsewhere)
    client_id, operation_id = await lab.system.create("astray", lab.servers[ENGINE], title="Astray")
    ended = await lab.system.ended(operation_id, expect="ok")
    assert_warning(ended["warnings"], domain, elsewhere)
    await assert_plain(lab, client_id, pebble.host, "Astray")
    assert_warning(await update(lab, client_id, "Still astray"), domain, elsewhere)
    pebble.point(domain, "127.0.0.1")
    assert await update(lab, client_id, "Found") == []
    await assert_secure(pebble, domain, "Found")


@pytest.mark.full
async def test_an_authority_that_does_not_answer_keeps_no_client_from_life(lab: Lab, pebble: Pebble) -> None:
    pebble.stop()
    try:
        client_id, operation_id = await lab.system.create("alone", lab.servers[ENGINE], title="Alone")
        ended = await lab.system.ended(operation_id, expect="ok")
        assert_warning(ended["warnings"], "alone.lab.test", "Connection refused")
        await assert_plain(lab, client_id, pebble.host, "Alone")
    finally:
        pebble.start()
    assert await update(lab, client_id, "In company") == []
    await assert_secure(pebble, "alone.lab.test", "In company")
