"""The console as a person and a script use it, on a scripted API."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from alfa_cloud import cli
from alfa_cloud.console import run as console
from alfa_cloud.console.catalog import ARGUMENTS, OF_KIND, Entry
from alfa_cloud.console.cloud import PATIENCE_S, CallError, Cloud
from alfa_cloud.console.show import Show

CLIENTS = [{"type": "clients", "id": "7", "attributes": {"name": "hematology", "status": "active", "available": True}}]
SERVERS = [
    {"type": "servers", "id": "3", "attributes": {"name": "north"}},
    {"type": "servers", "id": "4", "attributes": {"name": "3"}},
]
OPERATION = "01a204c3-d3b7-7d84-895c-1998d662c432"


class Api:
    """An API that answers what it is told, and remembers what it was asked."""

    def __init__(self, completed: str = "ok") -> None:
        self.completed = completed
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.raw_path.decode(), body))
        match request.method, request.url.path:
            case "GET", "/clients":
                rows = [row for row in CLIENTS if request.url.params.get("filter[q]") in (None, "hematology")]
                return httpx.Response(200, json={"data": rows, "links": {"self": "/clients"}})
            case "GET", "/servers":
                return httpx.Response(200, json={"data": SERVERS, "links": {"self": "/servers"}})
            case "GET", path if path.endswith("/log"):
                return self._log(int(request.url.params["after_seq"]))
            case "GET", path if path.startswith("/operations/"):
                return httpx.Response(200, json={"data": self._operation()})
            case "POST", path if path.endswith(("/reboot", "/prune")):
                return httpx.Response(202, json={"data": self._operation()})
            case _:
                error = {"status": "404", "code": "not_found", "detail": "There is no such thing."}
                return httpx.Response(404, json={"errors": [error]})

    def _operation(self) -> Any:
        error = None
        if self.completed == "error":
            error = {"code": "not_healthy", "message": "It did not answer.", "step": "Wait"}
        attributes: dict[str, Any] = {
            "kind": "reboot_client",
            "state": self.completed,
            "completed": self.completed,
            "warnings": [],
            "error": error,
            "result": None,
        }
        return {"type": "operations", "id": OPERATION, "attributes": attributes}

    def _log(self, after: int) -> httpx.Response:
        texts = ["Restart", "done"]
        lines = [
            {"seq": seq, "stream": "step" if seq == 1 else "stdout", "text": text}
            for seq, text in enumerate(texts, 1)
            if seq > after
        ][:1]
        links = {"self": "x"} if after >= 1 else {"self": "x", "next": "y"}
        attributes = {"lines": lines, "progress": 0.5, "step": "Restart", "state": "running", "completed": None}
        return httpx.Response(200, json={"data": {"attributes": attributes}, "links": links})


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login in the environment."""
    monkeypatch.setenv("ALFA_LOGIN", "админ")
    monkeypatch.setenv("ALFA_PASSWORD", "пароль")


def carry_out(api: Callable[[httpx.Request], httpx.Response], *argv: str) -> int:
    """A command on this API; its exit status."""
    options = cli.parser().parse_args(list(argv))
    cloud = Cloud("http://api.test", "админ", "пароль", transport=httpx.MockTransport(api))
    return console.COMMANDS[options.command](cloud, Show(as_json=options.json), options)


def test_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(Api(), "clients") == 0
    assert "hematology" in capsys.readouterr().out
    assert carry_out(Api(), "clients", "--json") == 0
    assert json.loads(capsys.readouterr().out) == CLIENTS


ODD = "[/17] [mariadbd] [bold red]x :smile: \\[y]"


