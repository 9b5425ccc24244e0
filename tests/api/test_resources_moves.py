"""Moves, copies, undoings, deletions and returns: what is refused, by which code, and that nothing is changed by it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select

from alfa_cloud.models import Backup, Client, Operation, Place, Server
from alfa_cloud.services import operations, places
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState, ServerRole
from tests.api.resources import Api
from tests.factories import make_backup, make_client, make_operation, make_place, make_server

pytest_plugins = ["tests.fixtures.api"]

NO_ID = 999_999
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scene:
    """A client that lives on one server, and another server; both are away."""

    api: Api
    client_id: int
    source_id: int
    target_id: int

    @property
    def path(self) -> str:
        return f"/clients/{self.client_id}"

    @property
    def move(self) -> str:
        return f"{self.path}/move_to/{self.target_id}"

    @property
    def copy(self) -> str:
        return f"{self.path}/copy_to/{self.target_id}"

    @property
    def back(self) -> str:
        return f"{self.path}/restore"

    async def client(self, **values: Any) -> None:
        """The client's row is changed."""
        await self._set(Client, self.client_id, values)

    async def source(self, **values: Any) -> None:
        """Its server's row is changed."""
        await self._set(Server, self.source_id, values)

    async def target(self, **values: Any) -> None:
        """The other server's row is changed."""
        await self._set(Server, self.target_id, values)

    async def _set(self, model: Any, id_: int, values: dict[str, Any]) -> None:
        async with self.api.sessions.begin() as session:
            row = await session.get_one(model, id_)
            for name, value in values.items():
                setattr(row, name, value)

    async def archive(self) -> None:
        """The client is deleted, and has an archive."""
        async with self.api.sessions.begin() as session:
            client = await session.get_one(Client, self.client_id)
            await make_backup(session, client, reason="final")
            client.status, client.port, client.spare_port = ClientStatus.ARCHIVED, None, None

    async def other(self, **values: Any) -> None:
        """Another client is on the other server."""
        async with self.api.sessions.begin() as session:
            server = await session.get_one(Server, self.target_id)
            await make_client(session, self.api.vault, server, **values)

    async def moved(self, **values: Any) -> UUID:
        """The client has come from the other server by a move, which left its data there; that operation's id."""
        async with self.api.sessions.begin() as session:
            client, former = (
                await session.get_one(Client, self.client_id),
                await session.get_one(Server, self.target_id),
            )
            await make_place(session, client, former, **values)
            operation = await make_operation(
                session,
                kind=OperationKind.MOVE_CLIENT,
                client_id=client.id,
                server_id=former.id,
                other_server_id=client.server_id,
                params={"server_id": client.server_id},
            )
            operation.result, operation.state = {"moved": True}, OperationState.OK
            return operation.id

    async def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows that these commands may write."""
        async with self.api.sessions() as session:
            found: dict[str, list[tuple[Any, ...]]] = {}
            for model in (Client, Place, Operation, Backup):
                columns = [column for column in model.__table__.columns if column.name != "updated_at"]
                rows = await session.execute(select(*columns).order_by(*model.__table__.primary_key))
                found[model.__tablename__] = [tuple(row) for row in rows]
            return found

    async def operation(self, answer: Any) -> Operation:
        """The row of the operation that was answered."""
        async with self.api.sessions() as session:
            return await session.get_one(Operation, UUID(answer["data"]["id"]))

    async def row(self) -> Client:
        async with self.api.sessions() as session:
            return await session.get_one(Client, self.client_id)

    async def place(self) -> Place | None:
        """What the client has on the other server."""
        async with self.api.sessions() as session:
            return await session.get(Place, (self.client_id, self.target_id))


@pytest.fixture
async def scene(api: Api) -> AsyncIterator[Scene]:
    async with api.sessions.begin() as session:
        source = await make_server(session, host="127.0.0.1", port=1)
        target = await make_server(session, host="127.0.0.1", port=2, base_domain="other.test")
        client = await make_client(session, api.vault, source, name="lab", spare_port=21999, activated_at=LONG_AGO)
        found = Scene(api, client.id, source.id, target.id)
    yield found
    async with api.sessions.begin() as session:
        for model in (Operation, Client, Server):
            await session.execute(delete(model))


async def refused(scene: Scene, method: str, path: str, status: int) -> tuple[str, Any]:
    """Why it is refused; nothing is changed by that, nor by a look at what it would do."""
    before = await scene.everything()
    found = await scene.api.refused(method, path, status)
    dry = f"{path}{'&' if '?' in path else '?'}dry_run=true"
    assert await scene.api.refused(method, dry, status) == found
    assert await scene.everything() == before
    assert len(found) == 1
    return found[0]


# What no server takes

Change = Callable[[Scene], Awaitable[None]]
MISSING = [{"name": "docker", "ok": False, "required": True}]
UNFIT: dict[str, tuple[Change, int, str]] = {
    "other engine": (lambda scene: scene.target(database_engine="mariadb"), 409, "client_state"),
    "inactive": (lambda scene: scene.target(active=False), 409, "server_not_ready"),
    "not ready": (lambda scene: scene.target(requirements_ok=False, requirements=MISSING), 409, "server_not_ready"),
    "full": (lambda scene: scene.target(max_clients=0), 409, "server_full"),
    "no port": (lambda scene: scene.target(layout={"first_port": 30000, "last_port": 30000}), 409, "server_full"),
    "shut off": (lambda scene: scene.target(host_key_changed=True), 502, "host_key_changed"),
}
"""What is wrong with the other server, and what is answered."""


@pytest.mark.parametrize("command", ["move", "copy", "back"])
@pytest.mark.parametrize("what", UNFIT)
async def test_a_server_that_cannot_take_the_client(scene: Scene, command: str, what: str) -> None:
    change, status, code = UNFIT[what]
    await scene.target(role=ServerRole.STAGE)
    if command == "back":
        await scene.archive()
    await change(scene)
    query = f"?server_id={scene.target_id}" if command == "back" else ""
    assert await refused(scene, "POST", getattr(scene, command) + query, status) == (code, None)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_not_there(scene: Scene, method: str) -> None:
    for verb in ("move_to", "copy_to"):
        path = f"{scene.path}/{verb}/{NO_ID}"
        assert await refused(scene, method, path, 404) == ("server_not_found", None)
        path = f"/clients/{NO_ID}/{verb}/{scene.target_id}"
        assert await refused(scene, method, path, 404) == ("client_not_found", None)
        for wrong in ("0", "x", "-1", str(2**31)):
            await scene.api.ask(method, f"{scene.path}/{verb}/{wrong}", 404)
    await scene.archive()
    assert await refused(scene, "POST", f"{scene.back}?server_id={NO_ID}", 422) == ("invalid", "server_id")
    assert await refused(scene, "POST", f"/clients/{NO_ID}/restore", 404) == ("client_not_found", None)
    assert await refused(scene, "DELETE", f"/clients/{NO_ID}", 404) == ("client_not_found", None)
    assert await refused(scene, "POST", f"/operations/{uuid4()}/undo", 404) == ("operation_not_found", None)


@pytest.mark.parametrize("command", ["move", "copy"])
@pytest.mark.parametrize("status", ["creating", "failed", "deleting", "archived", "restoring"])
async def test_a_client_that_does_not_live_goes_nowhere(scene: Scene, command: str, status: str) -> None:
    await scene.target(role=ServerRole.STAGE)
    await scene.client(status=status)
    assert await refused(scene, "POST", getattr(scene, command), 409) == ("client_state", None)


@pytest.mark.parametrize("command", ["move", "copy"])
async def test_a_client_does_not_leave_a_server_that_is_shut_off(scene: Scene, command: str) -> None:
    await scene.target(role=ServerRole.STAGE)
    await scene.source(host_key_changed=True)
    assert await refused(scene, "POST", getattr(scene, command), 502) == ("host_key_changed", None)


# Moving


async def test_a_move_is_asked_for_once_and_has_a_place(scene: Scene) -> None:
    before = await scene.row()
    answers = [await scene.api.post(scene.move, status=202) for _ in range(2)]
    answers.append((await scene.api.ask("GET", scene.move, 202)).json())
    assert len({answer["data"]["id"] for answer in answers}) == 1
    operation, client, place = await scene.operation(answers[0]), await scene.row(), await scene.place()
    assert (operation.kind, operation.server_id, operation.other_server_id) == (
        OperationKind.MOVE_CLIENT, scene.source_id, scene.target_id,
    )  # fmt: skip
    assert (client.status, client.operation_id) == (ClientStatus.MOVING, operation.id)
    assert (client.server_id, client.port, client.spare_port) == (before.server_id, before.port, before.spare_port)
    assert place is not None
    assert (place.kept, place.keep_until, place.forward_until) == (False, None, None)
    assert len({place.port, place.spare_port}) == 2


async def test_a_client_does_not_move_to_where_it_is(scene: Scene) -> None:
    path = f"{scene.path}/move_to/{scene.source_id}"
    assert await refused(scene, "POST", path, 409) == ("client_state", None)


async def test_a_look_at_a_move_changes_nothing(scene: Scene) -> None:
    before = await scene.everything()
    plan = (await scene.api.post(f"{scene.move}?dry_run=true", status=200))["data"]
    assert plan["id"] == OperationKind.MOVE_CLIENT
    assert plan["attributes"]["clients"] == [str(scene.client_id)]
    assert await scene.everything() == before


# Copying


async def test_a_copy_is_asked_for_once_and_is_a_client_of_its_own(scene: Scene) -> None:
    await scene.target(role=ServerRole.STAGE)
    before = await scene.row()
    answers = [await scene.api.post(scene.copy, status=202) for _ in range(2)]
    assert answers[0]["data"]["id"] == answers[1]["data"]["id"]
    other = await scene.api.post(f"{scene.copy}?name=lab-two", status=202)
    assert other["data"]["id"] != answers[0]["data"]["id"]
    operation = await scene.operation(answers[0])
    async with scene.api.sessions() as session:
        copy = await session.get_one(Client, operation.client_id)
    assert (copy.name, copy.domain, copy.copy_of) == ("lab-copy", "lab-copy.other.test", "lab")
    assert (copy.server_id, copy.status) == (scene.target_id, ClientStatus.CREATING)
    after = await scene.row()
    assert (after.status, after.operation_id, after.server_id) == (before.status, before.operation_id, before.server_id)


async def test_a_copy_of_a_long_name_has_a_name_that_fits(scene: Scene) -> None:
    await scene.target(role=ServerRole.STAGE)
    await scene.client(name=f"{'a' * 34}-{'b' * 5}")
    operation = await scene.operation(await scene.api.post(scene.copy, status=202))
    assert operation.params["name"] == f"{'a' * 34}-copy"


async def test_copies_are_made_on_stage_servers_alone(scene: Scene) -> None:
    before = await scene.everything()
    answer = (await scene.api.ask("POST", scene.copy, 409)).json()
    assert "stage" in answer["errors"][0]["detail"]
    assert await scene.everything() == before
    assert await refused(scene, "POST", scene.copy, 409) == ("client_state", None)


async def test_a_copy_has_a_free_name_and_a_good_one(scene: Scene) -> None:
    await scene.target(role=ServerRole.STAGE)
    await scene.other(name="lab-copy")
    await scene.other(name="another", domain="free-name.other.test")
    assert await refused(scene, "POST", scene.copy, 409) == ("client_name_taken", None)
    assert await refused(scene, "POST", f"{scene.copy}?name=lab", 409) == ("client_name_taken", None)
    assert await refused(scene, "POST", f"{scene.copy}?name=free-name", 409) == ("client_domain_taken", None)
    assert await refused(scene, "POST", f"{scene.copy}?name=www", 422) == ("invalid", "name")
    for bad in ("-a", "a-", "A", "a_b", "a" * 41, "имя", "a.b"):
        assert await refused(scene, "POST", f"{scene.copy}?name={bad}", 400) == ("invalid_parameter", "name"), bad


async def test_personal_data_is_taken_out_only_where_there_is_a_command_for_it(scene: Scene) -> None:
    await scene.target(role=ServerRole.STAGE)
    assert await refused(scene, "POST", f"{scene.copy}?scrub=true", 422) == ("invalid", "scrub")


async def test_a_look_at_a_copy_changes_nothing(scene: Scene) -> None:
    await scene.target(role=ServerRole.STAGE)
    before = await scene.everything()
    plan = (await scene.api.post(f"{scene.copy}?dry_run=true", status=200))["data"]
    assert plan["id"] == OperationKind.COPY_CLIENT
    assert await scene.everything() == before


# Undoing


async def test_a_move_is_undone_by_one_operation(scene: Scene) -> None:
    path = f"/operations/{await scene.moved()}/undo?confirm_loss=true"
    first, again = await scene.api.post(path, status=202), await scene.api.post(path, status=202)
    assert first["data"]["id"] == again["data"]["id"]
    operation = await scene.operation(first)
    assert (operation.kind, operation.server_id, operation.other_server_id) == (
        OperationKind.UNDO_MOVE, scene.source_id, scene.target_id,
    )  # fmt: skip
    assert (await scene.row()).status == ClientStatus.MOVING
    place = await scene.place()
    assert place is not None
    assert place.kept is True


async def test_what_would_be_lost_must_be_said_even_where_it_cannot_be_told(scene: Scene) -> None:
    path = f"/operations/{await scene.moved()}/undo"
    assert await refused(scene, "POST", path, 422) == ("confirm_loss_needed", "confirm_loss")
    assert await refused(scene, "POST", f"{path}?confirm_loss=false", 422) == ("confirm_loss_needed", "confirm_loss")


async def test_what_is_no_move_or_did_not_move_is_not_undone(scene: Scene) -> None:
    async with scene.api.sessions.begin() as session:
        reboot = await make_operation(
            session, kind=OperationKind.REBOOT_CLIENT, client_id=scene.client_id, server_id=scene.source_id
        )
    for confirm in ("", "?confirm_loss=true"):
        assert await refused(scene, "POST", f"/operations/{reboot.id}/undo{confirm}", 409) == ("not_undoable", None)
    asked = await scene.api.post(scene.move, status=202)
    for confirm in ("", "?confirm_loss=true"):
        path = f"/operations/{asked['data']['id']}/undo{confirm}"
        assert await refused(scene, "POST", path, 409) == ("not_undoable", None)


@pytest.mark.parametrize(
    "left",
    [
        {"keep_until": LONG_AGO},
        {"kept": False},
        {"keep_until": None},
    ],
    ids=["too late", "data is gone", "written over"],
)
async def test_a_move_is_undone_only_while_its_source_is_kept(scene: Scene, left: dict[str, Any]) -> None:
    path = f"/operations/{await scene.moved(**left)}/undo"
    for confirm in ("", "?confirm_loss=true"):
        assert await refused(scene, "POST", f"{path}{confirm}", 409) == ("not_undoable", None)


async def test_a_move_is_undone_only_while_the_client_is_where_it_brought_it(scene: Scene) -> None:
    path = f"/operations/{await scene.moved()}/undo?confirm_loss=true"
    await scene.client(server_id=scene.target_id)
    assert await refused(scene, "POST", path, 409) == ("not_undoable", None)


async def test_a_client_that_goes_or_whose_former_server_is_shut_off_does_not_go_back(scene: Scene) -> None:
    path = f"/operations/{await scene.moved()}/undo?confirm_loss=true"
    await scene.client(status=ClientStatus.DELETING)
    assert await refused(scene, "POST", path, 409) == ("client_state", None)
    await scene.client(status=ClientStatus.ACTIVE)
    await scene.target(host_key_changed=True)
    assert await refused(scene, "POST", path, 502) == ("host_key_changed", None)


async def test_a_look_at_an_undoing_changes_nothing(scene: Scene) -> None:
    path = f"/operations/{await scene.moved()}/undo?confirm_loss=true&dry_run=true"
    before = await scene.everything()
    assert (await scene.api.post(path, status=200))["data"]["id"] == OperationKind.UNDO_MOVE
    assert await scene.everything() == before


# Deleting, and coming back


async def test_a_look_at_a_deletion_changes_nothing(scene: Scene) -> None:
    before = await scene.everything()
    answer = await scene.api.ask("DELETE", f"{scene.path}?dry_run=true", 200)
    assert answer.json()["data"]["id"] == OperationKind.DELETE_CLIENT
    assert await scene.everything() == before


@pytest.mark.parametrize("status", ["archived", "restoring"])
async def test_what_is_gone_or_comes_back_is_not_deleted(scene: Scene, status: str) -> None:
    await scene.client(status=status)
    for query in ("", "?keep_archive=false&confirm_name=lab"):
        assert await refused(scene, "DELETE", scene.path + query, 409) == ("client_state", None)


async def test_a_client_goes_without_an_archive_only_by_its_name(scene: Scene) -> None:
    for name in ("", "&confirm_name=", "&confirm_name=LAB", "&confirm_name=lab-copy"):
        path = f"{scene.path}?keep_archive=false{name}"
        assert await refused(scene, "DELETE", path, 422) == ("confirm_name_needed", "confirm_name")
    await scene.api.ask("DELETE", f"{scene.path}?keep_archive=false&confirm_name=lab", 202)


async def test_a_deleted_client_comes_back_by_one_operation_with_ports_of_its_own(scene: Scene) -> None:
    await scene.archive()
    path = f"{scene.back}?server_id={scene.target_id}"
    first, again = await scene.api.post(path, status=202), await scene.api.post(path, status=202)
    assert first["data"]["id"] == again["data"]["id"]
    assert (await scene.api.post(scene.back, status=202))["data"]["id"] == first["data"]["id"]
    operation, client = await scene.operation(first), await scene.row()
    assert (operation.server_id, operation.other_server_id) == (scene.target_id, scene.source_id)
    assert (client.status, client.server_id) == (ClientStatus.RESTORING, scene.target_id)
    assert client.port is not None
    assert client.spare_port not in (None, client.port)
    assert await refused(scene, "POST", f"{scene.back}?server_id={scene.source_id}", 409) == ("client_state", None)


@pytest.mark.parametrize("status", ["creating", "active", "expired", "moving", "failed", "deleting"])
async def test_only_a_deleted_client_comes_back(scene: Scene, status: str) -> None:
    await scene.archive()
    await scene.client(status=status)
    assert await refused(scene, "POST", scene.back, 409) == ("client_state", None)


async def test_a_client_whose_archive_is_gone_or_going_does_not_come_back(scene: Scene) -> None:
    await scene.archive()
    async with scene.api.sessions.begin() as session:
        backup = (await session.scalars(select(Backup))).one()
        await operations.request(
            session,
            OperationKind.REMOVE_BACKUP,
            Caller(),
            client_id=scene.client_id,
            server_id=scene.source_id,
            params={"backup_id": str(backup.id)},
            locks_client=False,
        )
    assert await refused(scene, "POST", scene.back, 409) == ("client_state", None)
    async with scene.api.sessions.begin() as session:
        await session.execute(delete(Operation))
        await session.execute(delete(Backup))
    assert await refused(scene, "POST", scene.back, 409) == ("client_state", None)


async def test_a_name_or_a_domain_that_was_taken_since_stays_taken(scene: Scene) -> None:
    await scene.archive()
    await scene.other(name="lab", domain="elsewhere.other.test")
    assert await refused(scene, "POST", scene.back, 409) == ("client_name_taken", None)
    async with scene.api.sessions.begin() as session:
        await session.execute(delete(Client).where(Client.id != scene.client_id))
    await scene.other(name="another", domain=(await scene.row()).domain)
    assert await refused(scene, "POST", scene.back, 409) == ("client_name_taken", None)


async def test_a_look_at_a_return_changes_nothing(scene: Scene) -> None:
    await scene.archive()
    before = await scene.everything()
    assert (await scene.api.post(f"{scene.back}?dry_run=true", status=200))["data"]["id"] == "restore_client"
    assert await scene.everything() == before


# Trying again


async def test_a_move_that_was_taken_back_is_asked_for_anew(scene: Scene) -> None:
    asked = (await scene.api.post(scene.move, status=202))["data"]["id"]
    await scene.api.post(f"/operations/{asked}/cancel", status=202)
    shown = (await scene.api.get(f"/operations/{asked}"))["data"]["attributes"]
    assert shown["retryable"] is False
    assert await scene.api.refused("POST", f"/operations/{asked}/retry", 409) == [("not_retryable", None)]
    assert (await scene.row()).status == ClientStatus.ACTIVE
    place = await scene.place()
    assert place is not None
    assert not places.is_way_back(place, datetime.now(UTC) - timedelta(days=1))
    again = (await scene.api.post(scene.move, status=202))["data"]["id"]
    assert again != asked


async def test_a_move_that_failed_behind_its_point_of_no_return_goes_on_where_the_client_is(scene: Scene) -> None:
    moved = await scene.moved()
    async with scene.api.sessions.begin() as session:
        earlier = await session.get_one(Operation, moved)
        values = {
            name: getattr(earlier, name) for name in ("kind", "client_id", "server_id", "other_server_id", "params")
        }
        failed = await make_operation(session, **values)
        failed.result, failed.state = {"moved": True}, OperationState.ERROR
    again = await scene.api.post(f"/operations/{failed.id}/retry", status=202)
    operation = await scene.operation(again)
    assert (operation.server_id, operation.other_server_id) == (scene.target_id, scene.source_id)


async def test_a_command_that_is_tried_again_follows_its_client_to_another_server(scene: Scene) -> None:
    async with scene.api.sessions.begin() as session:
        reboot = await make_operation(
            session, kind=OperationKind.REBOOT_CLIENT, client_id=scene.client_id, server_id=scene.source_id
        )
        reboot.state = OperationState.ERROR
    await scene.client(server_id=scene.target_id)
    again = await scene.api.post(f"/operations/{reboot.id}/retry", status=202)
    assert (await scene.operation(again)).server_id == scene.target_id


@pytest.mark.parametrize("status", ["deleting", "archived", "restoring"])
async def test_a_command_is_not_tried_again_on_a_client_that_goes(scene: Scene, status: str) -> None:
    async with scene.api.sessions.begin() as session:
        reboot = await make_operation(
            session, kind=OperationKind.REBOOT_CLIENT, client_id=scene.client_id, server_id=scene.source_id
        )
        reboot.state = OperationState.ERROR
    await scene.client(status=status)
    before = await scene.everything()
    assert await scene.api.refused("POST", f"/operations/{reboot.id}/retry", 409) == [("not_retryable", None)]
    assert await scene.everything() == before


async def test_what_commands_would_do_on_a_server_that_is_shut_off_is_not_known(scene: Scene) -> None:
    await scene.source(host_key_changed=True)
    for method, path in (("DELETE", scene.path), ("POST", f"{scene.path}/backups"), ("POST", f"{scene.path}/reboot")):
        refusal = await scene.api.refused(method, f"{path}?dry_run=true", 502)
        assert refusal == [("host_key_changed", None)]
