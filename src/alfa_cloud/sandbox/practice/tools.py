"""The stand-ins for sudo, services, curl, certbot, PostgreSQL's programs and what else would touch the real machine."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from alfa_cloud.sandbox.practice import nginx, options
from alfa_cloud.sandbox.practice.call import Call
from alfa_cloud.sandbox.practice.folder import USER, USERNAME
from alfa_cloud.sandbox.practice.machine import Machine

SUDO_VALUED: Final = (
    "-u",
    "--user",
    "-g",
    "--group",
    "-C",
    "-D",
    "--chdir",
    "-h",
    "--host",
    "-p",
    "--prompt",
    "-R",
    "-T",
)
CURL_VALUED: Final = (
    "-o",
    "--output",
    "-m",
    "--max-time",
    "-w",
    "--write-out",
    "-H",
    "--header",
    "-X",
    "--request",
    "-d",
    "--data",
    "--connect-timeout",
    "--resolve",
    "--retry",
    "-A",
    "--user-agent",
    "-u",
    "--user",
    "--noproxy",
    "--proto",
    "--max-redirs",
)
CERTBOT_VALUED: Final = (
    "-d",
    "--domain",
    "--domains",
    "--cert-name",
    "-w",
    "--webroot-path",
    "--email",
    "-m",
    "--server",
    "--key-type",
    "--deploy-hook",
    "--config-dir",
    "--work-dir",
    "--logs-dir",
    "--preferred-challenges",
)
POSTGRES: Final = ("psql", "pg_dump", "pg_restore", "pg_isready", "createdb", "dropdb", "vacuumdb")
LIFETIME: Final = timedelta(days=90)
CONNECTIONS_REFUSED, TIMED_OUT, UNRESOLVED, HTTP_ERROR = 7, 28, 6, 22
"""curl(1), EXIT CODES."""


def sudo(machine: Machine, call: Call) -> int:
    """Be `sudo`: the command runs as the same real user, but stand-ins know whom it became."""
    given = options.parse(call.argv, SUDO_VALUED, stop_at_word=True)
    words = list(given.words)
    assignments = []
    while words and "=" in words[0]:
        assignments.append(words.pop(0))
    if not words:
        if given.has("-v", "--validate", "-l", "--list", "-k"):
            return 0
        call.err("usage: sudo [-n] [-u user] command\n")
        return 1
    user = given.get("-u", "--user", default="root")
    return call.become("sudo", ["env", *sudo_variables(user), *assignments, *words])


def sudo_variables(user: str) -> tuple[str, ...]:
    """What sudo tells a program of who called it; and whom it became, which only stand-ins look at."""
    return (f"{USER}={user}", f"SUDO_USER={USERNAME}", f"SUDO_UID={os.getuid()}", f"SUDO_GID={os.getgid()}")


def runuser(machine: Machine, call: Call) -> int:
    """Be `runuser`, for root only."""
    given = options.parse(
        call.argv, ("-u", "--user", "-g", "--group", "-s", "--shell", "-c", "--command"), stop_at_word=True
    )
    if call.user != "root":
        call.err("runuser: may not be used by non-root users\n")
        return 1
    words = list(given.words)
    user = given.get("-u", "--user") or (words.pop(0) if words else "root")
    if command := given.get("-c", "--command"):
        words = ["sh", "-c", command]
    return call.become("exec", ["env", f"{USER}={user}", *words])


def postgres_program(machine: Machine, call: Call) -> int:
    """Be one of PostgreSQL's programs: the real one, on this server's own socket unless the arguments say otherwise."""
    path, *settings = postgres_real(machine, call.program, call.user)
    return call.run(["env", *settings, path, *call.argv])


def postgres_real(machine: Machine, name: str, user: str) -> list[str]:
    """The path of one of PostgreSQL's programs, and the variables that lead it to this server's database."""
    database = machine.database
    settings = (f"PGHOST={database.socket_dir}", f"PGPORT={database.port}", f"PGUSER={user or USERNAME}")
    return [str(database.identity.bin / name), *settings]


def service(machine: Machine, call: Call) -> int:
    """Be `service NAME VERB`."""
    name, verb = (*call.argv, "", "")[:2]
    return _service(machine, call, name, verb)


def systemctl(machine: Machine, call: Call) -> int:
    """Be `systemctl`, as far as services and a reboot go."""
    given = options.parse(call.argv, ("--property", "-p", "--state", "--type"))
    verb, *names = given.words or [""]
    if verb in ("reboot", "--reboot"):
        return reboot(machine, call)
    if verb in ("daemon-reload", "enable", "disable", "unmask", "reset-failed"):
        return 0
    if verb == "is-system-running":
        call.out("running\n")
        return 0
    status = 0
    for name in names:
        status |= _service(machine, call, name.removesuffix(".service"), verb)
    return status


def _service(machine: Machine, call: Call, name: str, verb: str) -> int:
    """Start, stop, reload or look at one of the three services that there are."""
    if name not in ("nginx", "postgresql", "docker", "ssh", "cron"):
        call.err(f"{name}: unrecognized service\n")
        return 5
    if verb in ("status", "is-active", "is-enabled"):
        alive = machine.nginx.alive if name == "nginx" else machine.database.alive if name == "postgresql" else True
        call.out(f"{'active' if alive else 'inactive'}\n")
        return 0 if alive else 3
    if name == "nginx":
        return _service_nginx(machine, call, verb)
    if name == "postgresql" and verb in ("restart", "stop"):
        machine.database.halt()
    if name == "postgresql" and verb in ("restart", "start"):
        machine.database.start()
    return 0


def _service_nginx(machine: Machine, call: Call, verb: str) -> int:
    if verb in ("reload", "force-reload"):
        return nginx.signal_nginx(machine.nginx, call, "reload")
    if verb in ("stop", "restart"):
        machine.nginx.stop()
    if verb in ("start", "restart"):
        if status := machine.nginx.test(call, quiet=True):
            return status
        machine.nginx.start()
    return 0


def reboot(machine: Machine, call: Call) -> int:
    """Be `reboot`: everything ends, this command too."""
    machine.reboot()
    call.pause(30)
    return 0


def curl(machine: Machine, call: Call) -> int:
    """Be `curl` for a plain request; the exit status is curl's."""
    given = options.parse(call.argv, CURL_VALUED)
    if given.has("--version", "-V"):
        call.out("curl 8.14.1 (a stand-in)\n")
        return 0
    url = urlsplit(given.words[-1] if given.words else "")
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    for entry in given.all("--resolve"):
        name, number, address = entry.split(":", 2)
        if (name, number) == (host, str(port)):
            host = address.strip("[]")
    seconds = float(given.get("--max-time", "-m", "--connect-timeout", default="300"))
    context = ssl._create_unverified_context()  # the certificates here are our own stand-ins
    link = HTTPSConnection(host, port, timeout=seconds, context=context) if url.scheme == "https" else None
    plain = link or HTTPConnection(host, port, timeout=seconds)
    pairs = [entry.partition(":") for entry in given.all("--header", "-H")]
    headers = {name.strip(): value.strip() for name, colon, value in pairs if colon}
    headers.setdefault("Host", url.netloc)
    method = given.get("--request", "-X") or ("HEAD" if given.has("-I", "--head") else "GET")
    data = given.get("--data", "-d")
    try:
        method = "POST" if data and method == "GET" else method
        plain.request(method, (url.path or "/") + (f"?{url.query}" if url.query else ""), data or None, headers)
        answer = plain.getresponse()
        return _curl_print(call, given, answer.status, answer.read())
    except (OSError, HTTPException) as error:
        status = TIMED_OUT if isinstance(error, TimeoutError) else CONNECTIONS_REFUSED
        status = UNRESOLVED if "Name or service" in str(error) else status
        call.out(given.get("--write-out", "-w").replace("%{http_code}", "000").replace("\\n", "\n"))
        if not given.has("--silent", "-s") or given.has("--show-error", "-S"):
            call.err(f"curl: ({status}) Failed to connect to {host} port {port}: {error}\n")
        return status
    finally:
        plain.close()


