"""Back-ups on practice servers: downloaded, proven, noticed as damaged, removed; and nothing is left over."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from alfa_cloud.db import SessionFactory, make_engine, make_session_factory
from alfa_cloud.errors import StepFailedError
from alfa_cloud.models import Backup, Client
from alfa_cloud.playbooks.steps.proof import CheckScratchSpace
from alfa_cloud.remote import requirements
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.dump import Manifest
from alfa_cloud.remote.host import Result
from alfa_cloud.services import backup_schedule, operations
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, DatabaseEngine, Layout, OperationKind
from tests.commands.test_move import run
from tests.fakes import FakeHost
from tests.fixtures.cloud import Cloud, Kill, chain_id, chains
from tests.playbooks.specs import make_spec

NAME = "archivist"
STEPS = (
    "check_seal", "clear_scratch", "ensure_folder", "ensure_database", "ensure_login", "borrow_dump",
    "restore_scratch", "remove_scratch",
)  # fmt: skip


@pytest.fixture(scope="module")
def cloud_settings() -> dict[str, str]:
    """What is asked for here, no clock asks for too."""
    return {"ALFA_KEEP__SCHEDULED": "false", "ALFA_KEEP__PROVE_DAYS": "0"}


@pytest.fixture(scope="module")
async def sessions(cloud: Cloud) -> AsyncIterator[SessionFactory]:
    """Sessions of the service's own database."""
    engine = make_engine(cloud.postgres.url)
    yield make_session_factory(engine)
    await engine.dispose()


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive, with files and rows."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create(NAME, cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    storage = Path(cloud.practice.layout.root) / "clients" / NAME / "storage"
    (storage / "letters").mkdir(parents=True)
    (storage / "letters" / "file.bin").write_bytes(random.Random(1).randbytes(5_000_000))
    cloud.system.end(worker)
    return client_id


async def back_up(cloud: Cloud, client_id: str) -> Any:
    """A new back-up, as it is shown."""
    await run(cloud, f"/clients/{client_id}/backups")
    listed = await cloud.system.call("GET", f"/clients/{client_id}/backups", status=200)
    return (await cloud.system.call("GET", listed["data"][0]["links"]["self"], status=200))["data"]


async def shown(cloud: Cloud, backup: Any) -> Any:
    """The attributes of a back-up now."""
    return (await cloud.system.call("GET", backup["links"]["self"], status=200))["data"]["attributes"]


async def ask(cloud: Cloud, sessions: SessionFactory, kind: OperationKind, backup: Any) -> UUID:
    """An operation on a back-up, as the clock asks for it; its id."""
    backup_id = UUID(backup["id"])
    async with sessions.begin() as session:
        row = await session.get_one(Backup, backup_id)
        if kind is OperationKind.PROVE_BACKUP:
            await backup_schedule.request_proof(session, backup_id)
        operation, _ = await operations.request(
            session, kind, Caller(), client_id=row.client_id, server_id=row.server_id,
            params={"backup_id": str(backup_id)}, locks_client=False,
        )  # fmt: skip
        return operation.id


def files_of(cloud: Cloud, backup: Any) -> list[Path]:
    """What lies of a back-up on the server: the dump, its manifest, the files, theirs."""
    return sorted(Path(cloud.practice.layout.root).glob(f"archive/*/backup-{backup['id']}*"))


def scratch(cloud: Cloud, client_id: str) -> list[str]:
    """What is left of a proof on the server."""
    root = Path(cloud.practice.layout.root)
    found = [str(path) for path in (*root.glob("clients/proof*"), *root.glob("archive/*-proof"))]
    found += [str(path) for path in root.glob("archive/*/*.seal*")]
    name = f"alfa_proof_{client_id}"
    found += [line for line in cloud.tenant_sql("SELECT datname FROM pg_database") if line == name]
    return found + [line for line in cloud.tenant_sql("SELECT rolname FROM pg_roles") if line == name]


