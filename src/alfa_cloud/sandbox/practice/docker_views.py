"""Docker's JSON, as its command line prints it, of what the stand-in holds."""

from __future__ import annotations

import os
from typing import Any, Final

from alfa_cloud.sandbox.practice.docker_state import NEVER, Container, DockerState, Image, Network
from alfa_cloud.sandbox.practice.engine import Engine
from alfa_cloud.sandbox.practice.folder import LOOPBACK

VERSION: Final = "28.2.2"
API_VERSION: Final = "1.50"
COMPOSE_VERSION: Final = "2.36.2"
GIB: Final = 1024**3


def version() -> dict[str, Any]:
    """`docker version`."""
    side = {"Version": VERSION, "ApiVersion": API_VERSION, "Os": "linux", "Arch": "amd64"}
    return {"Client": side, "Server": {**side, "MinAPIVersion": "1.24", "Platform": {"Name": "practice (a stand-in)"}}}


def info(state: DockerState) -> dict[str, Any]:
    """`docker info`."""
    running = sum(container.running for container in state.containers)
    return {
        "ID": "practice",
        "Name": "practice",
        "ServerVersion": VERSION,
        "Containers": len(state.containers),
        "ContainersRunning": running,
        "ContainersStopped": len(state.containers) - running,
        "ContainersPaused": 0,
        "Images": len(state.images),
        "Driver": "overlay2",
        "CgroupVersion": "2",
        "OSType": "linux",
        "OperatingSystem": "practice server (stand-ins)",
        "Architecture": "x86_64",
        "NCPU": os.cpu_count() or 1,
        "MemTotal": 4 * GIB,
        "MemoryLimit": True,
        "PidsLimit": True,
        "DockerRootDir": "/var/lib/docker",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "Swarm": {"LocalNodeState": "inactive"},
        "LiveRestoreEnabled": False,
        "Warnings": None,
        "ServerErrors": None,
    }


def image_row(state: DockerState, image: Image, tag: str) -> dict[str, Any]:
    """A row of `docker image ls`."""
    repository, _, name = tag.rpartition(":")
    users = sum(container.image_id == image.id for container in state.containers)
    return {
        "Containers": str(users) if users else "N/A",
        "CreatedAt": image.created.replace("T", " ").replace("Z", " +0000 UTC"),
        "CreatedSince": "some time ago",
        "Digest": "<none>",
        "ID": image.id,
        "Repository": repository or "<none>",
        "SharedSize": "N/A",
        "Size": f"{image.size / 1e6:.1f}MB",
        "Tag": name or "<none>",
        "UniqueSize": "N/A",
        "VirtualSize": f"{image.size / 1e6:.1f}MB",
    }


def image(image: Image) -> dict[str, Any]:
    """An element of `docker image inspect`."""
    return {
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": [],
        "Parent": "",
        "Created": image.created,
        "Architecture": "amd64",
        "Os": "linux",
        "Size": image.size,
        "Config": {"Env": image.env, "Labels": image.labels, "ExposedPorts": {"80/tcp": {}}, "Cmd": ["serve"]},
        "RootFS": {"Type": "layers", "Layers": [image.id]},
    }


def network_row(network: Network) -> dict[str, Any]:
    """A row of `docker network ls`."""
    labels = ",".join(f"{key}={value}" for key, value in network.labels.items())
    return {"ID": network.id, "Name": network.name, "Driver": network.driver, "Scope": "local", "Labels": labels}


def network(state: DockerState, network: Network) -> dict[str, Any]:
    """An element of `docker network inspect`."""
    members = {item.id: {"Name": item.name} for item in state.containers if network.name in item.networks}
    pool = {"Subnet": network.subnet, "Gateway": network.gateway} if network.subnet else {}
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": {}, "Config": [pool] if pool else []},
        "Internal": False,
        "Containers": members,
        "Options": network.options,
        "Labels": network.labels,
    }


def container_row(container: Container) -> dict[str, Any]:
    """A row of `docker container ls`."""
    ports = ", ".join(f"{LOOPBACK}:{port}->{inner}" for inner, port in container.ports.items())
    words = {"running": "Up some time", "exited": f"Exited ({container.exit_code}) some time ago"}
    return {
        "Command": '"serve"',
        "CreatedAt": container.created,
        "ID": container.id,
        "Image": container.image,
        "Labels": ",".join(f"{key}={value}" for key, value in container.labels.items()),
        "LocalVolumes": "0",
        "Mounts": ",".join(container.mounts.values()),
        "Names": container.name,
        "Networks": ",".join(container.networks),
        "Ports": ports if container.running else "",
        "RunningFor": "some time ago",
        "Size": "0B",
        "State": container.status,
        "Status": words.get(container.status, container.status.capitalize()),
    }


def container(engine: Engine, container: Container) -> dict[str, Any]:
    """An element of `docker container inspect`."""
    bindings = {inner: [{"HostIp": LOOPBACK, "HostPort": str(port)}] for inner, port in container.ports.items()}
    mounts = [{"Type": "bind", "Source": to, "Destination": at, "RW": True} for at, to in container.mounts.items()]
    environment = [
        f"{k}={v}" for k, v in engine.app_environment(container).items() if not k.startswith("ALFA_PRACTICE")
    ]
    return {
        "Id": container.id,
        "Name": f"/{container.name}",
        "Created": container.created,
        "Image": container.image_id,
        "RestartCount": container.restart_count,
        "LogPath": str(engine.log_of(container)),
        "State": _container_state(engine, container),
        "Config": {"Image": container.image, "Env": environment, "Labels": container.labels},
        "HostConfig": {
            **container.host_config,
            "RestartPolicy": {"Name": container.restart, "MaximumRetryCount": 0},
            "PortBindings": bindings,
        },
        "Mounts": mounts,
        "NetworkSettings": {
            "Ports": bindings if container.running else {},
            "Networks": {name: {"IPAddress": ""} for name in container.networks},
        },
    }


def _container_state(engine: Engine, container: Container) -> dict[str, Any]:
    state: dict[str, Any] = {
        "Status": container.status,
        "Running": container.running or container.status == "restarting",
        "Paused": False,
        "Restarting": container.status == "restarting",
        "OOMKilled": False,
        "Dead": False,
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "Error": container.error,
        "StartedAt": container.started_at,
        "FinishedAt": container.finished_at,
    }
    if container.healthcheck and container.started_at != NEVER:
        state["Health"] = {"Status": engine.health(container), "FailingStreak": 0, "Log": []}
    return state
