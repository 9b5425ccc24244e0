"""`alfa-cloud clients`, `servers`, `create`, `wait`, `log` and every command of a client, a server or an operation.

Exit status: 0, 1 for an operation that failed, 2 for a call that was refused or did not get through.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from alfa_cloud.console.catalog import ARGUMENTS, OF_KIND, Entry, Option
from alfa_cloud.console.cloud import CallError, Cloud
from alfa_cloud.console.show import Show

OK, FAILED, BAD_CALL = 0, 1, 2
DEFAULT_URL: Final = "http://127.0.0.1:8000"

CREATE: Final = (
    Option("name", "part of its address, fixed for ever", needed=True),
    Option("email", "where its letters go", needed=True),
    Option("title", "what people call it"),
    Option("domain", "NAME.base_domain of its server, where none is given"),
    Option("owner_login", "its administrator; the email, where none is given"),
    Option("image", "a tag, REPOSITORY:TAG or a channel"),
    Option("locale", "ru or en"),
    Option("expire_date", "the last day of use, YYYY-MM-DD"),
)


def add_commands(commands: Any) -> None:
    """The console's commands are among those of `alfa-cloud`."""
    common = _common()
    for kind in ("clients", "servers", "operations"):
        listing = commands.add_parser(kind, parents=[common], help=f"list {kind}")
        listing.add_argument("--filter", action="append", default=[], metavar="NAME=VALUE")
        listing.add_argument("--sort")
    create = commands.add_parser("create", parents=[common], help="create a client")
    create.add_argument("--server", required=True, help="id or name of its server")
    _add_options(create, CREATE)
    for kind, entries in OF_KIND.items():
        subject = commands.add_parser(kind, help=f"commands of one {kind}").add_subparsers(dest="entry", required=True)
        shown = Entry("show", f"/{kind}s/{{id}}", "all that is known of it", method="GET", waits=False)
        for entry in (shown, *entries):
            _add_entry(subject, entry, kind, common)
    for name, text in (("wait", "wait for an operation's end"), ("log", "print an operation's log")):
        parser = commands.add_parser(name, parents=[common], help=text)
        parser.add_argument("operation")
        if name == "log":
            parser.add_argument("-f", "--follow", action="store_true", help="to the operation's end")


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=os.environ.get("ALFA_URL", DEFAULT_URL), help="of the API; or ALFA_URL")
    common.add_argument("--json", action="store_true", help="JSON for programs")
    return common


def _add_entry(subject: Any, entry: Entry, kind: str, common: argparse.ArgumentParser) -> None:
    parser = subject.add_parser(entry.name, parents=[common], help=entry.help)
    parser.add_argument("subject", metavar=kind.upper(), help="its id" if kind == "operation" else "id or name")
    for name in _arguments(entry):
        metavar, text = ARGUMENTS[name]
        parser.add_argument(name, metavar=metavar, help=text)
    _add_options(parser, (*entry.options, *entry.fields))
    if entry.waits and entry.method != "GET":
        parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")
        parser.add_argument("--dry-run", action="store_true", help="print the plan, and do nothing")
    parser.set_defaults(chosen=entry)


def _arguments(entry: Entry) -> list[str]:
    return [name for name in ARGUMENTS if f"{{{name}}}" in entry.path]


def _add_options(parser: argparse.ArgumentParser, options: tuple[Option, ...]) -> None:
    for option in options:
        if option.name == "password":
            continue
        if option.flag:
            parser.add_argument(option.word, action="store_true", help=option.help)
        elif option.repeated:
            parser.add_argument(option.word, action="append", default=[], metavar="NAME=VALUE", help=option.help)
        else:
            parser.add_argument(option.word, required=option.needed, help=option.help)


def run(options: argparse.Namespace) -> int:
    """Carry out a command of the console; its exit status."""
    show = Show(as_json=options.json)
    try:
        login, password = _credentials()
        cloud = Cloud(options.url, login, password)
        try:
            return COMMANDS[options.command](cloud, show, options)
        finally:
            cloud.close()
    except CallError as error:
        show.error(str(error))
        return BAD_CALL


def _credentials() -> tuple[str, str]:
    for prefix in ("ALFA_", "ALFA_ADMIN_"):
        login, password = os.environ.get(f"{prefix}LOGIN"), os.environ.get(f"{prefix}PASSWORD")
        if login and password:
            return login, password
    raise CallError("Set ALFA_LOGIN and ALFA_PASSWORD.")


