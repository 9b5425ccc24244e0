"""nginx' configuration, parsed as far as virtual hosts need it; syntax errors read as nginx' own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# https://nginx.org/en/docs/varindex.html, as far as virtual hosts use it; http_*, arg_* and cookie_* are known too.
VARIABLES: Final = """
    args binary_remote_addr body_bytes_sent connection content_length content_type document_root document_uri host
    hostname https is_args msec nginx_version pid proxy_add_x_forwarded_for proxy_host proxy_port query_string
    realpath_root remote_addr remote_port remote_user request request_body request_filename request_id request_length
    request_method request_time request_uri scheme server_addr server_name server_port server_protocol status
    time_iso8601 time_local uri
"""
PREFIXES: Final = ("http_", "arg_", "cookie_", "sent_http_", "upstream_", "ssl_")
VARIABLE: Final = re.compile(r"\$\{(\w+)\}|\$(\w+)")
MODIFIERS: Final = ("=", "^~", "~", "~*")
DEFINES: Final = ("map", "geo", "split_clients")


class ConfigError(Exception):
    """What `nginx -t` complains about."""


@dataclass(slots=True)
class Directive:
    """One directive, with its block where it has one."""

    name: str
    args: list[str]
    file: str
    line: int
    block: list[Directive] | None = None

    def error(self, words: str) -> ConfigError:
        """A complaint about this directive."""
        return ConfigError(f"{words} in {self.file}:{self.line}")


@dataclass(slots=True)
class Location:
    """One location, or a server's own level where the modifier is `server`."""

    modifier: str
    path: str
    directives: list[Directive]
    parent: Location | None
    locations: list[Location] = field(default_factory=list)

    def own(self, name: str) -> list[Directive]:
        """The directives of this name at this level."""
        return [directive for directive in self.directives if directive.name == name]

    def inherited(self, name: str) -> list[Directive]:
        """The directives of this name at the innermost level that has any."""
        found = self.own(name)
        return found if found or self.parent is None else self.parent.inherited(name)

    def value(self, name: str, default: str = "") -> str:
        """The first argument of an inherited directive."""
        found = self.inherited(name)
        return found[-1].args[0] if found and found[-1].args else default


@dataclass(slots=True)
class Server:
    """One virtual host."""

    names: list[str]
    ports: set[int]
    default_ports: set[int]
    tls: bool
    certificate: str
    key: str
    root: Location


@dataclass(slots=True)
class Config:
    """Everything that the proxy needs."""

    upstreams: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    maps: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    """Variable: its source, and values by the source's."""
    warnings: list[str] = field(default_factory=list)


Token = tuple[str, int, bool]
"""Text, line, and whether it is one of `;`, `{` and `}`."""


def tokens(text: str, file: str) -> Iterator[Token]:
    """Split a file as nginx does.

    Raises:
        ConfigError: a quoted text does not end, or goes on without a space.
    """
    place, line = 0, 1
    while place < len(text):
        letter = text[place]
        if letter.isspace():
            line += letter == "\n"
            place += 1
        elif letter == "#":
            end = text.find("\n", place)
            place = len(text) if end < 0 else end
        elif letter in ";{}":
            yield letter, line, True
            place += 1
        else:
            word, end = _word(text, place, file, line)
            yield word, line, False
            line += text.count("\n", place, end)
            place = end


def _word(text: str, start: int, file: str, line: int) -> tuple[str, int]:
    """One word, quoted or not, and where it ends."""
    quote = text[start] if text[start] in "\"'" else ""
    place, word = start + bool(quote), ""
    while place < len(text):
        letter = text[place]
        if letter == "\\" and place + 1 < len(text):
            follows = text[place + 1]
            word += {"t": "\t", "r": "\r", "n": "\n"}.get(follows, follows if follows in "\"'\\" else "\\" + follows)
            place += 2
        elif quote and letter == quote:
            if place + 1 < len(text) and not (text[place + 1].isspace() or text[place + 1] in ";{)"):
                raise ConfigError(f'unexpected "{text[place + 1]}" in {file}:{line}')
            return word, place + 1
        elif not quote and text[place : place + 2] == "${":
            end = text.find("}", place)
            end = len(text) - 1 if end < 0 else end
            word, place = word + text[place : end + 1], end + 1
        elif not quote and (letter.isspace() or letter in ";{"):
            return word, place
        else:
            word, place = word + letter, place + 1
    raise ConfigError(f'unexpected end of file, expecting "{quote or ";"}" in {file}:{line}')


