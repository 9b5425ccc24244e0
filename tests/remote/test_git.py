"""The repository as git on a server sees it: exact commands, and what they print."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError, ServerNotReadyError
from alfa_cloud.profile import Branch, Source
from alfa_cloud.remote import build, git
from alfa_cloud.remote.build import BuildSpec, Built
from alfa_cloud.remote.git import BranchMissingError, Described, SourceUnreachableError
from alfa_cloud.specs import Layout, Secret

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3f0Tj0N5qk0m8aZ8mZB1Y6wS3mJwY0v5Xh3sXo9m2L"
KEY = Secret("-----BEGIN KEY-----\ncanary-deploy-key\n-----END KEY-----\n\n")
SSH = Source("git@git.example.org:alfa/app.git", "/run/key", HOST_KEY, ("npm", "run", "build; id"))
HTTPS = Source("https://git.example.org/alfa/app.git")
COMMIT = "0123456789abcdef" * 2 + "01234567"
SPEC = BuildSpec("op-1", Branch.DEV, COMMIT, "alfa", datetime(2026, 11, 22, tzinfo=UTC), SSH, Layout())


@pytest.mark.parametrize(
    ("url", "by_ssh"),
    [
        ("git@git.example.org:alfa/app.git", True),
        ("git@git.example.org:/srv/git/app.git", True),
        ("ssh://git@git.example.org/alfa/app.git", True),
        ("ssh://git@172.29.0.15:2222/srv/git/app.git", True),
        ("ssh://git.example.org/~git/app", True),
        ("https://git.example.org/alfa/app.git", False),
        ("https://git.example.org:8443/alfa/app.git", False),
    ],
)
def test_addresses_of_repositories(url: str, by_ssh: bool) -> None:
    assert replace(SSH, url=url).by_ssh is by_ssh


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch C",
        "-oProxyCommand=touch${IFS}C",
        "ext::sh -c touch% C",
        "file:///srv/git/app.git",
        "/srv/git/app.git",
        "http://git.example.org/app.git",
        "git://git.example.org/app.git",
        "https://login:password@git.example.org/app.git",
        "ssh://git:password@git.example.org/app.git",
        "ssh://-oProxyCommand=touch/app.git",
        "ssh://-git@git.example.org/app.git",
        "git@-oProxyCommand=touch:app.git",
        "git@git.example.org:-app.git",
        "git@git.example.org:app;touch C",
        "git@git.example.org:app.git\n",
        "git@git.example.org:app$(id).git",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="ALFA_SOURCE__URL"):
        replace(SSH, url=url)


@pytest.mark.parametrize("name", ["key_file", "host_key"])
def test_ssh_needs_a_key_and_a_pinned_host(name: str) -> None:
    with pytest.raises(ValueError, match=f"ALFA_SOURCE__{name.upper()}"):
        Source(**{"url": SSH.url, "key_file": SSH.key_file, "host_key": HOST_KEY, name: ""})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="HOST_KEY"):
        replace(SSH, host_key=HOST_KEY + "\n* ssh-rsa AAAA")


def test_the_key_goes_to_an_agent_by_standard_input() -> None:
    look = git.look_at_branch(SSH, KEY, Branch.DEV)
    assert look.argv == ("ssh-agent", "sh", "-c", git.LOOK, "alfa-git", SSH.url, "dev")
    fetch = git.fetch(SSH, KEY, "/srv/alfa/source/work", Branch.MASTER, COMMIT)
    assert fetch.argv == (
        *("ssh-agent", "sh", "-c", git.FETCH, "alfa-git"),
        *("/srv/alfa/source/work", SSH.url, "master", COMMIT),
    )
    assert fetch.detached == "fetch"
    for command in (look, fetch):
        assert command.stdin.decode() == f"{HOST_KEY}\n{KEY.reveal().rstrip()}\n"
        assert not command.sudo
        assert "canary" not in repr(command) + command.to_shell()


def test_https_takes_no_agent_and_no_key() -> None:
    look = git.look_at_branch(HTTPS, Secret(""), Branch.DEV)
    assert look.argv == ("sh", "-c", git.LOOK, "alfa-git", HTTPS.url, "dev")
    assert look.stdin == b"\n"


def test_the_commit_of_a_branch() -> None:
    text = f"{'f' * 40}\trefs/heads/old/refs/heads/dev\n{COMMIT}\trefs/heads/dev\n"
    assert git.parse_branch(text, Branch.DEV) == COMMIT
    for bad in ("", f"{COMMIT}\trefs/heads/master\n", "--upload-pack=x\trefs/heads/dev\n"):
        with pytest.raises(BranchMissingError):
            git.parse_branch(bad, Branch.DEV)


def test_what_a_commit_is_called() -> None:
    assert git.parse_described(f"remote: hm\n1.4.2-3-gabc is commit {COMMIT}\n") == Described("1.4.2-3-gabc", COMMIT)
    assert git.parse_described(f"remote: 9.9.9 is commit {COMMIT}\n") is None


@pytest.mark.parametrize("version", ["1.4.2", "v1.4.2", "1.4.2-3-gabc1234", "_x.y-z", "a" * 120])
def test_versions(version: str) -> None:
    assert git.VERSION.fullmatch(version)


@pytest.mark.parametrize("version", ["", "-1", ".1", "release/1.0", "--upload-pack=x", "1.0+build", "ё", "a" * 121])
def test_what_is_no_version(version: str) -> None:
    assert not git.VERSION.fullmatch(version)


def test_why_git_failed() -> None:
    said = "git@git.example.org: Permission denied (publickey)."
    for status, kind, words in (
        (git.Status.MISSING, ServerNotReadyError, "apt-get install git"),
        (git.Status.BAD_KEY, SourceUnreachableError, "ALFA_SOURCE__KEY_FILE"),
        (128, SourceUnreachableError, said),
    ):
        found = git.why_not(CommandFailedError("", exit_status=status, output=said))
        assert isinstance(found, kind)
        assert words in found.detail


def test_the_front_end_is_made_as_the_servers_user_who_cannot_become_root() -> None:
    command = build.make_frontend(SPEC, "1.4.2")
    work = "/srv/alfa/source/work"
    assert not command.sudo
    assert command.argv == (
        *("sh", "-c", build.FRONTEND, "alfa-frontend", f"{work}/home", f"{work}/builds/op-1/app"),
        *("setpriv", "--no-new-privs", "--", "env", "VERSION=1.4.2-dev", "BRANCH=dev", f"COMMIT={COMMIT}"),
        *("npm", "run", "build; id"),
    )


def test_an_image_is_built_aside_with_all_that_is_known_of_it() -> None:
    command = build.build_image(SPEC, "1.4.2")
    assert (command.sudo, command.detached) == (True, "image")
    assert command.argv == (
        *("flock", "--", "/srv/alfa/source/work/dev.lock"),
        *("docker", "image", "build", "--force-rm", "--tag=alfa-building:op-1"),
        "--label=org.opencontainers.image.version=1.4.2-dev",
        f"--label=org.opencontainers.image.revision={COMMIT}",
        "--label=org.opencontainers.image.created=2026-11-22T00:00:00+00:00",
        "--label=alfa.branch=dev",
        "--label=alfa.operation=op-1",
        *("--build-arg=VERSION=1.4.2-dev", "--build-arg=BRANCH=dev", f"--build-arg=COMMIT={COMMIT}"),
        *("--build-arg=BUILT_AT=2026-11-22T00:00:00+00:00", "--build-arg=SOURCE_DATE_EPOCH=1795305600"),
        *("--", "/srv/alfa/source/work/builds/op-1/app"),
    )
    assert SPEC.tag("1.4.2") == "alfa:1.4.2-dev"


def test_what_an_image_says_of_itself() -> None:
    labels = f'{{"org.opencontainers.image.revision": "{COMMIT}", "alfa.operation": "op-1"}}'
    assert build.parse_built(f'[{{"Config": {{"Labels": {labels}}}}}]') == Built(COMMIT, "", "op-1")
    assert build.parse_built('[{"Config": null}]') == Built("", "", "")


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="ssh-agent is not installed")
@pytest.mark.parametrize("key", ["no key", "", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END"])
def test_a_key_that_is_none_is_said(key: str, tmp_path: Path) -> None:
    command = git.look_at_branch(SSH, Secret(key), Branch.DEV)
    done = subprocess.run(command.argv, input=command.stdin, capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == git.Status.BAD_KEY
