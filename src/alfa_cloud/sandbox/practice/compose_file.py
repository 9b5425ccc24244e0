"""A compose file, read as Docker Compose reads it: variables, environment files, ports and folders."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from alfa_cloud.sandbox.practice.docker_state import digest
from alfa_cloud.sandbox.practice.engine import DockerError
from alfa_cloud.sandbox.practice.folder import LOOPBACK

LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# https://docs.docker.com/reference/compose-file/interpolation/
VARIABLE: Final = re.compile(r"\$(?:(\$)|\{(\w+)(?::?-([^}]*))?\}|(\w+)|(.?))")


@dataclass(frozen=True, slots=True)
class Service:
    """One service, ready to be run."""

    name: str
    container_name: str
    image: str
    env: dict[str, str]
    labels: dict[str, str]
    restart: str
    ports: dict[str, int]
    mounts: dict[str, str]
    networks: list[str]
    host_config: dict[str, Any]
    healthcheck: bool
    fingerprint: str
    """Equal where nothing needs a new container."""


@dataclass(frozen=True, slots=True)
class Project:
    """A compose file under a project's name."""

    name: str
    services: dict[str, Service]
    external: list[str]
    """Networks that must be there already."""
    own: list[str]
    """Networks that the project makes and removes."""


def load(path: Path, project: str) -> Project:
    """Read a compose file.

    Raises:
        DockerError: it is not there, or wrong.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except OSError as error:
        raise DockerError(f"open {path}: {(error.strerror or '').lower()}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DockerError(f"yaml: {error}".splitlines()[0]) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("services"), dict):
        raise DockerError("no service selected" if isinstance(raw, dict) else "top-level object must be a mapping")
    document = interpolated(raw)
    name = project or document.get("name") or re.sub(r"[^a-z0-9_-]", "", path.parent.name.lower())
    networks = document.get("networks") or {}
    names = {key: (value or {}).get("name") or _network(key, value, name) for key, value in networks.items()}
    services = {
        key: _service(key, value or {}, name=name, folder=path.parent, networks=names)
        for key, value in document["services"].items()
    }
    external = [names[key] for key, value in networks.items() if (value or {}).get("external")]
    used = {network for service in services.values() for network in service.networks}
    return Project(name, services, external, sorted(used - set(external)))


def _network(key: str, value: Any, project: str) -> str:
    """What a network of the file is called in Docker."""
    return key if (value or {}).get("external") else f"{project}_{key}"


def interpolated(node: Any) -> Any:
    """The same document with `$$` as `$`, and with no variable set.

    Raises:
        DockerError: a lone `$` stands in it.
    """
    if isinstance(node, dict):
        return {key: interpolated(value) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value) for value in node]
    if not isinstance(node, str):
        return node

    def value(found: re.Match[str]) -> str:
        dollar, _, default, _, stray = found.groups()
        if stray is not None and not dollar:
            raise DockerError(f'invalid interpolation format: "{node}". You may need to escape any $ with another $')
        return "$" if dollar else (default or "")

    return VARIABLE.sub(value, node)


def _pairs(node: Any) -> dict[str, str]:
    """A mapping, or a list of `KEY=VALUE`."""
    if isinstance(node, dict):
        return {str(key): "" if value is None else _scalar(value) for key, value in node.items()}
    return dict(str(item).partition("=")[::2] for item in node or [])


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _env_files(node: Any, folder: Path) -> dict[str, str]:
    """What stands in a service's environment files.

    Raises:
        DockerError: one is not there, or a line of it is wrong.
    """
    env: dict[str, str] = {}
    for item in [node] if isinstance(node, str) else node or []:
        entry = {"path": item} if isinstance(item, str) else item
        path = folder / entry["path"]
        if not path.exists():
            if entry.get("required", True):
                raise DockerError(f"env file {path} not found: stat {path}: no such file or directory")
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key, equals, value = line.partition("=")
            if not equals or not key.strip():
                raise DockerError(f"failed to read {path}: unexpected character in variable name {line!r}")
            env[key.strip()] = value if entry.get("format") == "raw" else unquoted(value)
    return env


def unquoted(value: str) -> str:
    """A value of an environment file in Compose's own form."""
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")
    return str(interpolated(value))


def _ports(node: Any) -> dict[str, int]:
    """Published ports, by the container's.

    Raises:
        DockerError: one is not on the loopback, which a practice server refuses.
    """
    ports: dict[str, int] = {}
    for item in node or []:
        if isinstance(item, dict):
            host, published, target = item.get("host_ip", ""), item.get("published", 0), item["target"]
        else:
            host, published, target = ["", "", *str(item).rsplit(":", 2)][-3:]
        if host != LOOPBACK:
            raise DockerError(f"A practice server publishes on {LOOPBACK} only, not on {host or '0.0.0.0'}: {item}")
        ports[f"{str(target).removesuffix('/tcp')}/tcp"] = int(published)
    return ports


def _mounts(node: Any, folder: Path) -> dict[str, str]:
    """Folders of this server, by the container's."""
    mounts: dict[str, str] = {}
    for item in node or []:
        if isinstance(item, dict):
            if item.get("type", "bind") != "bind":
                continue
            source, target = item["source"], item["target"]
        else:
            source, target = str(item).split(":")[:2]
        mounts[target] = str(folder / source)
    return mounts


def _service(key: str, raw: dict[str, Any], *, name: str, folder: Path, networks: dict[str, str]) -> Service:
    """One service of the file.

    Raises:
        DockerError: something in it is missing or wrong.
    """
    if not raw.get("image"):
        raise DockerError(
            f'service "{key}" has neither an image nor a build context specified: invalid compose project'
        )
    wanted = raw.get("networks") or ["default"]
    for network in wanted:
        if network != "default" and network not in networks:
            raise DockerError(f'service "{key}" refers to undefined network {network}: invalid compose project')
    env = _env_files(raw.get("env_file"), folder) | _pairs(raw.get("environment"))
    text = json.dumps([raw, env], sort_keys=True, default=str)
    return Service(
        name=key,
        container_name=raw.get("container_name") or f"{name}-{key}-1",
        image=str(raw["image"]),
        env=env,
        labels=_pairs(raw.get("labels")),
        restart=str(raw.get("restart") or "no"),
        ports=_ports(raw.get("ports")),
        mounts=_mounts(raw.get("volumes"), folder),
        networks=[networks.get(network, f"{name}_{network}") for network in wanted],
        host_config={
            "Memory": raw.get("mem_limit", 0),
            "PidsLimit": raw.get("pids_limit", 0),
            "CapDrop": raw.get("cap_drop"),
            "CapAdd": raw.get("cap_add"),
            "SecurityOpt": raw.get("security_opt"),
            "ReadonlyRootfs": bool(raw.get("read_only")),
            "Init": raw.get("init"),
        },
        healthcheck=bool(raw.get("healthcheck")) and not (raw["healthcheck"] or {}).get("disable"),
        fingerprint=digest(text),
    )
