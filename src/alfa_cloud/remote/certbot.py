"""Certificates by certbot, proven over HTTP in a folder that nginx serves; each is named by its domain."""

from __future__ import annotations

from typing import Final

from alfa_cloud.remote import files
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, Layout

RUN: Final = "certificate"
"""The name of certbot's detached run in an operation."""
WAIT_S: Final = 900
"""How long a run waits for others: certbot itself refuses to run twice at a time on one server."""
RUN_S: Final = 300
BUSY: Final = 75
"""The others took longer than that (EX_TEMPFAIL of sysexits.h)."""


def version() -> Command:
    """Print the version."""
    return Command(("certbot", "--version"), sudo=True, timeout_s=30, log=False)


def obtain(spec: ClientSpec, *, email: str, server: str) -> Command:
    """A certificate for the client's domain is there, new or still good."""
    account = (f"--email={email}",) if email else ("--register-unsafely-without-email",)
    directory = (f"--server={server}",) if server else ()
    argv = (
        "certbot", "certonly", "--non-interactive", "--agree-tos", "--webroot",
        f"--webroot-path={spec.layout.certbot_webroot}", f"--domain={spec.domain}", f"--cert-name={spec.certificate}",
        "--keep-until-expiring", "--deploy-hook=nginx -s reload", *account, *directory,
    )  # fmt: skip
    return Command(_alone(spec.layout, argv), sudo=True, timeout_s=WAIT_S + RUN_S + 30, detached=RUN)


def is_there(spec: ClientSpec) -> Command:
    """Exit status 0 where a certificate for the client's domain is on the server."""
    return Command(
        ("test", "-s", f"{spec.layout.certificates_dir}/{spec.certificate}/fullchain.pem"), sudo=True, log=False
    )


def delete(spec: ClientSpec) -> Command:
    """The certificate is gone; fails where there is none."""
    argv = ("certbot", "delete", "--non-interactive", f"--cert-name={spec.certificate}")
    return Command(_alone(spec.layout, argv), sudo=True, timeout_s=WAIT_S + RUN_S + 30)


def mark_path(spec: ClientSpec) -> str:
    """The file that says that this service had the domain's certificate made; others are never deleted."""
    return f"{spec.layout.root}/certificates/{spec.certificate}"


def write_mark(spec: ClientSpec) -> tuple[Command, Command]:
    """That file is there."""
    folder = files.ensure_folder(f"{spec.layout.root}/certificates", mode="0700")
    return folder, files.write_file(mark_path(spec), f"{spec.uid}\n".encode(), mode="0600")


def list_marks(spec: ClientSpec) -> Command:
    """Print the marks of all certificates that this service had made for the client, one on a line."""
    folder = f"{spec.layout.root}/certificates"
    find = ("find", folder, "-mindepth", "1", "-maxdepth", "1", "-type", "f", "!", "-name", "*~")
    test = ("-exec", "grep", "--quiet", "--line-regexp", "--fixed-strings", "--", spec.uid, "{}", ";", "-print")
    return Command((*find, *test), sudo=True, log=False)


def _alone(layout: Layout, argv: tuple[str, ...]) -> tuple[str, ...]:
    lock = ("flock", f"--wait={WAIT_S}", f"--conflict-exit-code={BUSY}", f"{layout.root}/certbot.lock")
    return (*lock, "timeout", f"{RUN_S}", *argv)
