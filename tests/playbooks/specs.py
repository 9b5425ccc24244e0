"""Clients for tests of playbooks and builders."""

from __future__ import annotations

from typing import Any

from alfa_cloud.specs import AppProfile, ClientSecrets, ClientSpec, DatabaseEngine, Layout, Secret, Slot, Tls

UID = "0b7c9b1e-6a1f-4d5c-9d51-9a3c3a0a7f10"
PASSWORD = Secret("Wd7sPq2mZx9kLr4tVb6nYc8hFj3gTa5e")


def make_spec(**values: Any) -> ClientSpec:
    """A client that is good as it is."""
    number = values.pop("id", 7)
    name = values.pop("name", f"lab-{number}")
    given = {
        "id": number,
        "uid": UID,
        "name": name,
        "title": "Laboratory",
        "domain": f"{name}.cloud.test",
        "email": "lab@example.org",
        "locale": "ru",
        "owner_login": "lab@example.org",
        "image": "alfa:1.0.0-master",
        "version": "1.0.0-master",
        "url": f"http://{name}.cloud.test",
        "slot": Slot.A,
        "port": 20007,
        "spare_port": 20008,
        "database": f"alfa_{number}",
        "database_user": f"alfa_{number}",
        "engine": DatabaseEngine.POSTGRESQL,
        "tls": Tls.NONE,
        "memory_bytes": 512 * 1024**2,
        "layout": Layout(),
        "app": AppProfile(),
        **values,
    }
    return ClientSpec(**given)


def make_secrets(**values: Any) -> ClientSecrets:
    """The client's secrets."""
    given = {"app_key": Secret("base64:AAAA"), "database_password": PASSWORD, "owner_password": Secret("owner-pass-1")}
    return ClientSecrets(**{**given, **values})