@pytest.mark.parametrize("kind", ["clients", "strangers"])
def test_what_looks_like_markup_is_printed_as_it_is(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"type": kind, "id": ODD, "attributes": {"name": ODD, ODD: [ODD]}}
    show = Show(as_json=False)
    plan = {"blocks": [ODD], "steps": [ODD], "took_before_s": 1.5}
    error = {"step": ODD, "code": ODD, "message": ODD}
    end = {"kind": ODD, "state": ODD, "warnings": [ODD], "error": error, "result": {ODD: ODD}}
    ways: tuple[Callable[[], None], ...] = (
        lambda: show.rows([row]),
        lambda: show.resource(row),
        lambda: show.plan({"attributes": plan}),
        lambda: show.end({"id": ODD, "attributes": end}),
        lambda: show.error(ODD),
    )
    for print_it in ways:
        print_it()
        printed = capsys.readouterr()
        assert ODD in (printed.out + printed.err).replace("\\\\", "\\")


@pytest.mark.parametrize(("completed", "status"), [("ok", 0), ("error", 1)])
def test_a_command_by_name_waits_and_tells_how_it_ended(
    completed: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    api = Api(completed)
    assert carry_out(api, "client", "reboot", "hematology") == status
    assert ("POST", "/clients/7/reboot", None) in api.asked
    out = capsys.readouterr().out
    assert OPERATION in out
    assert ("It did not answer." in out) == (completed == "error")


@pytest.mark.parametrize(("wish", "server_id"), [("north", 3), ("3", 4), ("5", 5)])
def test_a_prune_of_one_server_says_which(wish: str, server_id: int) -> None:
    """A name goes before an id: names may be digits only."""
    api = Api()
    assert carry_out(api, "server", "prune", wish, "--max-failures", "2", "--no-wait") == 0
    assert api.asked[-1][1] in (
        f"/containers/prune?server_id={server_id}&max_failures=2",
        f"/containers/prune?max_failures=2&server_id={server_id}",
    )
    assert carry_out(api, "server", "prune", wish, "--no-wait") == 0
    assert api.asked[-1][1] == f"/containers/prune?server_id={server_id}"


@pytest.mark.parametrize(
    ("kind", "entry"),
    [(kind, one) for kind, known in OF_KIND.items() for one in known],
)
def test_every_command_names_its_subject_in_what_is_sent(kind: str, entry: Entry) -> None:
    """A command that forgot it would be one on everything."""
    asked = []

    def api(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        if request.url.path in ("/clients", "/servers"):
            return httpx.Response(200, json={"data": [], "links": {}})
        return httpx.Response(200, json={"data": []})

    words = ["11" for name in ARGUMENTS if f"{{{name}}}" in entry.path]
    for option in (*entry.options, *entry.fields):
        if option.needed:
            words += [option.word, "never"]
    options = cli.parser().parse_args([kind, entry.name, "7077", *words])
    cloud = Cloud("http://api.test", "a", "b", transport=httpx.MockTransport(api))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO("a new password\n"))
        assert console.COMMANDS[kind](cloud, Show(as_json=True), options) == 0
    assert "7077" in str(asked[-1])


@pytest.mark.parametrize(
    ("words", "method", "url"),
    [
        (("client", "move-to", "hematology", "north"), "POST", "/clients/7/move_to/3"),
        (("client", "copy-to", "hematology", "3", "--name", "a b", "--scrub"), "POST",
         "/clients/7/copy_to/4?name=a+b&scrub=true"),
        (("client", "restore", "hematology", "--server-id", "north"), "POST", "/clients/7/restore?server_id=3"),
        (("client", "restore", "gone"), "POST", "/clients/9/restore"),
        (("client", "restore-backup", "hematology", "../1"), "POST", "/clients/7/backups/..%2F1/restore"),
        (("client", "delete", "hematology"), "DELETE", "/clients/7"),
        (("client", "delete", "hematology", "--keep-archive", "false", "--confirm-name", "x"), "DELETE",
         "/clients/7?keep_archive=false&confirm_name=x"),
        (("client", "delete", "hematology", "--dry-run"), "DELETE", "/clients/7?dry_run=true"),
        (("operation", "undo", "1/2", "--confirm-loss"), "POST", "/operations/1%2F2/undo?confirm_loss=true"),
        (("operation", "cancel", "1"), "POST", "/operations/1/cancel"),
    ],
)  # fmt: skip
def test_what_is_asked_for(words: tuple[str, ...], method: str, url: str) -> None:
    asked = []
    gone = {"type": "clients", "id": "9", "attributes": {"name": "gone"}}
    plan = {"type": "plans", "attributes": {"blocks": [], "steps": [], "took_before_s": None}}
    done = {"type": "operations", "id": OPERATION, "attributes": {}}

    def api(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        match request.url.path:
            case "/servers":
                data: Any = SERVERS
            case "/clients":
                data = [gone] if query.get("filter[status]") == "archived" else CLIENTS
            case _:
                asked.append((request.method, request.url.raw_path.decode()))
                data = plan if "dry_run" in query else done
        return httpx.Response(200, json={"data": data, "links": {}})

    waits = not {"--dry-run", "cancel"} & set(words)
    assert carry_out(api, *words, *(["--no-wait"] if waits else [])) == 0
    assert asked == [(method, url)]


def test_deleted_clients_of_one_name_are_told_apart_by_their_ids() -> None:
    rows = [{"type": "clients", "id": id_, "attributes": {"name": "gone"}} for id_ in ("3", "9")]

    def api(request: httpx.Request) -> httpx.Response:
        is_asked = request.url.params.get("filter[status]") == "archived"
        return httpx.Response(200, json={"data": rows if is_asked else [], "links": {}})

    with pytest.raises(CallError, match=r"3, 9"):
        carry_out(api, "client", "restore", "gone")


def test_a_log_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(Api(), "log", "-f", OPERATION) == 0
    assert capsys.readouterr().out == "== Restart\ndone\n"


class Shaky(Api):
    """An API that answers some calls, and then is away at every other one."""

    def __init__(self, away: int | None, good: int) -> None:
        super().__init__()
        self.away, self.calls, self.good = away, 0, good

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.calls <= self.good or (self.calls - self.good) % 2 == 0:
            return super().__call__(request)
        if self.away is None:
            raise httpx.ReadError("cut", request=request)
        return httpx.Response(self.away, text="<html>away</html>", headers={"Retry-After": "0"})


@pytest.mark.parametrize("away", [502, 503, 504, 429, None])
@pytest.mark.parametrize("words", [("wait",), ("log", "-f"), ("client", "reboot")])
def test_an_api_that_is_away_for_a_moment_is_waited_for(
    words: tuple[str, ...], away: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    # The list of clients and the command itself get through.
    subject, good = ("hematology", 2) if words[0] == "client" else (OPERATION, 1)
    assert carry_out(Shaky(away, good), *words, subject) == 0
    assert len(pauses) >= 2


def test_an_api_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("time.sleep", sleep)
    api = Api()
    calls = []

    def once(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return api(request) if len(calls) == 1 else httpx.Response(503)

    with pytest.raises(CallError, match="503"):
        carry_out(once, "wait", OPERATION)
    assert clock[0] == pytest.approx(PATIENCE_S, abs=5)


@pytest.mark.parametrize("away", [502, 503, None])
def test_an_api_that_never_answered_is_not_waited_for(away: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits"))
    with pytest.raises(CallError):
        carry_out(Shaky(away, 0), "wait", OPERATION)


@pytest.mark.usefixtures("environment")
def test_an_address_that_is_wrong_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits"))
    for url in ("http://127.0.0.1:1", "htp://127.0.0.1", "127.0.0.1:8000"):
        assert cli.main(["wait", OPERATION, "--url", url]) == 2
        assert "does not answer" in capsys.readouterr().err


def test_a_page_that_is_no_api_is_said_to_be() -> None:
    with pytest.raises(CallError, match="not the API"):
        carry_out(lambda _: httpx.Response(200, text="<html>Welcome</html>"), "wait", OPERATION)


@pytest.mark.usefixtures("environment")
def test_a_call_that_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["clients", "--url", "http://127.0.0.1:1"]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_without_a_login(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ALFA_LOGIN", "ALFA_ADMIN_LOGIN"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["servers"]) == 2
    assert "ALFA_LOGIN" in capsys.readouterr().err


def test_a_bad_call_has_status_2() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["client", "reboot"])
    assert ended.value.code == 2
