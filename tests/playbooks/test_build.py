"""An image is built from a branch, on a practice server with a real repository."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import asyncssh
import pytest

from alfa_cloud.errors import AlfaCloudError, StepFailedError
from alfa_cloud.playbooks.build_image import build_image
from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.profile import Branch, Source
from alfa_cloud.remote.build import LABEL_OPERATION, BuildSpec
from alfa_cloud.remote.git import SourceUnreachableError
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import Secret
from tests.fixtures.source import MISSING, Repository, make_repository
from tests.playbooks.conftest import Lines, Site, carry_out

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")

NUMBERS = count(1)
ALL = ["FetchSource", "CheckOut", "MakeFrontend", "BuildImage", "TagImage", "RemoveBuild"]


@pytest.fixture
def repository(site: Site, tmp_path: Path) -> Iterator[Repository]:
    """A repository of this test's own; the server has nothing of an earlier one."""
    site.practice.clear_faults()
    names = on_server(site, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    for name in names:
        if name not in ("alfa:1.0.0-master", "alfa:1.1.0-dev", "alfa:9.9.9-broken"):
            on_server(site, "image", "rm", name)
    yield make_repository(tmp_path, site.practice)
    site.practice.clear_faults()


def on_server(site: Site, *argv: str) -> str:
    """What Docker on the server says, past SSH and past the product."""
    program = site.practice.folder.bin / "docker"
    done = subprocess.run([program, *argv], capture_output=True, check=True)
    return done.stdout.decode()


def spec_of(site: Site, repository: Repository, branch: Branch = Branch.DEV, **values: object) -> BuildSpec:
    """A build of a branch as it is now."""
    given = {
        "operation_id": f"build-{next(NUMBERS)}",
        "branch": branch,
        "commit": repository.git("rev-parse", branch),
        "repository": "alfa",
        "built_at": datetime(2026, 11, 22, tzinfo=UTC),
        "source": repository.source,
        "layout": site.practice.layout,
        **values,
    }
    return BuildSpec(**given)  # type: ignore[arg-type]


def playbook(spec: BuildSpec, repository: Repository) -> Playbook:
    return build_image(spec, repository.key, min_free_bytes=0)


async def fail(spec: BuildSpec, repository: Repository, host: SshHost) -> AlfaCloudError:
    """Run a playbook that fails, and take back all steps that were begun, as the runner does."""
    begun: list[Step] = []

    async def begin() -> None:
        for step in playbook(spec, repository).steps:
            begun.append(step)
            await carry_out(Playbook([step]), host)

    with pytest.raises(AlfaCloudError) as caught:
        await begin()
    for step in reversed(begun):
        await step.undo(host)
    return caught.value


def left(site: Site, spec: BuildSpec) -> list[str]:
    """What is on the server of a build."""
    rows = on_server(site, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    ours = [
        name
        for name in rows
        if json.loads(on_server(site, "image", "inspect", name))[0]["Config"]["Labels"].get(LABEL_OPERATION)
        == spec.operation_id
    ]
    folder = Path(spec.folder)
    return [*ours, *([str(folder)] if folder.exists() else [])]


async def test_a_branch_becomes_an_image(site: Site, lines: Lines, repository: Repository) -> None:
    spec = spec_of(site, repository)
    host = site.host(lines, spec.operation_id)
    assert await carry_out(playbook(spec, repository), host) == ALL
    version = f"1.4.2-1-g{spec.commit[:7]}-dev"
    assert f"front end of {version}" in lines.texts
    facts = {name: lines.facts[name] for name in ("tag", "commit", "version", "built")}
    assert facts == {"tag": f"alfa:{version}", "commit": spec.commit, "version": version, "built": True}
    assert lines.facts["images"][0]["tag"] == f"alfa:{version}"
    assert left(site, spec) == [f"alfa:{version}"]
    assert await carry_out(playbook(spec, repository), site.host(lines, spec.operation_id)) == []
    assert lines.facts["built"] is True


async def test_the_same_commit_is_not_built_again(site: Site, lines: Lines, repository: Repository) -> None:
    first, second = spec_of(site, repository, Branch.MASTER), spec_of(site, repository, Branch.MASTER)
    await carry_out(playbook(first, repository), site.host(Lines(), first.operation_id))
    assert await carry_out(playbook(second, repository), site.host(lines, second.operation_id)) == ["FetchSource"]
    assert lines.notes == ["alfa:1.4.2-master is this commit already: nothing is to be built."]
    assert (lines.facts["tag"], lines.facts["built"]) == ("alfa:1.4.2-master", False)
    assert left(site, second) == []


async def test_it_goes_on_after_a_stop_at_each_step(site: Site, repository: Repository) -> None:
    for stop in (2, 5, 6, 7):
        repository.commit("dev")
        spec, lines = spec_of(site, repository), Lines()
        whole = playbook(spec, repository)
        done = await carry_out(Playbook(whole.steps[:stop]), site.host(lines, spec.operation_id))
        rest = await carry_out(whole, site.host(lines, spec.operation_id))
        assert [*done, *rest] == ALL
        assert len([text for text in lines.texts if text.startswith("front end of")]) == 1


async def test_a_newer_tag_gives_the_same_commit_another_image(
    site: Site, lines: Lines, repository: Repository
) -> None:
    for version in ("1.4.2", "1.5.0"):
        repository.git("tag", "--force", "--annotate", "--message=x", version, "master")
        spec = spec_of(site, repository, Branch.MASTER)
        await carry_out(playbook(spec, repository), site.host(lines, spec.operation_id))
    assert {image["tag"] for image in lines.facts["images"]} >= {"alfa:1.4.2-master", "alfa:1.5.0-master"}


async def test_a_version_stays_the_commits_whose_it_is(site: Site, lines: Lines, repository: Repository) -> None:
    first = spec_of(site, repository, Branch.MASTER)
    await carry_out(playbook(first, repository), site.host(Lines(), first.operation_id))
    repository.commit("master")
    repository.git("tag", "--force", "1.4.2", "master")
    second = spec_of(site, repository, Branch.MASTER)
    error = await fail(second, repository, site.host(lines, second.operation_id))
    assert isinstance(error, StepFailedError)
    assert error.step_code == "version_taken"
    assert left(site, first) == ["alfa:1.4.2-master"]
    assert left(site, second) == []


@pytest.mark.parametrize("name", ["--upload-pack=x", "-h", "release/1.0", "1.0+build", "v1$(id)", "a" * 130])
async def test_a_tag_that_can_be_no_version(site: Site, lines: Lines, repository: Repository, name: str) -> None:
    repository.git("tag", "--delete", "1.4.2")
    repository.git("update-ref", f"refs/tags/{name}", "master")
    spec = spec_of(site, repository, Branch.MASTER)
    error = await fail(spec, repository, site.host(lines, spec.operation_id))
    assert isinstance(error, StepFailedError)
    assert (error.step_code, name in error.detail) == ("bad_version", True)
    assert left(site, spec) == []


async def test_without_a_tag_there_is_no_version(site: Site, lines: Lines, repository: Repository) -> None:
    repository.git("tag", "--delete", "1.4.2")
    spec = spec_of(site, repository)
    error = await fail(spec, repository, site.host(lines, spec.operation_id))
    assert isinstance(error, StepFailedError)
    assert (error.step_code, "git tag 1.0.0" in error.detail) == ("no_version", True)


async def test_a_commit_that_was_pushed_over(site: Site, lines: Lines, repository: Repository) -> None:
    spec = spec_of(site, repository)
    repository.git("checkout", "--quiet", "dev")
    repository.git("reset", "--hard", "--quiet", "master")
    error = await fail(spec, repository, site.host(lines, spec.operation_id))
    assert isinstance(error, StepFailedError)
    assert error.step_code == "commit_gone"


async def test_what_a_killed_git_left_is_no_obstacle(site: Site, lines: Lines, repository: Repository) -> None:
    first = spec_of(site, repository)
    await carry_out(playbook(first, repository), site.host(Lines(), first.operation_id))
    git_dir = Path(first.work, "repository.git")
    for name in ("packed-refs.lock", "refs/heads/dev.lock", "HEAD.lock"):
        (git_dir / name).touch()
    repository.commit("dev")
    second = spec_of(site, repository)
    assert await carry_out(playbook(second, repository), site.host(lines, second.operation_id)) == ALL


async def test_a_front_end_that_fails_leaves_nothing(site: Site, lines: Lines, repository: Repository) -> None:
    repository.commit("dev", **{"frontend/build.sh": "echo no such module: vue >&2\nmkdir -m 0 locked\nexit 3\n"})
    spec = spec_of(site, repository)
    error = await fail(spec, repository, site.host(lines, spec.operation_id))
    assert isinstance(error, StepFailedError)
    assert error.step_code == "frontend_failed"
    assert "ended with exit status 3: no such module: vue" in error.detail
    assert left(site, spec) == []


async def test_a_build_that_fails_leaves_nothing(site: Site, lines: Lines, repository: Repository) -> None:
    site.practice.fault("docker image build", "fail", phase="after", stderr="npm ERR! 404")
    spec = spec_of(site, repository)
    error = await fail(spec, repository, site.host(lines, spec.operation_id))
    assert isinstance(error, StepFailedError)
    assert (error.step_code, "npm ERR! 404" in error.detail) == ("build_failed", True)
    assert left(site, spec) == []


async def test_the_front_end_finds_neither_key_nor_root(site: Site, lines: Lines, repository: Repository) -> None:
    script = 'grep NoNewPrivs /proc/self/status\necho "agent ${SSH_AUTH_SOCK-none}"\nls -a "$HOME"\nls -d .git || :\n'
    repository.commit("dev", **{"frontend/build.sh": script})
    spec = spec_of(site, repository)
    site.practice.forget_commands()
    await carry_out(playbook(spec, repository), site.host(lines, spec.operation_id))
    texts = [" ".join(text.split()) for text in lines.texts]
    assert "NoNewPrivs: 1" in texts
    assert "agent none" in texts
    assert ".git" not in texts
    shown = "\n".join([*lines.texts, *lines.notes, json.dumps(lines.facts)])
    shown += "\n".join(" ".join(item.argv) + item.line for item in site.practice.commands())
    files = [path.read_bytes() for path in Path(site.practice.layout.root).rglob("*") if path.is_file()]
    for line in repository.key.reveal().splitlines()[1:-1]:
        assert line not in shown
        assert not any(line.encode() in content for content in files)


@pytest.mark.parametrize("wrong", ["key", "host", "path"])
async def test_a_repository_that_cannot_be_read(site: Site, lines: Lines, repository: Repository, wrong: str) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    source: Source = repository.source
    if wrong == "host":
        source = replace(source, host_key=other.export_public_key().decode().strip())
    if wrong == "path":
        source = replace(source, url=source.url + "-not")
    key = Secret(other.export_private_key().decode()) if wrong == "key" else repository.key
    spec = spec_of(site, repository, source=source)
    error = await fail(spec, replace(repository, key=key), site.host(lines, spec.operation_id))
    assert isinstance(error, SourceUnreachableError)
    words = {
        "key": "Permission denied",
        "host": "Host key verification failed",
        "path": "not appear to be a git repository",
    }[wrong]
    assert words in error.detail
    assert left(site, spec) == []
