"""Host keys and our own key."""

from __future__ import annotations

import asyncssh
import pytest

from alfa_cloud.remote import keys

# The key of github.com, and its fingerprint as GitHub publishes it.
LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
FINGERPRINT = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


@pytest.mark.parametrize("text", [LINE, f"{LINE} comment here\n", f"# note\ngithub.com {LINE}\n", f"  {LINE}  "])
def test_host_keys_as_people_paste_them(text: str) -> None:
    assert keys.parse_host_key(text) == LINE
    assert keys.fingerprint(text) == FINGERPRINT


@pytest.mark.parametrize(
    "text",
    ["", "ssh-ed25519", "ssh-ed25519 AAAA", LINE[:-8], f"{LINE}\n{LINE}", FINGERPRINT, "ssh-dss AAAA", "x y z", "\0"],
)
def test_what_is_no_host_key(text: str) -> None:
    with pytest.raises(ValueError, match="host key"):
        keys.parse_host_key(text)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_kinds(kind: str) -> None:
    line = keys.public_line(asyncssh.generate_private_key(kind))
    assert keys.parse_host_key(line) == line
    wanted = keys.algorithms_for(asyncssh.import_public_key(line))
    assert wanted[0] == {"ssh-rsa": "rsa-sha2-256"}.get(kind, kind) or wanted[0].startswith("rsa-sha2")
    assert sorted(wanted) == sorted(keys.HOST_KEY_ALGORITHMS)


def test_our_own_key() -> None:
    private, public = keys.generate_key()
    assert public.startswith("ssh-ed25519 ")
    assert asyncssh.import_private_key(private.reveal()).export_public_key("openssh").decode().strip() == public
    assert "PRIVATE" not in repr(private)
