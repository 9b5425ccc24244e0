"""Child processes that never outlive their parent, whichever way it dies."""

from __future__ import annotations

import fcntl
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Final

from alfa_cloud.errors import AlfaCloudError

POLL_S: Final = 0.005
PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]

# prctl(2): PR_SET_PDEATHSIG is 1; for machines without util-linux' setpriv.
TIE: Final = "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,int(sys.argv[1]));os.execvp(sys.argv[2],sys.argv[2:])"


class SandboxError(AlfaCloudError):
    """Something of the sandbox does not start; the message says what to do."""

    code = "sandbox"


class _Spawner(threading.Thread):
    """Forks for everybody: the kernel's parent-death signal follows the thread that forked, not the process."""

    def __init__(self) -> None:
        super().__init__(name="spawner", daemon=True)
        self.work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run(self) -> None:
        """Fork until the process ends."""
        while True:
            self.work.get()()

    def popen(self, make: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """What `make` returns, or raises, when called in this thread."""
        answers: queue.SimpleQueue[subprocess.Popen[bytes] | Exception] = queue.SimpleQueue()

        def fork() -> None:
            try:
                answers.put(make())
            except Exception as error:  # handed over to the caller's thread
                answers.put(error)

        self.work.put(fork)
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


_spawners: dict[int, _Spawner] = {}
_spawners_lock = threading.Lock()


def _spawner() -> _Spawner:
    """The thread of this process that forks."""
    with _spawners_lock:
        if os.getpid() not in _spawners:
            _spawners[os.getpid()] = _Spawner()
            _spawners[os.getpid()].start()
        return _spawners[os.getpid()]


def tied(argv: Sequence[str], death_signal: signal.Signals) -> list[str]:
    """The same program, told to take a signal when its parent dies."""
    if setpriv := shutil.which("setpriv"):
        return [setpriv, "--pdeathsig", death_signal.name.removeprefix("SIG"), "--", *argv]
    return [sys.executable, "-I", "-S", "-c", TIE, str(int(death_signal)), *argv]


def spawn(
    argv: Sequence[str],
    *,
    log: IO[bytes],
    death_signal: signal.Signals | None = signal.SIGTERM,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that neither Ctrl-C nor a killed parent leaves it behind."""
    full = list(argv) if death_signal is None else tied(argv, death_signal)

    def make() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            full,
            stdin=stdin,
            stdout=log if stdout is None else stdout,
            stderr=log,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )

    return _spawner().popen(make)


def package_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables with which a Python of ours finds this package."""
    env = dict(os.environ if env is None else env)
    paths = [str(PACKAGE_ROOT), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return env


def wait_until(holds: Callable[[], bool], *, timeout_s: float) -> bool:
    """Whether something came to hold in time."""
    end = monotonic() + timeout_s
    while not holds():
        if monotonic() > end:
            return False
        sleep(POLL_S)
    return True


def end_process(process: subprocess.Popen[bytes], stop: signal.Signals, *, timeout_s: float = 10) -> int:
    """The process is over, by force where it does not listen; its exit status."""
    if process.poll() is None:
        process.send_signal(stop)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class FolderLock:
    """Holds a data folder for one run; free again when the run dies."""

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self.owner = owner
        self.descriptor: int | None = None

    def acquire(self) -> None:
        """The folder is ours.

        Raises:
            SandboxError: another run holds it.
        """
        if self.descriptor is not None:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            message = (
                f"{self.owner} in {self.path.parent} is in use by another run (process {holder}); stop that first."
            )
            raise SandboxError(message) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self.descriptor = descriptor

    def release(self) -> None:
        """Others may have the folder."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def tail(path: Path, *, max_bytes: int = 2000) -> str:
    """The last lines of a log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - max_bytes))
        return file.read().decode("utf-8", "replace").strip()
