"""The stand-in for `docker compose`."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final

from alfa_cloud.sandbox.practice import compose_file, docker_containers, docker_views, options
from alfa_cloud.sandbox.practice.call import Call
from alfa_cloud.sandbox.practice.compose_file import Project, Service
from alfa_cloud.sandbox.practice.docker_state import Container, Network, digest, now
from alfa_cloud.sandbox.practice.engine import DockerError, Engine

PROJECT: Final = "com.docker.compose.project"
SERVICE: Final = "com.docker.compose.service"
HASH: Final = "com.docker.compose.config-hash"
ONE_OFF: Final = "com.docker.compose.oneoff"
GLOBAL: Final = ("--project-name", "-p", "--file", "-f", "--project-directory", "--progress", "--ansi", "--env-file")
VALUED: Final = (
    "--timeout",
    "-t",
    "--pull",
    "--wait-timeout",
    "--format",
    "--scale",
    "--rmi",
    "--tail",
    "-n",
    "--filter",
)
UNHEALTHY_AFTER_S: Final = 1.0
WAIT_S: Final = 120.0

Handler = Callable[[Engine, Call, Project, options.Options], int]


def compose(engine: Engine, call: Call, argv: list[str]) -> int:
    """Be `docker compose`; the exit status."""
    outer = options.parse(argv, GLOBAL, stop_at_word=True)
    if not outer.words:
        call.out("Usage:  docker compose [OPTIONS] COMMAND (a stand-in)\n")
        return 0
    verb, *rest = outer.words
    if verb == "version":
        short = options.parse(rest, ("--format", "-f")).has("--short")
        words = docker_views.COMPOSE_VERSION
        call.out(f"{words}\n" if short else f"Docker Compose version v{words}\n")
        return 0
    path = Path(call.cwd, outer.get("--file", "-f", default="compose.yaml"))
    if verb in ALONE:
        return ALONE[verb](engine, call, compose_file.load(path, outer.get("--project-name", "-p")), rest)
    if verb not in HANDLERS:
        call.err(f'unknown docker command: "compose {verb}"\n')
        return 1
    given = options.parse(rest, VALUED)
    project = compose_file.load(path, outer.get("--project-name", "-p"))
    unknown = [name for name in given.words if name not in project.services]
    if unknown:
        raise DockerError(f"no such service: {unknown[0]}")
    return HANDLERS[verb](engine, call, project, given)


def containers_of(engine: Engine, project: Project, services: list[str] | None = None) -> list[Container]:
    """The project's containers, of some services or of all."""
    return [
        container
        for container in engine.state.containers
        if container.labels.get(PROJECT) == project.name
        and container.labels.get(ONE_OFF) == "False"
        and (not services or container.labels.get(SERVICE) in services)
    ]