def list_rows(cloud: Cloud, show: Show, options: argparse.Namespace) -> int:
    """Print a list."""
    query = _filters("filter", options.filter)
    if options.sort:
        query["sort"] = options.sort
    if options.command == "servers":
        query.setdefault("filter[active]", "all")
    show.rows(list(cloud.pages(f"/{options.command}", query)))
    return OK


def create(cloud: Cloud, show: Show, options: argparse.Namespace) -> int:
    """Create a client, and wait for it."""
    body = {option.name: value for option in CREATE if (value := getattr(options, option.name)) is not None}
    made = cloud.call("POST", "/clients/", body={**body, "server_id": int(cloud.find("servers", options.server))})
    return _wait(cloud, show, made["data"]["relationships"]["operation"]["data"]["id"])


def command(cloud: Cloud, show: Show, options: argparse.Namespace) -> int:
    """Carry out a command of a client, a server or an operation."""
    entry: Entry = options.chosen
    subject = _named(cloud, f"{options.command}_id", options.subject)
    words = {name: _named(cloud, name, getattr(options, name)) for name in _arguments(entry)}
    path = entry.path.format(id=subject, **words)
    query = _query(cloud, entry, options) | ({entry.subject: subject} if entry.subject else {})
    if getattr(options, "dry_run", False):
        plan = cloud.call(entry.method, path, query={**query, "dry_run": "true"}, body=_body(entry, options))
        show.plan(plan["data"])
        return OK
    answer = cloud.call(entry.method, path, query=query, body=_body(entry, options))
    data = answer["data"]
    if isinstance(data, list):
        show.rows(data)
        return OK
    if data["type"] != "operations":
        show.resource(data)
        return OK
    if not entry.waits or options.no_wait:
        show.resource(data)
        return OK
    return _wait(cloud, show, data["id"])


def _named(cloud: Cloud, name: str, wish: str) -> str:
    """What stands in the API's path for a word of the command line."""
    if name in ("client_id", "server_id"):
        return cloud.find(f"{name.removesuffix('_id')}s", wish)
    return quote(wish, safe=":")


def _query(cloud: Cloud, entry: Entry, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in entry.options:
        value = getattr(options, option.name)
        if option.repeated:
            found |= _filters(option.name, value)
        elif value:
            found[option.name] = _value(cloud, option.name, value)
    return found


def _value(cloud: Cloud, name: str, value: Any) -> str:
    if value is True:
        return "true"
    return cloud.find("servers", value) if name == "server_id" else str(value)


def _filters(name: str, pairs: list[str]) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise CallError(f"--{name} wants NAME=VALUE, not {pair}")
        found[f"{name}[{key}]"] = value
    return found


def _body(entry: Entry, options: argparse.Namespace) -> Any:
    if not entry.fields:
        return None
    body: dict[str, Any] = {}
    for field in entry.fields:
        value = _password() if field.name == "password" else getattr(options, field.name)
        if value is not None:
            body[field.name] = None if field.name == "expire_date" and value == "never" else value
    return body


def _password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("New password: ")
    return sys.stdin.readline().rstrip("\r\n")


def wait(cloud: Cloud, show: Show, options: argparse.Namespace) -> int:
    """Wait for the end of an operation."""
    return _wait(cloud, show, options.operation)


def _wait(cloud: Cloud, show: Show, operation_id: str) -> int:
    show.progress(cloud.follow(operation_id))
    found = cloud.operation(operation_id)
    show.end(found)
    return OK if found["attributes"]["completed"] == "ok" else FAILED


def log(cloud: Cloud, show: Show, options: argparse.Namespace) -> int:
    """Print the log of an operation; to its end where that is asked for."""
    if options.follow:
        for part in cloud.follow(options.operation):
            show.lines(part["lines"])
        return OK if cloud.operation(options.operation)["attributes"]["completed"] == "ok" else FAILED
    after = 0
    while True:
        path = f"/operations/{quote(options.operation, safe='')}/log"
        lines = cloud.call("GET", path, query={"after_seq": after})["data"]["attributes"]["lines"]
        if not lines:
            return OK
        show.lines(lines)
        after = lines[-1]["seq"]


COMMANDS: Final[Mapping[str, Callable[[Cloud, Show, argparse.Namespace], int]]] = {
    "clients": list_rows,
    "servers": list_rows,
    "operations": list_rows,
    "create": create,
    "client": command,
    "server": command,
    "operation": command,
    "wait": wait,
    "log": log,
}
