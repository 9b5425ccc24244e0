"""The Docker stand-in's engine: a container is a process of this machine that serves HTTP on its published port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from alfa_cloud.sandbox import child
from alfa_cloud.sandbox.practice.docker_state import Container, DockerState, now
from alfa_cloud.sandbox.practice.folder import LOOPBACK, MARKER, PracticeFolder, is_free

APP: Final = Path(__file__).with_name("laravel.py")
FIRST_BACKOFF_S: Final = 0.1
LAST_BACKOFF_S: Final = 5.0
COMES_BACK: Final = ("always", "unless-stopped")


class DockerError(Exception):
    """The daemon's answer to what it does not do."""


class Engine:
    """Runs containers, and remembers them."""

    def __init__(self, folder: PracticeFolder, psql: Path) -> None:
        self.folder = folder
        self.psql = psql
        self.path = folder.state / "docker.json"
        self.lock = threading.RLock()
        self.state = DockerState.load(self.path)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.closing = threading.Event()

    @contextmanager
    def change(self) -> Iterator[DockerState]:
        """The state, held while it is read or changed, and saved afterwards."""
        with self.lock:
            try:
                yield self.state
            finally:
                self.state.save(self.path)

    def boot(self) -> None:
        """Containers that Docker would start by itself are started; the others are told to be down."""
        with self.change() as state:
            for container in state.containers:
                if container.status in ("running", "restarting"):
                    container.status, container.exit_code, container.finished_at = "exited", 255, now()
                container.pid = 0
                back = container.restart == "always" or not container.stopped_by_hand
                if container.status == "exited" and container.restart in COMES_BACK and back:
                    with suppress(DockerError):
                        self.start(container)

    def close(self) -> None:
        """No container runs; which ones did is remembered, as by a daemon that goes down."""
        self.closing.set()
        for process in list(self.processes.values()):
            child.end_process(process, signal.SIGTERM, timeout_s=5)

    def folder_of(self, container: Container) -> Path:
        """Where a container's log lies."""
        return self.folder.state / "containers" / container.id[:16]

    def log_of(self, container: Container) -> Path:
        """What a container printed."""
        return self.folder_of(container) / "log"

    def start(self, container: Container) -> None:
        """A container's process runs.

        Raises:
            DockerError: its port is taken.
        """
        with self.lock:
            if container.running:
                return
            running = {port for other in self.state.containers if other.running for port in other.ports.values()}
            for port in container.ports.values():
                if port in running or not is_free(port):
                    container.error = f"Bind for {LOOPBACK}:{port} failed: port is already allocated"
                    raise DockerError(
                        "Error response from daemon: driver failed programming external connectivity on endpoint "
                        f"{container.name} ({container.id}): {container.error}"
                    )
            self.folder_of(container).mkdir(parents=True, exist_ok=True)
            for source in container.mounts.values():
                Path(source).mkdir(parents=True, exist_ok=True)
            with self.log_of(container).open("ab") as log:
                process = child.spawn(
                    self.app_argv(container, "serve", str(next(iter(container.ports.values()), 0))),
                    log=log,
                    death_signal=None,
                    env=self.app_environment(container),
                    cwd=self.folder_of(container),
                )
            self.processes[container.id] = process
            container.pid, container.status, container.error = process.pid, "running", ""
            container.exit_code, container.started_at, container.stopped_by_hand = 0, now(), False
            threading.Thread(target=self._watch, args=(container, process), daemon=True).start()

    def app_argv(self, container: Container, *words: str) -> list[str]:
        """How the app's stand-in is run; `words` say as what."""
        image = self.state.image(container.image_id)
        version = image.version if image else "0.0.0"
        storage = next((source for target, source in container.mounts.items() if target.endswith("storage")), "")
        lock = str(self.folder.state / "lock")
        return [sys.executable, "-I", "-S", str(APP), version, str(self.psql), storage, lock, *words]

    def app_environment(self, container: Container) -> dict[str, str]:
        """The variables in a container."""
        image = self.state.image(container.image_id)
        inherited = dict(entry.split("=", 1) for entry in image.env) if image else {}
        return {**inherited, **container.env, MARKER: str(self.folder.root)}

    def _watch(self, container: Container, process: subprocess.Popen[bytes]) -> None:
        """A container's end is noted, and its restart policy kept."""
        status = process.wait()
        if self.closing.is_set():
            return
        with self.change() as state:
            if self.processes.get(container.id) is not process or container not in state.containers:
                return
            del self.processes[container.id]
            container.status, container.pid, container.finished_at = "exited", 0, now()
            container.exit_code = status if status >= 0 else 128 - status
            again = container.restart in COMES_BACK or (container.restart.startswith("on-failure") and status != 0)
            if container.stopped_by_hand or not again:
                return
            container.status = "restarting"
            container.restart_count += 1
        pause = min(FIRST_BACKOFF_S * 2 ** min(container.restart_count - 1, 6), LAST_BACKOFF_S)
        if self.closing.wait(pause):
            return
        with self.change() as state:
            if container in state.containers and container.status == "restarting":
                container.status = "exited"
                with suppress(DockerError):
                    self.start(container)

    def stop(self, container: Container, *, timeout_s: float = 10) -> None:
        """A container's process is over, and does not come back by itself."""
        with self.change():
            container.stopped_by_hand = True
            process = self.processes.get(container.id)
            if container.status == "restarting":
                container.status = "exited"
        if process is None:
            self._end_without_process(container)
            return
        child.end_process(process, signal.SIGTERM, timeout_s=timeout_s)
        with self.change():
            if self.processes.pop(container.id, None) is not None:
                container.status, container.pid, container.finished_at = "exited", 0, now()
                container.exit_code = 0

    def _end_without_process(self, container: Container) -> None:
        """A container that was made for one command is over; who attends that command ends it then."""
        with self.change():
            if container.running:
                container.status, container.finished_at, container.exit_code = "exited", now(), 137

    def remove(self, container: Container) -> None:
        """A container is gone, with its log."""
        self.stop(container, timeout_s=2)
        with self.change() as state:
            if container in state.containers:
                state.containers.remove(container)
        shutil.rmtree(self.folder_of(container), ignore_errors=True)

    def crash(self, name: str) -> bool:
        """A container's process dies by `kill -9`; whether there was one."""
        with self.lock:
            container = self.state.container(name)
            process = self.processes.get(container.id) if container else None
        if process is not None:
            os.kill(process.pid, signal.SIGKILL)
        return process is not None

    def health(self, container: Container) -> str:
        """`healthy` where the app answers 200; `starting` in its first seconds; else `unhealthy`."""
        port = next(iter(container.ports.values()), 0)
        link = HTTPConnection(LOOPBACK, port, timeout=2)
        try:
            link.request("GET", "/up")
            if link.getresponse().status == 200:
                return "healthy"
            return "unhealthy"
        except (OSError, HTTPException):
            return "starting" if container.running else "unhealthy"
        finally:
            link.close()
