"""What a bare Debian or Ubuntu lacks: its packages, and its services started."""

from __future__ import annotations

from typing import Final

from alfa_cloud.remote.command import Command
from alfa_cloud.specs import DatabaseEngine, Tls

SOURCES: Final = {
    "flock": "util-linux",
    "curl": "curl",
    "update-ca-certificates": "ca-certificates",
    "zstd": "zstd",
    "git": "git",
    "sysctl": "procps",
    "ip": "iproute2",
    "iptables": "iptables",
    "dockerd": "docker.io",
    "docker": "docker-cli|docker.io",
    "docker compose": "docker-compose-plugin|docker-compose-v2|docker-compose",
    "docker buildx": "docker-buildx-plugin|docker-buildx",
    "apparmor_parser": "apparmor",
    "nginx": "nginx",
}
"""The program, and the package that brings it: of several names the first that the system knows. Ubuntu has Compose 2
as `docker-compose-v2`, Debian 13 as `docker-compose`, and Docker's client apart; `-plugin` is Docker's own."""
SOURCES_OF: Final[dict[DatabaseEngine | Tls, dict[str, str]]] = {
    DatabaseEngine.MARIADB: {"mariadbd": "mariadb-server", "mariadb": "mariadb-client"},
    DatabaseEngine.POSTGRESQL: {"psql": "postgresql", "pg_lsclusters": "postgresql"},
    Tls.CERTBOT: {"certbot": "certbot"},
    Tls.NONE: {},
}

# Prints the packages that bring what is not there; exit status 0 where all is.
MISSING: Final = """
there() {
  case $1 in
    # Docker starts no container where the kernel has AppArmor and nothing loads its profile.
    apparmor_parser) ! grep -qx Y /sys/module/apparmor/parameters/enabled 2>/dev/null || command -v "$1" >/dev/null ;;
    docker\\ *) docker "${1#docker }" version >/dev/null 2>&1 ;;
    *) command -v -- "$1" >/dev/null ;;
  esac
}
status=0
while [ $# -gt 0 ]; do
  there "$1" || { printf '%s\\n' "$2"; status=1; }
  shift 2
done
exit "$status"
"""

# A killed run leaves dpkg half-way: the next one goes on there. Files that an administrator changed stay as they are.
INSTALL: Final = """
set -eu
apt() { apt-get -q -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@"; }
known() { [ -n "$(apt-cache madison -- "$1" 2>/dev/null)" ]; }
pick() {
  wanted=$1
  while :; do
    if known "${wanted%%|*}"; then echo "${wanted%%|*}"; return; fi
    case $wanted in *"|"*) wanted=${wanted#*|} ;; *) break ;; esac
  done
  echo "No package ${1%%|*} is to be had; is this a Debian 13 or an Ubuntu with its archives?" >&2
  return 1
}
dpkg --configure -a --force-confold
apt update
packages=
for names; do package=$(pick "$names"); packages="$packages $package"; done
apt -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef install --no-install-recommends -- $packages
"""

# Prints how it was started. Where there is no systemd, what starts services at boot is the host's own affair.
START: Final = """
if [ -d /run/systemd/system ]; then
  echo systemd
  systemctl enable --now -- "$1.service"
else
  echo init
  service "$1" start
fi
"""

SERVICES: Final = {DatabaseEngine.MARIADB: "mariadb", DatabaseEngine.POSTGRESQL: "postgresql"}


def _sources(engine: DatabaseEngine, tls: Tls) -> dict[str, str]:
    """Each program that a server needs, with the packages that bring it."""
    return {**SOURCES, **SOURCES_OF[engine], **SOURCES_OF[tls]}


def missing(engine: DatabaseEngine, tls: Tls) -> Command:
    """Print the packages of what is not there, one on a line; exit status 1 where something is not."""
    pairs = tuple(word for pair in _sources(engine, tls).items() for word in pair)
    return Command(("sh", "-c", MISSING, "alfa-missing", *pairs), sudo=True, log=False, timeout_s=60)


def install(packages: list[str]) -> Command:
    """These packages are there; once in an operation."""
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1", "LC_ALL=C.UTF-8")
    argv = (*quiet, "sh", "-c", INSTALL, "alfa-install", *packages)
    return Command(argv, sudo=True, timeout_s=3600, detached="packages")


def start_service(name: str) -> Command:
    """The service runs, and will after a reboot where there is systemd; the first line says who started it."""
    return Command(("sh", "-c", START, "alfa-start", name), sudo=True, timeout_s=180)


def service_runs(name: str) -> Command:
    """Exit status 0 where the service runs."""
    return Command(("service", name, "status"), sudo=True, log=False, timeout_s=30)


MAKE_HOME: Final = """
set -eu
home=$(getent passwd "$SUDO_USER" | cut -d : -f 6)
[ -d "$home" ] || install -d -m 755 -- "$home"
"""


def make_home() -> Command:
    """The login's home is there; root's, where it was not."""
    return Command(("sh", "-c", MAKE_HOME, "alfa-home"), sudo=True)


# See `requirements.KEYS`: the keys that open this login are root's, and sshd reads them all the same.
PROTECT_KEYS: Final = """
set -eu
home=$(getent passwd "$SUDO_USER" | cut -d : -f 6)
[ -d "$home/.ssh" ] && [ ! -L "$home/.ssh" ] || exit 0
chown root:root -- "$home/.ssh"
chmod 755 -- "$home/.ssh"
file=$home/.ssh/authorized_keys
[ ! -f "$file" ] || [ -L "$file" ] || { chown root:root -- "$file"; chmod 644 -- "$file"; }
"""


def protect_keys() -> Command:
    """Nobody but root changes the keys that open this login."""
    return Command(("sh", "-c", PROTECT_KEYS, "alfa-keys"), sudo=True)
