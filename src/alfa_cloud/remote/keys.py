"""SSH keys as text: those that servers show, and the one that we show them."""

from __future__ import annotations

from typing import Final

import asyncssh

from alfa_cloud.specs import Secret

HOST_KEY_TYPES: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
HOST_KEY_ALGORITHMS: Final = (*HOST_KEY_TYPES[:-1], "rsa-sha2-512", "rsa-sha2-256")
"""Best first; RSA keys only with SHA-2."""


def parse_host_key(text: str) -> str:
    """The host key as `TYPE BASE64`: from a public key file, or from a line of known_hosts or ssh-keyscan.

    Raises:
        ValueError: it is no host key; the message says why.
    """
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1:
        raise ValueError("A host key is one line, such as: ssh-ed25519 AAAAC3Nza...")
    words = lines[0] if lines[0][0] in HOST_KEY_TYPES else lines[0][1:]
    if len(words) < 2 or words[0] not in HOST_KEY_TYPES:
        raise ValueError(f"A host key begins with its type: {', '.join(HOST_KEY_TYPES)}.")
    try:
        key = asyncssh.import_public_key(" ".join(words[:2]))
    except (asyncssh.KeyImportError, ValueError) as error:
        raise ValueError("The host key is incomplete or damaged.") from error
    return public_line(key)


def public_line(key: asyncssh.SSHKey) -> str:
    """A key's public half as `TYPE BASE64`."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def fingerprint(host_key: str) -> str:
    """The SHA256 fingerprint of a host key, as `ssh-keygen -l` shows it.

    Raises:
        ValueError: it is no host key.
    """
    return asyncssh.import_public_key(parse_host_key(host_key)).get_fingerprint()


def generate_key(comment: str = "alfa-cloud") -> tuple[Secret, str]:
    """A new ed25519 key: the private half in OpenSSH's format, and the line for authorized_keys."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
    return Secret(key.export_private_key("openssh").decode()), key.export_public_key("openssh").decode().strip()


def algorithms_for(host_key: asyncssh.SSHKey) -> list[str]:
    """What to ask of a server whose key is known: that key's algorithms first, so that it shows this one."""
    own = [alg.decode() for alg in host_key.sig_algorithms if alg.decode() in HOST_KEY_ALGORITHMS]
    return own + [alg for alg in HOST_KEY_ALGORITHMS if alg not in own]