def counts(cloud: Cloud, client_id: str) -> list[str]:
    """The client's own database, untouched."""
    sql = "SELECT oid FROM pg_database WHERE datname = 'alfa_" + client_id + "'"
    return cloud.tenant_sql(sql)


def stranger(cloud: Cloud) -> httpx.AsyncClient:
    """Somebody without the login."""
    return httpx.AsyncClient(base_url=cloud.system.url, trust_env=False, timeout=60)


@pytest.mark.usefixtures("worker")
async def test_a_backup_is_downloaded_by_its_link(cloud: Cloud, client_id: str) -> None:
    backup = await back_up(cloud, client_id)
    wanted = backup["attributes"]
    async with stranger(cloud) as http:
        answer = await http.get(wanted["download_url"])
        head = await http.head(wanted["download_url"])
    assert answer.status_code == head.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == wanted["sha256"]
    assert len(answer.content) == wanted["size_bytes"] > 5_000_000
    assert head.content == b""
    for headers in (answer.headers, head.headers):
        assert headers["content-length"] == str(wanted["size_bytes"])
        assert headers["content-type"] == "application/x-tar"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-disposition"].startswith(f'attachment; filename="{NAME}-20')
        assert headers["content-disposition"].endswith('.tar"')
        assert headers["repr-digest"].startswith("sha-256=:")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        name = f"backup-{backup['id']}"
        assert tar.getnames() == [name, f"{name}.json", f"{name}.files", f"{name}.files.json"]
        manifest = json.load(tar.extractfile(f"{name}.json"))  # type: ignore[arg-type]  # it is a regular file
    assert manifest["tables"] == wanted["tables"]
    signature = wanted["download_url"].rpartition("=")[2]
    assert len(signature) == 64
    assert signature not in cloud.system.logs()


@pytest.mark.usefixtures("worker")
async def test_a_file_that_was_changed_or_is_cut_never_looks_whole(cloud: Cloud, client_id: str) -> None:
    backup = await back_up(cloud, client_id)
    url = backup["attributes"]["download_url"]
    path = next(path for path in files_of(cloud, backup) if path.suffix == ".files")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    async with stranger(cloud) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url)
        path.write_bytes(whole)
        assert (await http.get(url)).status_code == 200
        path.write_bytes(whole[:-1])
        gone = await http.get(url)
        path.unlink()
        missing = await http.get(url)
        path.write_bytes(whole)
        cloud.practice.fault("alfa-send", "kill_connection", phase="during")
        cut = None
        with suppress(httpx.RemoteProtocolError):
            cut = await http.get(url)
        cloud.practice.clear_faults()
    for answer in (gone, missing):
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (409, "backup_missing")
    assert cut is None or cut.status_code == 503
    assert url.rpartition("=")[2] not in cloud.system.logs()


