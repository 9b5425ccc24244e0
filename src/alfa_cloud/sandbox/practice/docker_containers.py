"""The Docker stand-in's command line: containers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from alfa_cloud.sandbox.practice import docker_output, docker_views, options
from alfa_cloud.sandbox.practice.call import Call, CallerGoneError
from alfa_cloud.sandbox.practice.docker_state import Container
from alfa_cloud.sandbox.practice.engine import DockerError, Engine

REAL: Final = ("true", "false", "env", "printenv", "id", "cat", "ls", "sh", "echo", "sleep", "test", "date")
"""What `exec` really runs, in a folder of the container's; of a shell's words nothing else exists in it."""


def need(engine: Engine, name: str) -> Container:
    """The container of this name.

    Raises:
        DockerError: there is none.
    """
    container = engine.state.container(name)
    if container is None:
        raise DockerError(f"Error response from daemon: No such container: {name}")
    return container


def ls(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container ls`."""
    given = options.parse(argv, ("--format", "--filter", "-f", "--last", "-n"))
    chosen = [item for item in engine.state.containers if item.running or given.has("--all", "-a")]
    for filter_ in given.all("--filter", "-f"):
        key, _, value = filter_.partition("=")
        name, _, wanted = value.partition("=")
        tests: dict[str, Callable[[Container], bool]] = {
            "label": lambda item, n=name, w=wanted: n in item.labels and w in ("", item.labels[n]),  # type: ignore[misc]
            "name": lambda item, v=value: v.strip("^$/") in item.name,  # type: ignore[misc]
            "status": lambda item, v=value: item.status == v,  # type: ignore[misc]
            "ancestor": lambda item, v=value: v in (item.image, item.image_id),  # type: ignore[misc]
            "network": lambda item, v=value: v in item.networks,  # type: ignore[misc]
        }
        if key not in tests:
            raise DockerError(f"Error response from daemon: invalid filter '{key}'")
        chosen = [item for item in chosen if tests[key](item)]
    rows = [docker_views.container_row(item) for item in reversed(chosen)]
    return docker_output.rows(call, rows, given.get("--format"), quiet=given.has("-q", "--quiet", "-aq"))