def up(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`up --detach`: containers of the wanted services run, new ones where their configuration changed."""
    wanted = [service for name, service in project.services.items() if name in (given.words or project.services)]
    _check(engine, project, wanted)
    _make_networks(engine, call, project)
    orphans = [item for item in containers_of(engine, project) if item.labels.get(SERVICE) not in project.services]
    if given.has("--remove-orphans"):
        _remove(engine, call, orphans)
    elif orphans:
        call.err(f"Found orphan containers ({[item.name for item in orphans]}) for this project.\n")
    running = [_converge(engine, call, project, service, given) for service in wanted]
    if given.has("--wait"):
        return _wait(engine, call, running, float(given.get("--wait-timeout", default=str(WAIT_S))))
    return 0


def _check(engine: Engine, project: Project, wanted: list[Service]) -> None:
    """Images and networks that are needed are there.

    Raises:
        DockerError: one is not.
    """
    for network in project.external:
        if engine.state.network(network) is None:
            raise DockerError(f"network {network} declared as external, but could not be found")
    for service in wanted:
        if engine.state.image(service.image) is None:
            raise DockerError(f"Error response from daemon: No such image: {service.image}")


def _make_networks(engine: Engine, call: Call, project: Project) -> None:
    """The project's own networks are there."""
    with engine.change() as state:
        for name in project.own:
            if state.network(name) is None:
                labels = {PROJECT: project.name}
                state.networks.append(Network(digest(name + now()), name, "bridge", "", "", {}, labels, now()))
                call.err(f" Network {name}  Created\n")


def _converge(engine: Engine, call: Call, project: Project, service: Service, given: options.Options) -> Container:
    """One service's container runs as its configuration says."""
    image = engine.state.image(service.image)
    mark = digest(service.fingerprint + (image.id if image else ""))
    existing = next(iter(containers_of(engine, project, [service.name])), None)
    changed = existing is not None and (existing.labels.get(HASH) != mark or given.has("--force-recreate"))
    if existing is not None and changed and not given.has("--no-recreate"):
        call.err(f" Container {existing.name}  Recreate\n")
        engine.remove(existing)
        existing = None
    container = existing or _create(engine, project, service, mark)
    if container.running:
        call.err(f" Container {container.name}  Running\n")
    elif not given.has("--no-start"):
        with engine.change():
            engine.start(container)
        call.err(f" Container {container.name}  Started\n")
    return container


def _create(engine: Engine, project: Project, service: Service, mark: str, *, one_off: bool = False) -> Container:
    """A new container of a service.

    Raises:
        DockerError: its name is taken.
    """
    with engine.change() as state:
        other = state.container(service.container_name)
        if other is not None:
            raise DockerError(
                f'Error response from daemon: Conflict. The container name "/{other.name}" is already in use by '
                f'container "{other.id}". You have to remove (or rename) that container to be able to reuse that name.'
            )
        image = state.image(service.image)
        own = {PROJECT: project.name, SERVICE: service.name, HASH: mark, ONE_OFF: str(one_off)}
        container = Container(
            id=secrets.token_hex(32),
            name=service.container_name,
            image=service.image,
            image_id=image.id if image else "",
            env=service.env,
            labels={**(image.labels if image else {}), **service.labels, **own},
            restart=service.restart,
            ports=service.ports,
            mounts=service.mounts,
            networks=service.networks,
            host_config=service.host_config,
            healthcheck=service.healthcheck,
            created=now(),
        )
        state.containers.append(container)
    return container


def _wait(engine: Engine, call: Call, containers: list[Container], seconds: float) -> int:
    """All are running, and healthy where they say how to look."""
    started = monotonic()

    def settled(container: Container) -> bool:
        if not container.healthcheck:
            return container.running
        return engine.health(container) == "healthy"

    def broken(container: Container) -> str:
        if container.status == "exited":
            return f"container {container.name} exited ({container.exit_code})"
        late = monotonic() - started > UNHEALTHY_AFTER_S
        if container.healthcheck and late and engine.health(container) == "unhealthy":
            return f"container {container.name} is unhealthy"
        return ""

    call.wait_until(lambda: all(map(settled, containers)) or any(map(broken, containers)), seconds)
    for container in containers:
        if not settled(container):
            call.err(f"{broken(container) or 'application not healthy after ' + str(seconds) + 's'}\n")
            return 1
        call.err(f" Container {container.name}  {'Healthy' if container.healthcheck else 'Running'}\n")
    return 0


def _remove(engine: Engine, call: Call, containers: list[Container]) -> None:
    for container in containers:
        engine.remove(container)
        call.err(f" Container {container.name}  Removed\n")


def down(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`down`: neither containers nor networks of the project are there."""
    orphans = given.has("--remove-orphans")
    _remove(engine, call, containers_of(engine, project, None if orphans else list(project.services)))
    with engine.change() as state:
        for name in project.own:
            network = state.network(name)
            if network is not None:
                state.networks.remove(network)
    return 0


def stop(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`stop`."""
    for container in containers_of(engine, project, given.words):
        engine.stop(container, timeout_s=float(given.get("--timeout", "-t", default="10")))
        call.err(f" Container {container.name}  Stopped\n")
    return 0


def rm(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`rm --force`: stopped containers are gone; with `--stop`, running ones too."""
    chosen = containers_of(engine, project, given.words)
    if not given.has("--stop", "-s"):
        chosen = [container for container in chosen if not container.running]
    _remove(engine, call, chosen)
    return 0


def start(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`start`."""
    for container in containers_of(engine, project, given.words):
        with engine.change():
            engine.start(container)
        call.err(f" Container {container.name}  Started\n")
    return 0


def restart(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`restart`."""
    for container in containers_of(engine, project, given.words):
        engine.stop(container)
        with engine.change():
            engine.start(container)
        call.err(f" Container {container.name}  Started\n")
    return 0


def ps(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`ps`."""
    for container in containers_of(engine, project, given.words):
        if not (container.running or given.has("--all", "-a")):
            continue
        row = docker_views.container_row(container)
        row |= {"Name": container.name, "Service": container.labels[SERVICE], "Project": project.name}
        row |= {"ExitCode": container.exit_code, "Health": engine.health(container) if container.healthcheck else ""}
        text = (
            f"{container.name}   {container.image}   {row['Status']}" if not given.get("--format") else json.dumps(row)
        )
        call.out((container.id if given.has("--quiet", "-q") else text) + "\n")
    return 0


def logs(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`logs`."""
    for container in containers_of(engine, project, given.words):
        tail = given.get("--tail", "-n", default="all")
        docker_containers.logs(engine, call, ["--tail", tail, "--", container.name])
    return 0


def config(engine: Engine, call: Call, project: Project, given: options.Options) -> int:
    """`config --quiet`: the file is right, or this is not reached."""
    if not given.has("--quiet", "-q"):
        call.out(f"name: {project.name}\nservices: {json.dumps(sorted(project.services))}\n")
    return 0


def _exec(engine: Engine, call: Call, project: Project, argv: list[str]) -> int:
    """`exec SERVICE WORDS`: as Docker's own, standard input is open unless `--interactive=false`."""
    given = options.parse(argv, ("--user", "-u", "--workdir", "-w", "--env", "-e", "--index"), stop_at_word=True)
    service, *words = given.words
    container = next(iter(containers_of(engine, project, [service])), None)
    if container is None or not words:
        raise DockerError(f'service "{service}" is not running')
    extra = dict(value.partition("=")[::2] for value in given.all("--env", "-e"))
    return docker_containers.run_in(engine, call, container, words, extra, interactive=True)


def _run(engine: Engine, call: Call, project: Project, argv: list[str]) -> int:
    """`run SERVICE WORDS`: in a container of its own, without the service's ports, which does not come back."""
    given = options.parse(argv, ("--name", "--entrypoint", "--env", "-e", "--user", "-u"), stop_at_word=True)
    name, *words = given.words
    if name not in project.services:
        raise DockerError(f"no such service: {name}")
    service = project.services[name]
    _check(engine, project, [service])
    own_name = given.get("--name", default=f"{project.name}-{name}-run-{secrets.token_hex(6)}")
    alone = replace(service, container_name=own_name, ports={}, restart="no")
    container = _create(engine, project, alone, digest(service.fingerprint), one_off=True)
    engine.folder_of(container).mkdir(parents=True)
    with engine.change():
        container.status, container.started_at = "running", now()
    entrypoint = shlex.split(given.get("--entrypoint"))
    try:
        return docker_containers.run_in(engine, call, container, [*entrypoint, *words], {}, interactive=False)
    finally:
        engine.stop(container)
        if given.has("--rm"):
            engine.remove(container)


ALONE: Final[dict[str, Callable[[Engine, Call, Project, list[str]], int]]] = {"exec": _exec, "run": _run}
"""What runs words in a container: everything after the service is theirs."""

HANDLERS: Final[dict[str, Handler]] = {
    "up": up,
    "down": down,
    "stop": stop,
    "rm": rm,
    "start": start,
    "restart": restart,
    "ps": ps,
    "logs": logs,
    "config": config,
}