@pytest.mark.usefixtures("worker")
async def test_a_backup_is_proven_and_nothing_is_left(cloud: Cloud, client_id: str, sessions: SessionFactory) -> None:
    backup = await back_up(cloud, client_id)
    before = counts(cloud, client_id)
    assert (await shown(cloud, backup))["proven_at"] is None
    operation_id = await ask(cloud, sessions, OperationKind.PROVE_BACKUP, backup)
    ended = await cloud.system.ended(str(operation_id), expect="ok")
    await cloud.assert_sound(str(operation_id), ended)
    found = await shown(cloud, backup)
    assert found["proven_at"] == found["checked_at"] is not None
    assert found["proof_error"] == ""
    assert (await cloud.system.client(client_id))["last_proven_at"] == found["proven_at"]
    assert scratch(cloud, client_id) == []
    assert counts(cloud, client_id) == before
    assert len(files_of(cloud, backup)) == 4


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("suffix", ["", ".files"], ids=["dump", "files"])
@pytest.mark.parametrize("harm", ["flip", "gone"])
async def test_a_damaged_backup_is_noticed(
    cloud: Cloud, client_id: str, sessions: SessionFactory, suffix: str, harm: str
) -> None:
    backup = await back_up(cloud, client_id)
    path = next(path for path in files_of(cloud, backup) if path.name == f"backup-{backup['id']}{suffix}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data) if harm == "flip" else path.unlink()
    operation_id = await ask(cloud, sessions, OperationKind.PROVE_BACKUP, backup)
    ended = await cloud.system.ended(str(operation_id), expect="error")
    assert ended["error"]["code"] == "backup_damaged"
    found = await shown(cloud, backup)
    assert found["proof_error"] != ""
    assert (found["proven_at"], found["checked_at"] is None) == (None, False)
    assert scratch(cloud, client_id) == []


@pytest.mark.usefixtures("worker")
async def test_a_dump_that_holds_other_rows_than_it_says_is_noticed(
    cloud: Cloud, client_id: str, sessions: SessionFactory
) -> None:
    """The file is what it was when it was made, and what it was made of is wrong: only a restore tells."""
    backup = await back_up(cloud, client_id)
    path = next(path for path in files_of(cloud, backup) if path.name == f"backup-{backup['id']}.json")
    manifest = json.loads(path.read_text())
    manifest["tables"]["public.users"] = 1_000
    path.write_text(json.dumps(manifest))
    async with sessions.begin() as session:
        row = await session.get_one(Backup, UUID(backup["id"]))
        row.size_bytes, row.sha256 = seal(cloud, backup)
    operation_id = await ask(cloud, sessions, OperationKind.PROVE_BACKUP, backup)
    ended = await cloud.system.ended(str(operation_id), expect="error")
    assert ended["error"]["code"] == "backup_damaged"
    assert "public.users" in (await shown(cloud, backup))["proof_error"]
    assert scratch(cloud, client_id) == []


def seal(cloud: Cloud, backup: Any) -> tuple[int, str]:
    """The length and the SHA-256 of the file that a back-up is downloaded as."""
    paths = files_of(cloud, backup)
    name = f"backup-{backup['id']}"
    argv = ("tar", "--create", "--file=-", "--format=gnu", "--sort=name", "--mtime=@0", "--owner=root:0")
    folder = ("--group=root:0", "--mode=0600", f"--directory={paths[0].parent}", "--")
    names = [name, f"{name}.json", f"{name}.files", f"{name}.files.json"]
    data = subprocess.run([*argv, *folder, *names], capture_output=True, check=True).stdout
    return len(data), hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
async def whole(cloud: Cloud, client_id: str) -> Any:
    """A back-up that nobody damages."""
    worker = cloud.start_worker()
    made = await back_up(cloud, client_id)
    cloud.system.end(worker)
    return made


@pytest.mark.parametrize("chain", chains([(step, "effect") for step in STEPS]), ids=chain_id)
async def test_a_proof_outlives_its_workers(
    cloud: Cloud, client_id: str, sessions: SessionFactory, whole: Any, chain: tuple[Kill, ...]
) -> None:
    before = (await shown(cloud, whole))["proven_at"]
    operation_id = await ask(cloud, sessions, OperationKind.PROVE_BACKUP, whole)
    await cloud.kill_workers("prove_backup", chain)
    other = cloud.start_worker()
    ended = await cloud.system.ended(str(operation_id), expect="ok")
    await cloud.assert_sound(str(operation_id), ended)
    assert ended["attempt"] == len(chain) + 1
    assert scratch(cloud, client_id) == []
    assert (await shown(cloud, whole))["proven_at"] not in (None, before)
    cloud.system.end(other)


@pytest.mark.usefixtures("worker")
async def test_a_restore_that_fails_leaves_nothing_and_what_an_earlier_proof_left_goes(
    cloud: Cloud, client_id: str, sessions: SessionFactory
) -> None:
    backup = await back_up(cloud, client_id)
    cloud.practice.fault("^pg_restore.*--exit-on-error", "fail", phase="after", stderr="cannot be read")
    operation_id = await ask(cloud, sessions, OperationKind.PROVE_BACKUP, backup)
    await cloud.system.ended(str(operation_id), expect="error")
    cloud.practice.clear_faults()
    assert "cannot be read" in (await shown(cloud, backup))["proof_error"]
    assert scratch(cloud, client_id) == []
    uid = cloud.sql(f"SELECT uid FROM clients WHERE id = {client_id}")
    folder = Path(cloud.practice.layout.root) / "clients" / f"proof_{client_id}"
    folder.mkdir()
    (folder / ".alfa-client").write_text(f"{uid}-proof")
    (folder / "rest").write_text("of an earlier proof")
    left = Path(cloud.practice.layout.root) / "archive" / f"{uid}-proof"
    left.mkdir()
    (left / "backup-of-old").write_text("x")
    operation_id = await ask(cloud, sessions, OperationKind.PROVE_BACKUP, backup)
    await cloud.system.ended(str(operation_id), expect="ok")
    assert scratch(cloud, client_id) == []
    assert (await shown(cloud, backup))["proof_error"] == ""


@pytest.mark.parametrize(("free", "fits"), [(12_500, True), (12_499, False)])
async def test_a_proof_needs_room(free: int, fits: bool) -> None:
    spec = make_spec(layout=Layout())
    manifest = Manifest(DatabaseEngine.POSTGRESQL, "schedule", {}, 1_000, "a" * 64, "2027-01-01T00:00:00Z")

    def answer(command: Command) -> Result:
        if command == requirements.free_space(spec.layout.root):
            return Result(0, f"Avail\n{free}\n".encode())
        return Result(0, manifest.render() if "alfa-read" in command.argv else b"1000\n")

    host, check = FakeHost(answer), CheckScratchSpace(spec, "backup-1", 500)
    if fits:
        assert await check.is_satisfied(host)
    else:
        with pytest.raises(StepFailedError, match="make room") as caught:
            await check.is_satisfied(host)
        assert caught.value.step_code == "disk_full"
        assert "damage" not in host.facts


@pytest.mark.usefixtures("worker")
async def test_a_removal_takes_the_files_and_does_not_wait_for_the_client(
    cloud: Cloud, client_id: str, sessions: SessionFactory
) -> None:
    backup = await back_up(cloud, client_id)
    async with sessions.begin() as session:  # a long operation of the client, held by somebody else
        row = await session.get_one(Client, int(client_id))
        long, _ = await operations.request(
            session, OperationKind.REBOOT_CLIENT, Caller(), client_id=row.id, server_id=row.server_id
        )
        await operations.start_parent(session, long)
    operation_id = await ask(cloud, sessions, OperationKind.REMOVE_BACKUP, backup)
    await cloud.system.ended(str(operation_id), expect="ok")
    assert files_of(cloud, backup) == []
    await cloud.system.call("GET", backup["links"]["self"], status=404)
    cloud.sql(f"UPDATE operations SET state = 'cancelled', finished_at = now() WHERE id = '{long.id}'")


@pytest.mark.usefixtures("worker")
async def test_the_archive_of_a_deleted_client_goes_with_its_row(
    cloud: Cloud, client_id: str, sessions: SessionFactory
) -> None:
    await run(cloud, f"/clients/{client_id}", method="DELETE")
    listed = await cloud.system.call("GET", f"/clients/{client_id}/backups", status=200, params={"page[size]": 100})
    final = next(row for row in listed["data"] if row["attributes"]["reason"] == "final")
    operation_id = await ask(cloud, sessions, OperationKind.PROVE_BACKUP, final)
    await cloud.system.ended(str(operation_id), expect="ok")
    for backup in listed["data"]:
        assert (await cloud.system.client(client_id))["status"] == ClientStatus.ARCHIVED
        operation_id = await ask(cloud, sessions, OperationKind.REMOVE_BACKUP, backup)
        await cloud.system.ended(str(operation_id), expect="ok")
    await cloud.system.call("GET", f"/clients/{client_id}", status=404)
    archive = Path(cloud.practice.layout.root) / "archive"
    assert [path for path in archive.rglob("*") if path.is_file()] == []
    assert scratch(cloud, client_id) == cloud.residue(NAME, client_id) == []
