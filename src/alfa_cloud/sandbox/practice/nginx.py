"""The nginx stand-in's command line, and the process behind it."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import threading
from typing import Final

from alfa_cloud.sandbox import child
from alfa_cloud.sandbox.child import SandboxError
from alfa_cloud.sandbox.practice import nginx_config, options
from alfa_cloud.sandbox.practice.call import Call
from alfa_cloud.sandbox.practice.folder import PracticeFolder
from alfa_cloud.sandbox.practice.nginx_config import ConfigError

VERSION: Final = "nginx version: nginx/1.26.3 (a stand-in)"
ANSWER_S: Final = 20.0


class Nginx:
    """Starts, reloads and stops the proxy."""

    def __init__(self, folder: PracticeFolder) -> None:
        self.folder = folder
        self.path = folder.etc / "nginx" / "nginx.conf"
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether the proxy runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """The proxy serves; with a wrong configuration it serves nothing but 404.

        Raises:
            SandboxError: it does not start.
        """
        ports = self.folder.ports()
        argv = [sys.executable, "-m", "alfa_cloud.sandbox.practice.nginx_proxy", str(self.path)]
        argv = child.tied([*argv, str(ports.http), str(ports.https)], signal.SIGTERM)
        with self.lock, self.folder.log.open("ab") as log:
            if self.alive:
                return
            self.process = child.spawn(
                argv,
                log=log,
                death_signal=None,
                env=child.package_environment(self.folder.environment()),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            if self._read() != "ready":
                raise SandboxError(f"The nginx stand-in does not start: {child.tail(self.folder.log)}")

    def stop(self) -> None:
        """The proxy does not run."""
        with self.lock:
            if self.process is not None:
                child.end_process(self.process, signal.SIGTERM, timeout_s=5)
                for pipe in (self.process.stdin, self.process.stdout):
                    if pipe is not None:
                        pipe.close()
                self.process = None

    def reload(self) -> str:
        """The proxy serves what is on disk: `ok`, or what is wrong with it."""
        with self.lock:
            if not self.alive or self.process is None or self.process.stdin is None:
                return f'[error] open() "{self.folder.root}/run/nginx.pid" failed (2: No such file or directory)'
            self.process.stdin.write(b"reload\n")
            self.process.stdin.flush()
            return self._read()

    def _read(self) -> str:
        if self.process is None or self.process.stdout is None:
            return ""
        readable, _, _ = select.select([self.process.stdout], [], [], ANSWER_S)
        return self.process.stdout.readline().decode().strip() if readable else "[emerg] no answer"

    def test(self, call: Call, *, quiet: bool = False) -> int:
        """Be `nginx -t`."""
        ports = self.folder.ports()
        try:
            config = nginx_config.load(self.path, (ports.http, ports.https))
        except ConfigError as error:
            call.err(f"nginx: [emerg] {error}\nnginx: configuration file {self.path} test failed\n")
            return 1
        for words in config.warnings:
            call.err(f"nginx: [warn] {words}\n")
        if not quiet:
            call.err(f"nginx: the configuration file {self.path} syntax is ok\n")
            call.err(f"nginx: configuration file {self.path} test is successful\n")
        return 0


def nginx(server: Nginx, call: Call) -> int:
    """Be `nginx`; the exit status."""
    given = options.parse(call.argv, ("-s", "-c", "-g", "-p", "-e"))
    if given.has("-v", "-V"):
        call.err(f"{VERSION}\n")
        return 0
    if given.has("-t", "-T"):
        return server.test(call, quiet=given.has("-q"))
    if wanted := given.get("-s"):
        return signal_nginx(server, call, wanted)
    if server.alive:
        call.err("nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)\n")
        return 1
    status = server.test(call, quiet=True)
    if status == 0:
        server.start()
    return status


def signal_nginx(server: Nginx, call: Call, wanted: str) -> int:
    """Be `nginx -s WANTED`."""
    if wanted in ("stop", "quit"):
        server.stop()
        return 0
    if wanted == "reopen":
        return 0
    if wanted != "reload":
        call.err(f'nginx: invalid option: "-s {wanted}"\n')
        return 1
    if status := server.test(call, quiet=True):
        return status
    words = server.reload()
    if words != "ok":
        call.err(f"nginx: {words}\n")
    return 0 if words == "ok" else 1