def _curl_print(call: Call, given: options.Options, status: int, body: bytes) -> int:
    """Print what curl prints of an answer."""
    failed = given.has("--fail", "-f") and status >= 400
    target = given.get("--output", "-o")
    if target and target != "-":
        if target != "/dev/null":
            Path(call.cwd, target).write_bytes(body)
    elif not failed:
        call.out(body)
    words = given.get("--write-out", "-w")
    call.out(
        words.replace("%{http_code}", f"{status:03}").replace("%{response_code}", f"{status:03}").replace("\\n", "\n")
    )
    if failed:
        call.err(f"curl: ({HTTP_ERROR}) The requested URL returned error: {status}\n")
    return HTTP_ERROR if failed else 0


def certbot(machine: Machine, call: Call) -> int:
    """Be `certbot`: certificates are self-signed, and nobody is asked."""
    given = options.parse(call.argv, CERTBOT_VALUED)
    if given.has("--version"):
        call.out("certbot 4.0.0 (a stand-in)\n")
        return 0
    verb = given.words[0] if given.words else ""
    domains = [name for entry in given.all("-d", "--domain", "--domains") for name in entry.split(",")]
    live = machine.folder.certificates / (given.get("--cert-name") or (domains[0] if domains else ""))
    if verb == "certonly" and domains:
        return _certonly(call, given, live, domains)
    if verb == "delete" and given.get("--cert-name"):
        if not live.is_dir():
            call.err(f"No certificate found with name {live.name}\n")
            return 1
        shutil.rmtree(live)
        call.out(f"Deleted all files relating to certificate {live.name}.\n")
        return 0
    if verb in ("certificates", "renew"):
        for folder in sorted(machine.folder.certificates.iterdir()):
            call.out(f"  Certificate Name: {folder.name}\n    Certificate Path: {folder}/fullchain.pem\n")
        return 0
    call.err(f"certbot: error: this stand-in does not know {' '.join(call.argv)}\n")
    return 2


