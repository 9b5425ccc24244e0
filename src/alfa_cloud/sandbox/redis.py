"""An embedded Redis (Valkey): one data folder, a unix socket of its own, gone with the process that started it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from alfa_cloud.sandbox import binaries, child
from alfa_cloud.sandbox.child import FolderLock, SandboxError

START_TIMEOUT_S: Final = 20


class EmbeddedRedis:
    """A Redis for one process, over a unix socket only; it keeps what it holds (`appendonly yes`)."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.log = self.data_dir / "redis.log"
        self._lock = FolderLock(self.data_dir / "lock", "The embedded Redis")
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None

    @property
    def url(self) -> str:
        """Its address, for redis-py and arq."""
        return f"unix://{self.socket_path}"

    @property
    def socket_path(self) -> Path:
        """Its socket; the same as long as this object is not stopped."""
        if self._socket_dir is None:
            raise SandboxError("Redis is not started.")
        return self._socket_dir / "redis.sock"

    @property
    def pid(self) -> int | None:
        """Its process."""
        return self._process.pid if self.alive and self._process else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """It answers; nothing happens where it does already.

        Raises:
            SandboxError: it does not start, or another run has the data; the message says why.
        """
        if self.alive:
            return
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._make_socket_dir()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """It is gone, and its socket folder too."""
        if self._process is not None:
            child.end_process(self._process, signal.SIGTERM)
            self._process = None
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            (self.data_dir / "socket_dir").unlink(missing_ok=True)
            self._socket_dir = None
        self._lock.release()

    def restart(self) -> None:
        """It was away for a moment and answers again, at the same address."""
        if self._process is not None:
            child.end_process(self._process, signal.SIGTERM)
        self.start()

    def kill(self) -> None:
        """It died by `kill -9`; `start` brings it back at the same address."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def flush(self) -> None:
        """It holds nothing.

        Raises:
            SandboxError: it did not obey.
        """
        answer = self._ask(b"FLUSHALL")
        if not answer.startswith(b"+OK"):
            raise SandboxError(f"Redis did not flush: {answer!r}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _make_socket_dir(self) -> None:
        """There is a short private folder for the socket; a killed run's one is removed."""
        if self._socket_dir is not None:
            return
        note = self.data_dir / "socket_dir"
        if note.exists():
            former = Path(note.read_text().strip())
            if former.name.startswith("alfa-redis-"):
                shutil.rmtree(former, ignore_errors=True)
        base = tempfile.gettempdir()
        self._socket_dir = Path(tempfile.mkdtemp(prefix="alfa-redis-", dir=base if len(base) < 60 else "/tmp"))
        note.write_text(f"{self._socket_dir}\n")

    def _launch(self) -> None:
        """The server runs and answers."""
        argv = [str(binaries.redis_server()), "--port", "0", "--unixsocket", str(self.socket_path)]
        argv += ["--unixsocketperm", "700", "--dir", str(self.data_dir), "--appendonly", "yes", "--save", ""]
        argv += ["--daemonize", "no", "--appendfsync", "everysec"]
        self.socket_path.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = child.spawn(argv, log=log, death_signal=signal.SIGTERM, cwd=self.data_dir)
        if not child.wait_until(self._settled, timeout_s=START_TIMEOUT_S) or self._process.poll() is not None:
            raise SandboxError(f"Redis does not start; its last words, of {self.log}:\n{child.tail(self.log)}")

    def _settled(self) -> bool:
        """Whether it answers, or is over."""
        if self._process is None or self._process.poll() is not None:
            return True
        try:
            return self._ask(b"PING").startswith(b"+PONG")
        except OSError:
            return False

    def _ask(self, command: bytes) -> bytes:
        """The first line of its answer to an inline command."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(str(self.socket_path))
            link.sendall(command + b"\r\n")
            return link.recv(200)
