"""Images are built from a repository: asked for through the API, built by workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from alfa_cloud.sandbox.practice import PracticeServer
from tests.fixtures.cloud import Cloud
from tests.fixtures.source import MISSING, Repository, make_repository

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def repository(practice: PracticeServer, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """What is built."""
    if MISSING:
        pytest.skip(f"not installed here: {', '.join(MISSING)}")
    return make_repository(tmp_path_factory.mktemp("source"), practice)


@pytest.fixture(scope="module")
def cloud_settings(repository: Repository) -> dict[str, str]:
    """The service knows the repository."""
    return repository.settings


@pytest.fixture(autouse=True)
def no_worker_left(cloud: Cloud) -> Iterator[None]:
    """A worker of one test must not take the next one's work."""
    yield
    for process in cloud.workers:
        if process.poll() is None:
            cloud.system.end(process)


def path(cloud: Cloud, word: str) -> str:
    """The address of a build."""
    return f"/containers/{cloud.server_id}/{word}"


async def ask(cloud: Cloud, word: str = "build_dev", *, method: str = "GET") -> str:
    """The operation that a request for a build gives."""
    answer = await cloud.system.call(method, path(cloud, word), status=202)
    return str(answer["data"]["id"])


async def at_step(cloud: Cloud, operation_id: str, title: str) -> None:
    """Wait until an operation is at a step."""
    while True:
        found = (await cloud.system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]
        if found["step"] == title:
            return
        assert found["completed"] is None, found


async def running(cloud: Cloud, *words: str) -> None:
    """Wait until Docker on the server was told so."""
    before = cloud.count(*words)
    while cloud.count(*words) == before:
        await asyncio.sleep(0.02)


def left(cloud: Cloud, operation_id: str) -> list[str]:
    """What is on the server of a build."""
    rows = cloud.on_server("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    labels = [json.loads(cloud.on_server("docker", "image", "inspect", row))[0]["Config"]["Labels"] for row in rows]
    found = [row for row, label in zip(rows, labels, strict=True) if label.get("alfa.operation") == operation_id]
    root = Path(cloud.practice.layout.root)
    return found + [str(path) for path in root.glob(f"source/work/builds/{operation_id}")]


@pytest.mark.usefixtures("worker")
async def test_a_build_gives_an_image_that_clients_can_have_at_once(cloud: Cloud, repository: Repository) -> None:
    commit = repository.commit("dev")
    operation_id = await ask(cloud)
    ended = await cloud.system.ended(operation_id, expect="ok")
    result = ended["result"]
    name = f"alfa:{result['version']}"
    assert (result["tag"], result["commit"], result["built"]) == (name, commit, True)
    assert result["version"].startswith("1.4.2-")
    assert result["version"].endswith(f"-g{commit[:7]}-dev")
    assert cloud.sql(f"SELECT images -> 0 ->> 'tag' FROM servers WHERE id = {cloud.server_id}") == name
    shown = await cloud.system.call("GET", f"/servers/{cloud.server_id}/images", status=200)
    attributes = shown["data"][0]["attributes"]
    assert {attributes[key] for key in ("version", "branch", "commit")} == {result["version"], "dev", commit}
    assert left(cloud, operation_id) == [name]
    await cloud.assert_sound(operation_id, ended)

    again = await cloud.system.ended(await ask(cloud), expect="ok")
    assert (again["result"]["tag"], again["result"]["built"]) == (name, False)
    titles = {step["title"]: step["state"] for step in again["steps"]}
    assert titles["Build the image"] == titles["Make the front end"] == "skipped"


@pytest.mark.usefixtures("worker")
async def test_production_has_no_front_end_of_its_own(cloud: Cloud) -> None:
    ended = await cloud.system.ended(await ask(cloud, "build_prod", method="POST"), expect="ok")
    assert ended["result"]["tag"] == "alfa:1.4.2-master"
    assert "Make the front end" not in [step["title"] for step in ended["steps"]]


async def test_requests_for_one_commit_are_one_build(cloud: Cloud, repository: Repository) -> None:
    repository.commit("dev")
    ids = await asyncio.gather(*(ask(cloud) for _ in range(4)))
    assert len(set(ids)) == 1
    repository.commit("dev")
    other = await ask(cloud)
    assert other not in ids
    cloud.start_worker()
    built = [await cloud.system.ended(operation_id, expect="ok") for operation_id in (ids[0], other)]
    assert len({one["result"]["tag"] for one in built}) == 2


async def test_a_cancelled_build_leaves_nothing(cloud: Cloud, repository: Repository) -> None:
    repository.commit("dev")
    cloud.practice.fault("docker image build", "hang", seconds=60)
    cloud.start_worker()
    operation_id = await ask(cloud)
    await running(cloud, "image", "build")
    found = (await cloud.system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]
    assert found["cancellable"] is True
    await cloud.system.call("POST", f"/operations/{operation_id}/cancel", status=202)
    ended = await cloud.system.ended(operation_id, expect="error")
    assert (ended["state"], ended["error"]["step"]) == ("cancelled", "Build the image")
    assert left(cloud, operation_id) == []
    await cloud.assert_sound(operation_id, ended)
    cloud.practice.clear_faults()
    await cloud.system.ended(await ask(cloud), expect="ok")


async def test_another_worker_goes_on_with_the_build_of_a_killed_one(cloud: Cloud, repository: Repository) -> None:
    repository.commit("dev")
    before = cloud.count("image", "build")
    cloud.practice.fault("docker image build", "slow", seconds=4)
    first = cloud.start_worker()
    operation_id = await ask(cloud)
    await at_step(cloud, operation_id, "Build the image")
    await running(cloud, "image", "build")
    first.kill()
    first.wait()
    cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="ok")
    assert (ended["attempt"], ended["result"]["built"]) == (2, True)
    assert cloud.count("image", "build") == before + 1
    texts = [line["text"] for line in await cloud.system.log(f"/operations/{operation_id}/log")]
    assert len([text for text in texts if text.startswith("front end of")]) == 1
    await cloud.assert_sound(operation_id, ended)


