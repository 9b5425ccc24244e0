"""How tests and the sandbox hold a practice server: start and stop it, let it fail, see what it executed."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from alfa_cloud.sandbox import child
from alfa_cloud.sandbox.child import SandboxError
from alfa_cloud.sandbox.practice import control, faults, recorder, ssh
from alfa_cloud.sandbox.practice.faults import Action, Fault, Phase
from alfa_cloud.sandbox.practice.folder import LOOPBACK, USERNAME, PracticeFolder, write_aside
from alfa_cloud.sandbox.practice.recorder import Recorded
from alfa_cloud.specs import Layout

START_TIMEOUT_S: Final = 60
STOP_TIMEOUT_S: Final = 30


class PracticeServer:
    """A practice server in a folder: a process of its own, which ends with this one.

    Args:
        folder: everything lies in it; the same server at the next start.
        port: of SSH, and the first of 200 that the server uses; 0 takes free ones. They stay with the folder.
        fsync: off in tests, for its database.
    """

    host: Final = LOOPBACK
    username: Final = USERNAME

    def __init__(self, folder: Path, *, port: int = 0, fsync: bool = True) -> None:
        self.folder = PracticeFolder(Path(folder).absolute())
        self.folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ports = self.folder.ports(port)
        self.fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where its SSH server listens."""
        return self.ports.ssh

    @property
    def http_port(self) -> int:
        """Where its nginx listens."""
        return self.ports.http

    @property
    def host_key(self) -> str:
        """Its public host key, as a line."""
        return ssh.public_line(self.folder)

    @property
    def layout(self) -> Layout:
        """Where things are on it; the same stands in its `.alfa.json`."""
        return self.folder.layout()

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process."""
        return self._process.pid if self.alive and self._process else None

    @property
    def boot_id(self) -> str:
        """Another one after each start and reboot."""
        return self.folder.boot_id.read_text().strip()

    def start(self) -> None:
        """It answers; nothing happens where it does already.

        Raises:
            SandboxError: it does not start, or another run has the folder; the message says why.
        """
        if self.alive:
            return
        argv = [sys.executable, "-m", "alfa_cloud.sandbox.practice", str(self.folder.root), "--tied"]
        argv += [] if self.fsync else ["--no-fsync"]
        self._ready.unlink(missing_ok=True)
        with self.folder.log.open("ab") as log:
            self._process = child.spawn(
                argv, log=log, death_signal=None, env=child.package_environment(), stdin=subprocess.PIPE
            )
        self._await_ready()

    def stop(self) -> None:
        """It is gone, and everything that it ran."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Its process died by `kill -9`; the next start finds and ends what was left."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def reboot(self, *, down_s: float = 0) -> None:
        """It was rebooted: all ended, another boot id, and containers are back by their restart policy."""
        self._await_ready()
        before = self.boot_id
        write_aside(self.folder.state / "down_s", str(down_s))
        control.order(self.folder, "reboot")
        self.await_boot(before)
        (self.folder.state / "down_s").unlink(missing_ok=True)

    def await_boot(self, former_boot_id: str) -> None:
        """It is up again after a reboot, whoever asked for that (a `systemctl reboot` takes it down for a second)."""
        child.wait_until(lambda: not self.alive or self.boot_id != former_boot_id, timeout_s=START_TIMEOUT_S)
        self._await_ready()

    def authorize(self, public_key: str) -> None:
        """The owner of a key, a line as in `authorized_keys`, may log in."""
        self.folder.authorize(public_key)

    def fault(
        self,
        match: str,
        action: Action | str,
        *,
        phase: Phase | str = Phase.BEFORE,
        exit_status: int = 1,
        stderr: str = "",
        seconds: float | None = None,
        lines: int = 1_000_000,
        times: int | None = None,
        skip: int = 0,
    ) -> Fault:
        """From now on commands whose arguments match a regular expression go wrong; see `Action` and `Phase`.

        Args:
            seconds: of `hang` and `slow`; None is for ever.
            lines: of `flood` and `garbage`.
            times: how often; None is always.
            skip: how many commands that match are spared first.
        """
        told = (Action(action), Phase(phase), exit_status, stderr, seconds, lines, times, skip)
        fault = Fault(uuid.uuid4().hex, match, *told)
        faults.save(self.folder.faults, [*faults.load(self.folder.faults), fault])
        return fault

    def clear_faults(self) -> None:
        """Nothing goes wrong any more."""
        self.folder.faults.unlink(missing_ok=True)

    def commands(self, program: str = "", *, kind: str = "") -> list[Recorded]:
        """Every command that was executed, in order; of one program, or one kind (`ssh`, `stand_in`)."""
        found = recorder.read(self.folder.commands)
        return [item for item in found if program in ("", item.program) and kind in ("", item.kind)]

    def forget_commands(self) -> None:
        """No command is remembered."""
        self.folder.commands.unlink(missing_ok=True)

    def cut_connections(self) -> None:
        """Every SSH connection is cut."""
        control.order(self.folder, "@cut")

    def crash_container(self, name: str) -> None:
        """A container's process died by `kill -9`; its restart policy counts.

        Raises:
            SandboxError: no such container runs.
        """
        if control.order(self.folder, "@crash", name) != 0:
            raise SandboxError(f"There is no running container {name}.")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _ready(self) -> Path:
        return self.folder.state / "ready"

    def _await_ready(self) -> None:
        child.wait_until(lambda: not self.alive or self._ready.exists(), timeout_s=START_TIMEOUT_S)
        if not self.alive or not self._ready.exists():
            words = child.tail(self.folder.log)
            self.kill()
            raise SandboxError(f"The practice server does not start; its last words, of {self.folder.log}:\n{words}")
