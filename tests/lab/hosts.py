"""The lab's hosts for tests: starts them by lab.sh and runs commands in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("lab.sh")
_LOG_TAIL_LINES = 40
_BOOT_DEADLINE_S = 120.0


class LabError(RuntimeError):
    """The lab did not do what was asked; the message ends with the tail of its log."""


@dataclass(frozen=True, slots=True)
class LabHost:
    """One cloud host of the lab: `address` answers SSH on port 22, user www-data."""

    name: str
    address: str

    def exec(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 120.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root on the host, past SSH and past the product."""
        command = ["docker", "exec", "--interactive", self.name, *argv]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)

    def authorize(self, public_key: str) -> None:
        """Let www-data log in with this key, at once, on this host and all others."""
        with tempfile.NamedTemporaryFile("w", suffix=".pub") as file:
            file.write(public_key.strip() + "\n")
            file.flush()
            _run_lab("authorize", file.name)

    def load_image(self, reference: str) -> None:
        """Bring an image of this machine to the host."""
        with subprocess.Popen(["docker", "save", reference], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "exec", "--interactive", self.name, "docker", "load"],
                stdin=save.stdout, capture_output=True, check=True, timeout=120,
            )  # fmt: skip

    def stay_down(self) -> None:
        """Its next reboot is its last, until `come_back`."""
        _run(["docker", "update", "--restart=no", self.name])

    def wait_until_down(self) -> None:
        """Its services may take longer to stop than somebody waits for them."""
        _run(["docker", "wait", self.name])

    def come_back(self) -> None:
        """It runs, and comes back from reboots again."""
        _run(["docker", "update", "--restart=unless-stopped", self.name])
        _run(["docker", "start", self.name])
        self.wait_until_ready()

    def restart(self) -> None:
        """Reboot the host as `reboot` on it would, and wait until all its services run again."""
        _run(["docker", "restart", self.name])
        self.wait_until_ready()

    def cut_power(self) -> None:
        """End everything on the host at once, as a power cut would, and start it again."""
        _run(["docker", "kill", self.name])
        _run(["docker", "start", self.name])
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the host has booted."""
        deadline = time.monotonic() + _BOOT_DEADLINE_S
        while self.exec(["test", "-e", "/run/lab-ready"]).returncode != 0:
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} did not come up")
            time.sleep(0.2)


def lab_available() -> str | None:
    """Why the lab can't run here, in words; None when it can."""
    if os.geteuid() != 0:
        return "the lab needs root"
    if shutil.which("docker") is None:
        return "no docker command; tests/lab/lab.sh engine installs it"
    try:
        engine = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    if engine.returncode != 0:
        return "no Docker engine runs; tests/lab/lab.sh engine starts one"
    return None


def start_lab(count: int, first: int = 1) -> list[LabHost]:
    """Bring up `count` hosts, from that number on, with the app's images on them; quick where they run already."""
    lines = _run_lab("up", str(first + count - 1), str(first)).decode().splitlines()
    found = [LabHost(name, address) for name, address in (line.split() for line in lines)]
    _run_lab("app", *(host.name for host in found))
    return found


def start_bare(number: int) -> LabHost:
    """A new host with SSH and sudo, and nothing else."""
    name, address = _run_lab("bare", str(number)).decode().split()
    return LabHost(name, address)


def _run_lab(*arguments: str) -> bytes:
    return _run([str(_SCRIPT), *arguments])


def _run(command: list[str]) -> bytes:
    # The output goes to files: a daemon started on the way would keep a pipe open for ever.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, check=False).returncode
        stdout.seek(0)
        stderr.seek(0)
        if status != 0:
            tail = stderr.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            raise LabError(f"{' '.join(command)} ended with {status}:\n" + "\n".join(tail))
        return stdout.read()
