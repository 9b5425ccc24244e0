"""From rows to the frozen values that playbooks work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from alfa_cloud.models import Client, Server
from alfa_cloud.specs import AppProfile, ClientSecrets, ClientSpec, CloudSettings, Layout, PageKind, Slot, Tls
from alfa_cloud.vault import Vault

SWITCHES: Final = ("maintenance", "blocked", "turbostart", "tutorial")
"""Columns that `cloud_settings` repeats as 0 or 1."""


def client_url(domain: str, tls: Tls, layout: Layout) -> str:
    """The address people open."""
    if tls is Tls.CERTBOT:
        return f"https://{domain}" + ("" if layout.https_port == 443 else f":{layout.https_port}")
    return f"http://{domain}" + ("" if layout.http_port == 80 else f":{layout.http_port}")


def client_spec(client: Client, server: Server, app: AppProfile) -> ClientSpec:
    """All that a playbook needs of a client, but for its secrets."""
    layout, tls = server.layout_spec, Tls(server.tls)
    return ClientSpec(
        id=client.id,
        uid=str(client.uid),
        name=client.name,
        title=client.title,
        domain=client.domain,
        email=client.email,
        locale=client.locale,
        owner_login=client.owner_login,
        image=client.image_ref,
        version=client.image_ref.rpartition(":")[2],
        url=client_url(client.domain, tls, layout),
        slot=Slot(client.slot),
        port=client.port or 0,
        spare_port=client.spare_port or 0,
        database=client.database,
        database_user=client.database,
        engine=server.engine,
        tls=tls,
        memory_bytes=int(client.max_resources.get("memory_bytes", app.memory_bytes)),
        copy_of=client.copy_of,
        page=page_of(client),
        **_page_words(client),
        layout=layout,
        app=app,
    )


def former_spec(spec: ClientSpec, former: Mapping[str, Any]) -> ClientSpec:
    """The client as it was before these attributes changed.

    Args:
        former: what they were, by the names of the client's columns.
    """
    values = {name: former[name] for name in ("title", "email", "locale", "owner_login", "domain") if name in former}
    if "domain" in former:
        values["url"] = client_url(former["domain"], spec.tls, spec.layout)
    if "max_resources" in former:
        values["memory_bytes"] = int(former["max_resources"].get("memory_bytes", spec.app.memory_bytes))
    return replace(spec, **values)


def former_settings(values: CloudSettings, former: Mapping[str, Any]) -> CloudSettings:
    """What `cloud_settings` said before these attributes changed."""
    return with_settings(values, **{name: "1" if former[name] else "0" for name in SWITCHES if name in former})


def _page_words(client: Client) -> dict[str, str]:
    if page_of(client) is not PageKind.MAINTENANCE:
        return {}
    until = client.maintenance_ends_at
    return {"page_text": client.maintenance_text, "page_ends_at": until.isoformat() if until else ""}


def page_of(client: Client) -> PageKind | None:
    """What nginx shows instead of the application: an ended term goes before maintenance."""
    if client.blocked:
        return PageKind.EXPIRED
    return PageKind.MAINTENANCE if client.maintenance else None


def with_settings(values: CloudSettings, **changed: str | None) -> CloudSettings:
    """The same settings, some of them changed."""
    return tuple((name, changed.get(name, value)) for name, value in values)


def secret_place(column: str, client: Client) -> str:
    """Where a client's secret is sealed for."""
    return f"clients.{column}.{client.uid}"


def client_secrets(client: Client, vault: Vault) -> ClientSecrets:
    """A client's secrets, opened."""
    owner = client.owner_password
    return ClientSecrets(
        app_key=vault.open(client.app_key, secret_place("app_key", client)),
        database_password=vault.open(client.database_password, secret_place("database_password", client)),
        owner_password=None if owner is None else vault.open(owner, secret_place("owner_password", client)),
    )


def cloud_settings(client: Client) -> CloudSettings:
    """What `cloud_settings` in the client's database says."""
    return (
        *((name, "1" if getattr(client, name) else "0") for name in SWITCHES),
        ("expire_date", client.expire_date.isoformat() if client.expire_date else None),
        ("version", client.image_ref.rpartition(":")[2]),
        *((("copy_of", client.copy_of),) if client.copy_of else ()),
    )
