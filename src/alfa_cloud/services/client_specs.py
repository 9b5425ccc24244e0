"""From rows to the frozen values that playbooks work with."""

from __future__ import annotations

from alfa_cloud.models import Client, Server
from alfa_cloud.specs import AppProfile, ClientSecrets, ClientSpec, Layout, Tls
from alfa_cloud.vault import Vault


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
        port=client.port or 0,
        database=client.database,
        database_user=client.database,
        engine=server.engine,
        tls=tls,
        memory_bytes=int(client.max_resources.get("memory_bytes", app.memory_bytes)),
        layout=layout,
        app=app,
    )


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


def cloud_settings(client: Client) -> tuple[tuple[str, str | None], ...]:
    """What `cloud_settings` in the client's database says."""
    flags = ("maintenance", "blocked", "turbostart", "tutorial")
    return (
        *((name, "1" if getattr(client, name) else "0") for name in flags),
        ("expire_date", client.expire_date.isoformat() if client.expire_date else None),
        ("version", client.image_ref.rpartition(":")[2]),
    )