def inspect(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container inspect`."""
    given = options.parse(argv, ("--format", "-f", "--type"))
    found = [(name, engine.state.container(name)) for name in given.words]
    missing = [f"No such container: {name}" for name, item in found if item is None]
    there = [docker_views.container(engine, item) for _, item in found if item is not None]
    return docker_output.objects(call, there, missing, given.get("--format", "-f"))


def rm(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container rm`."""
    given = options.parse(argv, ())
    force = given.has("--force", "-f")
    status = 0
    for name in given.words:
        container = engine.state.container(name)
        if container is None:
            call.err(f"Error response from daemon: No such container: {name}\n")
            status |= 0 if force else 1
        elif container.running and not force:
            call.err(
                f"Error response from daemon: cannot remove container {name!r}: container is running: "
                "stop the container before removing or force remove\n"
            )
            status = 1
        else:
            engine.remove(container)
            call.out(f"{name}\n")
    return status


def stop(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container stop`."""
    given = options.parse(argv, ("--time", "-t", "--timeout", "--signal", "-s"))
    for name in given.words:
        engine.stop(need(engine, name), timeout_s=float(given.get("--time", "-t", "--timeout", default="10")))
        call.out(f"{name}\n")
    return 0


def start(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container start`."""
    for name in options.parse(argv, ()).words:
        with engine.change():
            engine.start(need(engine, name))
        call.out(f"{name}\n")
    return 0


def restart(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container restart`."""
    given = options.parse(argv, ("--time", "-t", "--timeout", "--signal", "-s"))
    for name in given.words:
        container = need(engine, name)
        engine.stop(container)
        with engine.change():
            engine.start(container)
        call.out(f"{name}\n")
    return 0


def kill(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container kill`."""
    for name in options.parse(argv, ("--signal", "-s")).words:
        engine.stop(need(engine, name), timeout_s=0)
        call.out(f"{name}\n")
    return 0


def logs(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container logs`."""
    given = options.parse(argv, ("--tail", "-n", "--since", "--until"))
    if len(given.words) != 1:
        raise DockerError('"docker container logs" requires exactly 1 argument.')
    container = need(engine, given.words[0])
    path = engine.log_of(container)
    data = path.read_bytes() if path.exists() else b""
    lines = data.splitlines(keepends=True)
    tail = given.get("--tail", "-n", default="all")
    call.out(b"".join(lines[len(lines) - min(int(tail), len(lines)) :] if tail.isdigit() else lines))
    place = len(data)
    while given.has("--follow", "-f") and container.running:
        call.pause(0.1)
        with path.open("rb") as file:
            file.seek(place)
            new = file.read()
        call.out(new)
        place += len(new)
    return 0


def execute(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker container exec`: the app's stand-in, or a plain tool, with the container's variables."""
    valued = ("--user", "-u", "--workdir", "-w", "--env", "-e", "--env-file", "--detach-keys")
    given = options.parse(argv, valued, stop_at_word=True)
    if len(given.words) < 2:
        raise DockerError('"docker container exec" requires at least 2 arguments.')
    name, *words = given.words
    extra = dict(value.partition("=")[::2] for value in given.all("--env", "-e"))
    return run_in(engine, call, need(engine, name), words, extra, interactive=given.has("--interactive", "-i", "-it"))


def run_in(
    engine: Engine, call: Call, container: Container, words: list[str], extra: dict[str, str], *, interactive: bool
) -> int:
    """Run words in a container; their exit status."""
    if not container.running:
        raise DockerError(f"Error response from daemon: container {container.id} is not running")
    if words[0] == "php" and len(words) > 1 and words[1].endswith("artisan"):
        argv = engine.app_argv(container, "artisan", *words[2:])
    elif words[0] == "php":
        call.out("PHP 8.4.0 (a stand-in)\n")
        return 0
    elif words[0] in REAL:
        argv = words
    else:
        call.err(
            f'OCI runtime exec failed: exec failed: unable to start container process: exec: "{words[0]}": '
            "executable file not found in $PATH\n"
        )
        return 127
    process = subprocess.Popen(
        argv,
        stdin=call.stdin if interactive else subprocess.DEVNULL,
        stdout=call.stdout,
        stderr=call.stderr,
        env={**engine.app_environment(container), **extra},
        cwd=engine.folder_of(container),
        start_new_session=True,
    )
    return _attend(engine, call, container, process)


def _attend(engine: Engine, call: Call, container: Container, process: subprocess.Popen[bytes]) -> int:
    """Wait for a process in a container, which ends with the container, also where that starts again at once.

    A client that is killed leaves it running, as Docker's does.
    """
    attended, began = True, container.started_at
    pause = 0.002
    while process.poll() is None:
        if not container.running or container.started_at != began:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 137
        try:
            if attended:
                call.pause(pause)
            else:
                time.sleep(0.05)
        except CallerGoneError:
            attended = False
        pause = min(pause * 1.5, 0.05)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def stats(engine: Engine, call: Call, argv: list[str]) -> int:
    """`docker stats --no-stream`: what a container uses, as good as nothing."""
    given = options.parse(argv, ("--format",))
    names = given.words
    rows = [
        {
            "ID": item.id[:12],
            "Container": item.id[:12],
            "Name": item.name,
            "CPUPerc": "0.10%",
            "MemUsage": "24MiB / 512MiB",
            "MemPerc": "4.69%",
            "NetIO": "0B / 0B",
            "BlockIO": "0B / 0B",
            "PIDs": "3",
        }
        for item in engine.state.containers
        if item.running and (not names or item.name in names)
    ]
    return docker_output.rows(call, rows, given.get("--format"))


HANDLERS: Final[dict[str, Callable[[Engine, Call, list[str]], int]]] = {
    "stats": stats,
    "ps": ls,
    "container ls": ls,
    "container list": ls,
    "container ps": ls,
    "container inspect": inspect,
    **{
        f"{prefix}{name}": handler
        for prefix in ("", "container ")
        for name, handler in {
            "rm": rm,
            "stop": stop,
            "start": start,
            "restart": restart,
            "kill": kill,
            "logs": logs,
            "exec": execute,
        }.items()
    },
}