def _certonly(call: Call, given: options.Options, live: Path, domains: Sequence[str]) -> int:
    """A certificate for these names lies in a folder, where the webroot is there."""
    webroot = given.get("--webroot-path", "-w")
    if given.has("--webroot") and not Path(webroot).is_dir():
        call.err(f"{webroot} does not exist or is not a directory\n")
        return 1
    make_certificate(live, domains)
    call.out(f"Successfully received certificate.\nCertificate is saved at: {live}/fullchain.pem\n")
    return 0


def make_certificate(live: Path, domains: Sequence[str]) -> None:
    """A self-signed certificate for these names lies in a folder, under certbot's names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domains[0][:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in domains]), critical=False)
        .sign(key, hashes.SHA256())
    )
    live.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    for name in ("fullchain.pem", "cert.pem", "chain.pem"):
        (live / name).write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (live / "privkey.pem").touch(mode=0o600)
    (live / "privkey.pem").write_bytes(private)


def sysctl(machine: Machine, call: Call) -> int:
    """Be `sysctl`: reading is real, and writing does nothing."""
    given = options.parse(call.argv, ("-p", "--load"))
    if (
        given.has("-w", "--write", "--system", "-p")
        or any("=" in word for word in given.words)
        or given.all("-p", "--load")
    ):
        for word in given.words:
            call.out(f"{word.replace('=', ' = ')}\n")
        return 0
    for word in given.words:
        path = Path("/proc/sys") / word.replace(".", "/")
        value = path.read_text().strip() if path.is_file() else ""
        if not path.is_file():
            call.err(f"sysctl: cannot stat {path}: No such file or directory\n")
            return 255
        call.out(f"{value}\n" if given.has("-n", "--values") else f"{word} = {value}\n")
    return 0


def harmless(machine: Machine, call: Call) -> int:
    """Be a program that would change the real machine: nothing is done, and it went well."""
    call.out(f"{call.program}: nothing is done on a practice server.\n")
    return 0


def absent(machine: Machine, call: Call) -> int:
    """Be a program that a practice server does not have."""
    call.err(f"{call.program}: not on a practice server.\n")
    return 1


HARMLESS: Final = """
    apt-get apt dpkg-reconfigure useradd usermod adduser groupadd chpasswd visudo ufw iptables nft timedatectl crontab
    mount umount update-rc.d hostnamectl swapoff
"""

PROGRAMS: Final[dict[str, Callable[[Machine, Call], int]]] = {
    "sudo": sudo,
    "runuser": runuser,
    "service": service,
    "systemctl": systemctl,
    "reboot": reboot,
    "shutdown": reboot,
    "curl": curl,
    "certbot": certbot,
    "sysctl": sysctl,
    "nginx": lambda machine, call: nginx.nginx(machine.nginx, call),
    **dict.fromkeys(POSTGRES, postgres_program),
    **dict.fromkeys(HARMLESS.split(), harmless),
    **dict.fromkeys(("systemd-run", "mariadb", "mysql", "mariadb-dump", "mysqldump", "su", "poweroff", "halt"), absent),
}
