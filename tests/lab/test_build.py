"""Images are built on a real host from a private repository."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.conftest import ENGINES, ON_MARIADB, Lab
from tests.lab.hosts import LabHost
from tests.lab.repository import LabRepository
from tests.system import System

ENGINE = "mariadb"
DOCKERFILE = "FROM alfa:1.0.0-master\nARG COMMIT\nRUN {}\n"
AT_ONCE_S = 20

# The clients of other tests must not get these images.
FORGET = """
docker image ls --format '{{.Repository}}:{{.Tag}}' --filter reference='alfa:2.*' | xargs -r docker image rm -f
docker image ls --format '{{.Repository}}:{{.Tag}}' --filter reference=alfa-building | xargs -r docker image rm -f
"""
# What builds may leave: unfinished images, folders, containers, processes, agents, temporary files.
LEFT = """
docker image ls --format '{{.Repository}}:{{.Tag}}' --filter reference=alfa-building
docker image ls --quiet --filter label=alfa.operation="$1"
ls /srv/alfa/source/work/builds
docker ps --all --format '{{.Image}} {{.Command}}' | grep sleep
pgrep -af '[d]ocker.* [b]uild |^(ssh-agent|git|ssh) '
ls -d /tmp/alfa-git.*
"""


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> Iterator[None]:
    """The hosts have none of these images before and after."""
    for host in lab.hosts.values():
        host.exec(["bash", "-c", FORGET])
    yield
    for host in lab.hosts.values():
        host.exec(["bash", "-c", FORGET])


async def ask(lab: Lab, word: str = "build_dev", engine: str = ENGINE) -> str:
    """The operation of a build."""
    answer = await lab.system.call("GET", f"/containers/{lab.servers[engine]}/{word}", status=202)
    return str(answer["data"]["id"])


async def until(system: System, operation_id: str, text: str) -> None:
    """Wait until an operation's log has a line with this."""
    while not any(text in line["text"] for line in await system.log(f"/operations/{operation_id}/log")):
        found = (await system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]
        assert found["completed"] is None, found
        await asyncio.sleep(0.1)


def left(host: LabHost, operation_id: str) -> str:
    """What a build left on a host."""
    return host.exec(["bash", "-c", LEFT, "left", operation_id]).stdout.decode()


def labels(host: LabHost, tag: str) -> dict[str, Any]:
    """What an image says of itself."""
    found = json.loads(host.exec(["docker", "image", "inspect", tag]).stdout)[0]["Config"]["Labels"]
    return dict(found)


@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_a_branch_becomes_an_image(lab: Lab, source: LabRepository, engine: str) -> None:
    system, host = lab.system, lab.hosts[engine]
    source.commit("master", f"2.0.{ENGINES.index(engine)}")
    commit = source.commit("dev")
    operation_id = await ask(lab, engine=engine)
    result = (await system.ended(operation_id, expect="ok"))["result"]
    version = result["tag"].removeprefix("alfa:")
    assert re.fullmatch(rf"2\.0\.\d-\d-g{commit[:7]}-dev", version)
    assert (result["commit"], result["built"]) == (commit, True)
    assert {"alfa.branch": "dev", "alfa.operation": operation_id}.items() <= labels(host, f"alfa:{version}").items()
    texts = [line["text"] for line in await system.log(f"/operations/{operation_id}/log")]
    assert f"front end of {version} as www-data" in texts
    listed = host.exec(["docker", "image", "ls", "--quiet", f"alfa:{version}"]).stdout.decode()
    assert left(host, operation_id) == listed
    assert result["images"][0]["tag"] == f"alfa:{version}"
    look = ["--entrypoint=cat", f"alfa:{version}", "/srv/app/public/built.txt"]
    assert host.exec(["docker", "run", "--rm", *look]).stdout.decode() == f"{version} dev {commit}\n"
    look = ["--entrypoint=printenv", f"alfa:{version}", "APP_VERSION"]
    assert host.exec(["docker", "run", "--rm", *look]).stdout.decode() == f"{version}\n"

    began = time.monotonic()
    again = await system.ended(await ask(lab, engine=engine), expect="ok")
    assert (again["result"]["tag"], again["result"]["built"]) == (f"alfa:{version}", False)
    assert time.monotonic() - began < AT_ONCE_S


async def test_an_exact_tag_is_the_version_and_an_empty_change_is_the_newest(lab: Lab, source: LabRepository) -> None:
    """Docker takes all layers of the second from its cache: its moment is to be the second's all the same."""
    system = lab.system
    for tag in ("2.1.1", "2.1.0"):
        source.commit("master", tag, Dockerfile="FROM alfa:1.0.0-master\nRUN true\n")
        result = (await system.ended(await ask(lab, "build_prod"), expect="ok"))["result"]
        assert result["tag"] == f"alfa:{tag}-master"
        assert next(one["tag"] for one in result["images"] if one["branch"] == "master") == f"alfa:{tag}-master"


@pytest.mark.full
@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("frontend/build.sh", "echo no such module >&2; sudo -n true; exit 3\n", "frontend_failed"),
        ("Dockerfile", DOCKERFILE.format("echo no such package >&2; false"), "build_failed"),
    ],
)
async def test_a_build_that_fails_leaves_nothing(
    lab: Lab, source: LabRepository, file: str, text: str, code: str
) -> None:
    source.commit("dev", f"2.2.{time.time_ns()}", **{file: text})
    operation_id = await ask(lab)
    ended = await lab.system.ended(operation_id, expect="error")
    assert ended["error"]["code"] == code
    texts = [line["text"] for line in await lab.system.log(f"/operations/{operation_id}/log")]
    assert any("no such" in line for line in texts)
    assert left(lab.hosts[ENGINE], operation_id) == ""


@pytest.mark.full
async def test_a_cancelled_build_leaves_nothing(lab: Lab, source: LabRepository) -> None:
    source.commit("dev", f"2.3.{time.time_ns()}", Dockerfile=DOCKERFILE.format("echo begun; sleep 300"))
    operation_id = await ask(lab)
    await until(lab.system, operation_id, "begun")
    await lab.system.call("POST", f"/operations/{operation_id}/cancel", status=202)
    assert (await lab.system.ended(operation_id))["state"] == "cancelled"
    assert left(lab.hosts[ENGINE], operation_id) == ""


@pytest.mark.full
async def test_a_killed_worker_is_replaced_and_nothing_is_built_twice(lab: Lab, source: LabRepository) -> None:
    system = lab.system
    tag = f"2.4.{time.time_ns()}"
    source.commit("dev", tag, Dockerfile=DOCKERFILE.format("echo begun; sleep 8; echo through"))
    ids = set(await asyncio.gather(*(ask(lab) for _ in range(3))))
    assert len(ids) == 1
    operation_id = ids.pop()
    await until(system, operation_id, "begun")
    for process in [one for one in system.processes if "worker" in one.args]:
        process.kill()
        process.wait()
        system.start_worker()
    ended = await system.ended(operation_id, expect="ok")
    assert (ended["attempt"], ended["result"]["tag"]) == (2, f"alfa:{tag}-dev")
    lines = await system.log(f"/operations/{operation_id}/log")
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert len([line for line in lines if line["text"].startswith("front end of")]) == 1
    shown = json.dumps(lines) + system.logs()
    for line in source.key_file.read_text().splitlines()[1:-1]:
        assert line not in shown
        grep = ["grep", "-rlF", "--", line, "/srv/alfa", "/tmp", "/var/www", "/home"]
        assert lab.hosts[ENGINE].exec(grep).stdout == b""
