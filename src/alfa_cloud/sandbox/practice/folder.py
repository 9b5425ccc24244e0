"""The folder of a practice server: its paths, its ports, and the files that are there before anything runs."""

from __future__ import annotations

import json
import os
import random
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Final

from alfa_cloud.sandbox.child import SandboxError
from alfa_cloud.specs import Layout

LOOPBACK: Final = "127.0.0.1"
USERNAME: Final = "www-data"
BLOCK: Final = 200
FIRST_BLOCK: Final = 12000
LAST_BLOCK: Final = 32000
"""Below Linux' ephemeral ports."""
TAKEN_S: Final = 120
"""From the choice of a block until its server surely listens."""

MARKER: Final = "ALFA_PRACTICE"
SESSION: Final = "ALFA_PRACTICE_SESSION"
USER: Final = "ALFA_PRACTICE_USER"
"""Variables of every process of a practice server: its folder, the SSH session, and whom sudo made it."""

COPIED: Final = ("os-release", "debian_version", "passwd", "group", "hosts", "resolv.conf", "timezone")
NGINX_CONF: Final = "# The practice server's nginx (a stand-in) reads this file.\nhttp {\n    include %s/*.conf;\n}\n"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one practice server, next to each other; they stay with the folder."""

    base: int

    @property
    def ssh(self) -> int:
        """Where sshd's stand-in listens."""
        return self.base

    @property
    def http(self) -> int:
        """Where nginx' stand-in listens."""
        return self.base + 1

    @property
    def https(self) -> int:
        """Where it listens for TLS, once a virtual host asks for it."""
        return self.base + 2

    @property
    def database(self) -> int:
        """Where PostgreSQL listens."""
        return self.base + 3

    @property
    def first(self) -> int:
        """The first port for containers."""
        return self.base + 10

    @property
    def last(self) -> int:
        """The last port for containers."""
        return self.base + BLOCK - 1


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _take(base: int) -> bool:
    """Whether nobody else chose this block just now: who did may not listen yet."""
    note = Path(tempfile.gettempdir(), f"alfa-practice-ports-{base}")
    try:
        if note.exists() and time() - note.stat().st_mtime > TAKEN_S:
            note.unlink()
        note.touch(exist_ok=False)
    except OSError:
        return False
    return True


def choose_ports() -> Ports:
    """A block of free ports.

    Raises:
        SandboxError: there is none.
    """
    blocks = list(range(FIRST_BLOCK, LAST_BLOCK, BLOCK))
    random.SystemRandom().shuffle(blocks)
    for base in blocks:
        if all(is_free(port) for port in range(base, base + BLOCK)) and _take(base):
            return Ports(base)
    raise SandboxError(f"No {BLOCK} free ports next to each other between {FIRST_BLOCK} and {LAST_BLOCK}.")


@dataclass(frozen=True, slots=True)
class PracticeFolder:
    """Paths of a practice server."""

    root: Path

    @property
    def bin(self) -> Path:
        """The stand-ins; first in PATH."""
        return self.root / "bin"

    @property
    def home(self) -> Path:
        """The user's home, where commands start."""
        return self.root / "home"

    @property
    def etc(self) -> Path:
        """What stands for `/etc`."""
        return self.root / "etc"

    @property
    def conf_d(self) -> Path:
        """nginx' virtual hosts."""
        return self.etc / "nginx" / "conf.d"

    @property
    def certificates(self) -> Path:
        """certbot's `live` folder."""
        return self.etc / "letsencrypt" / "live"

    @property
    def webroot(self) -> Path:
        """Where certbot puts its challenges."""
        return self.root / "var" / "www" / "html"

    @property
    def state(self) -> Path:
        """What the stand-ins remember."""
        return self.root / "state"

    @property
    def boot_id(self) -> Path:
        """What stands for `/proc/sys/kernel/random/boot_id`."""
        return self.root / "proc" / "boot_id"

    @property
    def commands(self) -> Path:
        """Every command that was executed, a JSON object a line."""
        return self.root / "commands.jsonl"

    @property
    def faults(self) -> Path:
        """What is to go wrong."""
        return self.root / "faults.json"

    @property
    def authorized_keys(self) -> Path:
        """Who may log in."""
        return self.home / ".ssh" / "authorized_keys"

    @property
    def log(self) -> Path:
        """What the practice server itself has to say."""
        return self.root / "practice.log"

    def ports(self, wanted: int = 0) -> Ports:
        """The folder's ports, chosen at the first call.

        Args:
            wanted: the SSH port, and the first of the block; 0 leaves the choice open.
        """
        note = self.state / "ports.json"
        if note.exists():
            return Ports(int(json.loads(note.read_text())["base"]))
        ports = Ports(wanted) if wanted else choose_ports()
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_aside(note, json.dumps({"base": ports.base}))
        return ports

    def layout(self) -> Layout:
        """Where things are on this server."""
        ports = self.ports()
        return Layout(
            root=str(self.root / "srv" / "alfa"),
            nginx_dir=str(self.conf_d),
            http_port=ports.http,
            https_port=ports.https,
            database_host=LOOPBACK,
            database_port=ports.database,
            first_port=ports.first,
            last_port=ports.last,
            certbot_webroot=str(self.webroot),
            certificates_dir=str(self.certificates),
        )

    def prepare(self) -> None:
        """Every folder and file that is there before anything runs."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (
            self.bin,
            self.home,
            self.conf_d,
            self.certificates,
            self.webroot,
            self.state,
            self.root / "srv",
        ):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.authorized_keys.parent, self.boot_id.parent, self.state / "containers", self.root / "tmp"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in COPIED:
            source, copy = Path("/etc") / name, self.etc / name
            if source.is_file() and not copy.exists():
                copy.write_bytes(source.read_bytes())
        write_aside(self.etc / "nginx" / "nginx.conf", NGINX_CONF % self.conf_d)
        write_aside(self.home / ".alfa.json", json.dumps(asdict(self.layout()), indent=2) + "\n")

    def authorize(self, public_key: str) -> None:
        """The owner of a key may log in; `public_key` is a line as in `authorized_keys`."""
        self.authorized_keys.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = self.authorized_keys.read_text().splitlines() if self.authorized_keys.exists() else []
        if public_key.strip() not in lines:
            write_aside(self.authorized_keys, "\n".join([*lines, public_key.strip()]) + "\n", mode=0o600)

    def environment(self, session: str = "") -> dict[str, str]:
        """The variables that a command finds, as after a login."""
        path = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        return {
            "HOME": str(self.home),
            "USER": USERNAME,
            "LOGNAME": USERNAME,
            "SHELL": "/bin/sh",
            "PATH": f"{self.bin}:{path}:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.root / "tmp"),
            MARKER: str(self.root),
            SESSION: session,
        }


def write_aside(path: Path, text: str, *, mode: int = 0o644) -> None:
    """A file has this text, or its former one."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{random.getrandbits(32):08x}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)
