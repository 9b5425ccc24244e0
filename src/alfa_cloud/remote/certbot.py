"""Certificates by certbot, proven over HTTP in a folder that nginx serves."""

from __future__ import annotations

from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec


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
        "--keep-until-expiring", *account, *directory,
    )  # fmt: skip
    return Command(argv, sudo=True, timeout_s=300, detached="certificate")


def is_there(spec: ClientSpec) -> Command:
    """Exit status 0 where the client's certificate is on the server."""
    return Command(
        ("test", "-s", f"{spec.layout.certificates_dir}/{spec.certificate}/fullchain.pem"), sudo=True, log=False
    )


def delete(spec: ClientSpec) -> Command:
    """The certificate is gone; fails where there is none."""
    return Command(
        ("certbot", "delete", "--non-interactive", f"--cert-name={spec.certificate}"), sudo=True, timeout_s=120
    )