def parse(text: str, file: str) -> list[Directive]:
    """The directives of a file.

    Raises:
        ConfigError: its syntax is wrong.
    """
    stack: list[list[Directive]] = [[]]
    words: list[str] = []
    start = line = 1
    for token, line, special in tokens(text, file):
        if not special:
            start = line if not words else start
            words.append(token)
            continue
        if token == "}":
            if words:
                raise ConfigError(f'directive "{words[0]}" is not terminated by ";" in {file}:{line}')
            if len(stack) == 1:
                raise ConfigError(f'unexpected "}}" in {file}:{line}')
            stack.pop()
            continue
        if not words:
            raise ConfigError(f'unexpected "{token}" in {file}:{line}')
        directive = Directive(words[0], words[1:], file, start, [] if token == "{" else None)
        stack[-1].append(directive)
        if directive.block is not None:
            stack.append(directive.block)
        words = []
    if words:
        raise ConfigError(f'unexpected end of file, expecting ";" or "}}" in {file}:{line}')
    if len(stack) > 1:
        raise ConfigError(f'unexpected end of file, expecting "}}" in {file}:{line}')
    return stack[0]


def read(path: Path) -> list[Directive]:
    """The directives of a file, with its includes in their places.

    Raises:
        ConfigError: a file is not there, or its syntax is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f'open() "{path}" failed ({error.errno}: {error.strerror})') from error
    return list(_included(parse(text, str(path)), path.parent))


def _included(directives: list[Directive], folder: Path) -> Iterator[Directive]:
    for directive in directives:
        if directive.name == "include" and directive.block is None and directive.args:
            pattern = Path(directive.args[0])
            pattern = pattern if pattern.is_absolute() else folder / pattern
            masked = any(letter in pattern.name for letter in "*?[")
            for path in sorted(pattern.parent.glob(pattern.name)) if masked else [pattern]:
                yield from read(path)
            continue
        if directive.block is not None:
            directive.block = list(_included(directive.block, folder))
        yield directive


def load(path: Path, allowed_ports: Collection[int]) -> Config:
    """The configuration that starts with a file.

    Args:
        allowed_ports: where virtual hosts may listen on this server.

    Raises:
        ConfigError: as `nginx -t` would say it.
    """
    directives = read(path)
    http = [inner for item in directives if item.name == "http" for inner in item.block or []]
    config = Config()
    known = set(VARIABLES.split())
    for item in _walk(http):
        if item.name in (*DEFINES, "set") and item.args:
            known.add(item.args[-1 if item.name != "set" else 0].lstrip("$"))
    for item in http:
        if item.name == "upstream":
            _add_upstream(config, item)
        elif item.name == "map" and len(item.args) == 2:
            pairs = {entry.name: entry.args[0] for entry in item.block or [] if entry.args}
            config.maps[item.args[1].lstrip("$")] = (item.args[0], pairs)
    for item in http:
        if item.name == "server":
            config.servers.append(_server(item, allowed_ports))
        elif item.name in ("location", "proxy_pass", "return"):
            raise item.error(f'"{item.name}" directive is not allowed here')
    for item in _walk(http):
        _check(config, item, known)
    _warn(config)
    return config


def _walk(directives: list[Directive]) -> Iterator[Directive]:
    for directive in directives:
        yield directive
        if directive.block is not None and directive.name not in (*DEFINES, "types"):
            yield from _walk(directive.block)


def _add_upstream(config: Config, item: Directive) -> None:
    name = item.args[0] if item.args else ""
    if name in config.upstreams:
        raise item.error(f'duplicate upstream "{name}"')
    servers = []
    for entry in item.block or []:
        if entry.name == "server" and entry.args and "down" not in entry.args:
            host, _, port = entry.args[0].rpartition(":")
            if not port.isdigit():
                raise entry.error(f'invalid port in upstream "{entry.args[0]}"')
            servers.append((host, int(port)))
    if not servers:
        raise item.error("no servers are inside upstream")
    config.upstreams[name] = servers


def _server(item: Directive, allowed_ports: Collection[int]) -> Server:
    """One virtual host of the configuration."""
    root = _location("server", "", item.block or [], None)
    server = Server([], set(), set(), tls=False, certificate="", key="", root=root)
    for entry in item.block or []:
        if entry.name == "server_name":
            server.names += [name.lower() for name in entry.args]
        elif entry.name == "listen" and entry.args:
            port = entry.args[0].rpartition(":")[2]
            number = int(port) if port.isdigit() else 80
            if number not in allowed_ports:
                words = f"bind() to 0.0.0.0:{number} failed: a practice server listens on {sorted(allowed_ports)} only"
                raise entry.error(words)
            server.ports.add(number)
            server.tls |= "ssl" in entry.args
            if "default_server" in entry.args or "default" in entry.args:
                server.default_ports.add(number)
    server.certificate, server.key = root.value("ssl_certificate"), root.value("ssl_certificate_key")
    if server.tls and not (server.certificate and server.key):
        raise item.error('no "ssl_certificate" is defined for the "listen ... ssl" directive')
    for path in filter(None, (server.certificate, server.key)):
        if not Path(path).exists():
            raise ConfigError(f'cannot load certificate "{path}": BIO_new_file() failed (No such file or directory)')
    return server


def _location(modifier: str, path: str, block: list[Directive], parent: Location | None) -> Location:
    """A level with the locations in it."""
    level = Location(modifier, path, block, parent)
    seen = set()
    for entry in block:
        if entry.name != "location":
            continue
        args = entry.args
        if not args or len(args) > 2 or (len(args) == 2 and args[0] not in MODIFIERS):
            raise entry.error('invalid number of arguments in "location" directive')
        kind, target = (args[0], args[1]) if len(args) == 2 else ("", args[0])
        if kind.startswith("~"):
            try:
                re.compile(target)
            except re.error as error:
                raise entry.error(f'pcre2_compile() failed: {error} in "{target}"') from error
        key = ("~" if kind.startswith("~") else kind.replace("^~", ""), target)
        if key in seen:
            raise entry.error(f'duplicate location "{target}"')
        seen.add(key)
        level.locations.append(_location(kind, target, entry.block or [], level))
    return level


ARGUMENTS: Final = {"proxy_pass": (1, 1), "return": (1, 2), "root": (1, 1), "alias": (1, 1), "proxy_set_header": (2, 2)}
ARGUMENTS_MORE: Final = {"internal": (0, 0), "default_type": (1, 1), "add_header": (2, 3), "error_page": (2, 99)}


def _check(config: Config, item: Directive, known: set[str]) -> None:
    """What nginx checks of a single directive."""
    least, most = (ARGUMENTS | ARGUMENTS_MORE).get(item.name, (0, 99))
    if not least <= len(item.args) <= most:
        raise item.error(f'invalid number of arguments in "{item.name}" directive')
    if item.name == "location" and item.args[0].startswith("~"):
        return
    if item.name not in ("log_format", "rewrite", "if", "location", "server_name"):
        _check_variables(item, known)
    if item.name == "proxy_pass" and "$" not in item.args[0]:
        _check_target(config, item)
    if item.name == "return" and not item.args[0].isdigit() and not item.args[0].startswith(("http", "$")):
        raise item.error(f'invalid return code "{item.args[0]}"')


def _check_target(config: Config, item: Directive) -> None:
    """A proxy_pass leads to an upstream of the configuration, or to an address."""
    target = re.match(r"https?://([^/:]+)(:\d+)?", item.args[0])
    if target is None:
        raise item.error("invalid URL prefix")
    host = target[1]
    if host not in config.upstreams and host != "localhost" and not re.fullmatch(r"[\d.]+", host):
        raise item.error(f'host not found in upstream "{host}"')


def _check_variables(item: Directive, known: set[str]) -> None:
    """Every variable is one that nginx has, or the configuration sets."""
    for match in VARIABLE.finditer(" ".join(item.args)):
        name = match[1] or match[2]
        if name not in known and not name.isdigit() and not name.startswith(PREFIXES):
            raise item.error(f'unknown "{name}" variable')


def _warn(config: Config) -> None:
    """Names that two hosts bear are ignored in the second."""
    seen: set[tuple[str, int]] = set()
    for server in config.servers:
        for name in server.names:
            for port in server.ports:
                if (name, port) in seen:
                    config.warnings.append(f'conflicting server name "{name}" on 0.0.0.0:{port}, ignored')
                seen.add((name, port))