@pytest.mark.usefixtures("worker")
async def test_a_failing_front_end_is_said_in_its_own_words(cloud: Cloud, repository: Repository) -> None:
    good = (repository.folder / "frontend/build.sh").read_text()
    repository.commit("dev", **{"frontend/build.sh": "echo Cannot find module vite >&2; exit 7\n"})
    operation_id = await ask(cloud)
    ended = await cloud.system.ended(operation_id, expect="error")
    assert (ended["error"]["code"], ended["error"]["step"]) == ("frontend_failed", "Make the front end")
    assert "exit status 7: Cannot find module vite" in ended["error"]["message"]
    assert left(cloud, operation_id) == []
    repository.commit("dev", **{"frontend/build.sh": good})


async def test_a_plan_builds_nothing(cloud: Cloud) -> None:
    plan = await cloud.system.call("GET", path(cloud, "build_dev") + "?dry_run=true", status=200)
    steps = plan["data"]["attributes"]["steps"]
    assert (steps[1], steps[4], steps[5]) == ("Fetch dev", "Make the front end", "Build the image")


@pytest.mark.parametrize(("word", "status"), [("build_x", 404), ("build_dev?branch_name=x", 400)])
async def test_there_are_two_branches(cloud: Cloud, word: str, status: int) -> None:
    await cloud.system.call("GET", path(cloud, word), status=status)
    await cloud.system.call("GET", "/containers/999/build_dev", status=404)


async def test_a_branch_or_a_repository_that_is_not_there(cloud: Cloud, repository: Repository) -> None:
    repository.git("branch", "--move", "dev", "aside")
    answer = await cloud.system.call("GET", path(cloud, "build_dev"), status=422)
    assert answer["errors"][0]["code"] == "branch_missing"
    repository.git("branch", "--move", "aside", "dev")
    away = repository.folder.rename(repository.folder.with_name("away"))
    answer = await cloud.system.call("GET", path(cloud, "build_dev"), status=502)
    assert answer["errors"][0]["code"] == "source_unreachable"
    assert "not appear to be a git repository" in answer["errors"][0]["detail"]
    away.rename(repository.folder)
    cloud.practice.fault("reach ls-remote", "hang", seconds=30)
    answer = await cloud.system.call("GET", path(cloud, "build_dev"), status=502)
    assert "within 8 s" in answer["errors"][0]["detail"]


async def test_the_deploy_key_is_nowhere(cloud: Cloud, repository: Repository) -> None:
    shown = cloud.sql("SELECT json_agg(o) FROM operations o") + cloud.sql("SELECT json_agg(l) FROM operation_lines l")
    shown += "\n".join(" ".join(item.argv) + item.line for item in cloud.practice.commands()) + cloud.system.logs()
    files = [file.read_bytes() for file in Path(cloud.practice.layout.root).rglob("*") if file.is_file()]
    for line in repository.key.reveal().splitlines()[1:-1]:
        assert line not in shown
        assert not any(line.encode() in content for content in files)
