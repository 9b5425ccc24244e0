"""Which answer a request gets by nginx' configuration: a text, a file, or what stands behind a proxy_pass."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from alfa_cloud.sandbox.practice.nginx_config import VARIABLE, Config, Directive, Location, Server

TYPES: Final = {
    ".html": "text/html",
    ".htm": "text/html",
    ".css": "text/css",
    ".js": "application/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".txt": "text/plain",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
# https://nginx.org/en/docs/http/ngx_http_headers_module.html: without `always`, only these bear added headers.
PLAIN_ADDS: Final = frozenset({200, 201, 204, 206, 301, 302, 303, 304, 307, 308})
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
REASONS: Final = {
    200: "OK",
    204: "No Content",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Not Allowed",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
MAX_REDIRECTS: Final = 10


@dataclass(slots=True)
class Request:
    """One request as the proxy read it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: str
    port: int
    scheme: str

    def header(self, name: str) -> str:
        """The first header of a name."""
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(slots=True)
class Answer:
    """What the client gets, but for a proxied body."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    close: bool = False
    """nginx' 444: the connection is closed without a word."""


@dataclass(slots=True)
class Pass:
    """The request goes on to a server behind."""

    host: str
    port: int
    target: str
    headers: list[tuple[str, str]]
    connect_s: float
    read_s: float
    route: Route


def choose_server(config: Config, host: str, port: int) -> Server | None:
    """The virtual host of a name: exact, by wildcard, else the default one."""
    name = host.rpartition(":")[0].lower() if re.search(r":\d+$", host) else host.lower()
    name = name.rstrip(".")
    here = [server for server in config.servers if port in server.ports]
    for server in here:
        if name in server.names:
            return server
    best: tuple[int, Server] | None = None
    for server in here:
        for pattern in server.names:
            if pattern.startswith("~") and re.search(pattern[1:], name):
                best = best or (0, server)
            suffix = pattern[1:] if pattern.startswith("*.") else pattern if pattern.startswith(".") else ""
            if suffix and (name.endswith(suffix) or name == suffix[1:]) and (best is None or len(suffix) > best[0]):
                best = (len(suffix), server)
    if best is not None:
        return best[1]
    return next((server for server in here if port in server.default_ports), None)


def choose_location(level: Location, path: str) -> Location:
    """The location of a path, by nginx' order: exact, `^~`, the first expression, the longest prefix."""
    prefix: Location | None = None
    for location in level.locations:
        if location.modifier == "=" and location.path == path:
            return location
        fits = location.modifier in ("", "^~") and path.startswith(location.path) and location.path[:1] != "@"
        if fits and (prefix is None or len(location.path) > len(prefix.path)):
            prefix = location
    if prefix is None or prefix.modifier != "^~":
        for location in level.locations:
            flags = re.IGNORECASE if location.modifier == "~*" else 0
            if location.modifier.startswith("~") and re.search(location.path, path, flags):
                return location
    if prefix is None:
        return level
    return choose_location(prefix, path) if prefix.locations else prefix


class Route:
    """The way of one request through one virtual host."""

    def __init__(self, config: Config, server: Server, request: Request) -> None:
        self.config = config
        self.server = server
        self.request = request
        self.method = request.method
        path, _, self.args = request.target.partition("?")
        self.uri = unquote(path) or "/"
        self.variables: dict[str, str] = {}
        self.location = server.root
        self.error_status = 0
        """The status that an error_page keeps; 0 where there was no error."""

        self.in_error = False
        self.redirects = 0

    def answer(self) -> Answer | Pass:
        """What the request gets first: a whole answer, or a server to ask."""
        self.location = self.server.root
        done = self._rewrites(self.server.root)
        return done if done is not None else self._locate(internal=False)

    def failed(self, status: int) -> Answer | Pass:
        """What follows on an error: the configuration's own page, or nginx' plain one."""
        if not self.in_error:
            for page in self.location.inherited("error_page"):
                *codes, target = page.args
                change = next((code for code in codes if code.startswith("=")), None)
                if str(status) in codes:
                    return self._error_page(status, change, target)
        if status == 444:
            return Answer(444, close=True)
        words = f"{status} {REASONS.get(status, 'Error')}"
        text = f"<html>\n<head><title>{words}</title></head>\n<body>\n<h1>{words}</h1>\n</body>\n</html>\n"
        return self._finish(status, text.encode(), "text/html")

    def intercepts(self, status: int) -> bool:
        """Whether a page of the configuration stands in for an answer of the server behind."""
        if status < 300 or self.in_error or self.location.value("proxy_intercept_errors") != "on":
            return False
        return any(str(status) in page.args[:-1] for page in self.location.inherited("error_page"))

    def _error_page(self, status: int, change: str | None, target: str) -> Answer | Pass:
        """Go on with an error's page, as a GET."""
        self.in_error = True
        self.error_status = status if change is None else int(change[1:] or 0)
        if target.startswith("http"):
            return self._finish(
                self.error_status if self.error_status in REDIRECTS else 302, b"", "", [("Location", target)]
            )
        self.method = "HEAD" if self.request.method == "HEAD" else "GET"
        if target.startswith("@"):
            self.location = next(item for item in self.server.root.locations if item.path == target)
            return self._serve()
        path, _, args = self.expand(target).partition("?")
        self.uri, self.args = path, args or self.args
        return self._locate(internal=True)

    def _locate(self, *, internal: bool) -> Answer | Pass:
        """Serve the location of the present path."""
        self.redirects += 1
        if self.redirects > MAX_REDIRECTS:
            return self.failed(500)
        self.location = choose_location(self.server.root, self.uri)
        if self.location.own("internal") and not internal:
            return self.failed(404)
        return self._serve()

    def _serve(self) -> Answer | Pass:
        """What the present location gives."""
        location = self.location
        if location is not self.server.root:
            done = self._rewrites(location)
            if done is not None:
                return done
        if proxied := location.own("proxy_pass"):
            return self._pass(proxied[-1])
        if tried := location.inherited("try_files"):
            return self._try_files(tried[-1].args)
        return self._file(self._path_of(self.uri))

    def _rewrites(self, level: Location, directives: list[Directive] | None = None) -> Answer | Pass | None:
        """`set`, `if`, `rewrite` and `return`, in their order; None where the work goes on."""
        for item in level.directives if directives is None else directives:
            if item.name == "set":
                self.variables[item.args[0].lstrip("$")] = self.expand(item.args[1])
            elif item.name == "return":
                return self._return([self.expand(word) for word in item.args])
            elif item.name == "if" and self._holds(" ".join(item.args)):
                done = self._rewrites(level, item.block or [])
                if done is not None:
                    return done
            elif item.name == "rewrite" and (found := re.search(item.args[0], self.uri)):
                to = re.sub(r"\$(\d)", lambda match, groups=found: groups[int(match[1])] or "", item.args[1])  # type: ignore[misc]
                if to.startswith("http") or item.args[-1] in ("permanent", "redirect"):
                    return self._return(["301" if item.args[-1] == "permanent" else "302", self.expand(to)])
                self.uri, _, args = self.expand(to).partition("?")
                self.args = args or self.args
                if item.args[-1] != "break" and level is not self.server.root:
                    return self._locate(internal=True)
                return None
        return None

    def _holds(self, condition: str) -> bool:
        """The condition of an `if`."""
        words = condition.strip("() ").split(None, 2)
        if words[0] in ("-f", "!-f", "-e", "!-e"):
            path = Path(self.expand(words[1].strip("\"'")))
            return (path.is_file() if words[0].endswith("f") else path.exists()) != words[0].startswith("!")
        left = self.expand(words[0])
        if len(words) == 1:
            return left not in ("", "0")
        right = self.expand(words[2].strip("\"'"))
        if words[1] in ("=", "!="):
            return (left == right) == (words[1] == "=")
        found = re.search(right, left, re.IGNORECASE if "*" in words[1] else 0) is not None
        return found != words[1].startswith("!")

    def _return(self, words: list[str]) -> Answer | Pass:
        """`return CODE [text|address]`."""
        if not words[0].isdigit():
            return self._finish(302, b"", "", [("Location", words[0])])
        status = int(words[0])
        if status in REDIRECTS and len(words) > 1:
            return self._finish(status, b"", "text/html", [("Location", words[1])])
        if len(words) == 1 and status >= 300:
            return self.failed(status)
        return self._finish(status, words[1].encode() if len(words) > 1 else b"", self._default_type())

    def _default_type(self) -> str:
        return self.location.value("default_type", "text/plain")

    def _path_of(self, uri: str) -> Path | None:
        """The file of a path; None where it leads out of its folder."""
        alias = self.location.own("alias")
        if alias:
            base, rest = Path(self.expand(alias[-1].args[0])), uri.removeprefix(self.location.path)
            if self.location.modifier == "=":
                return base
        else:
            base, rest = Path(self.expand(self.location.value("root", "/usr/share/nginx/html"))), uri
        return None if ".." in rest.split("/") else base / rest.lstrip("/")

    def _try_files(self, args: list[str]) -> Answer | Pass:
        """The first file that is there, else what stands last."""
        *files, last = args
        for entry in files:
            path = self._path_of(self.expand(entry))
            if path is not None and (path.is_dir() if entry.endswith("/") else path.is_file()):
                return self._file(path)
        if last.startswith("="):
            return self.failed(int(last[1:]))
        if last.startswith("@"):
            self.location = next(item for item in self.server.root.locations if item.path == last)
            return self._serve()
        self.uri = self.expand(last).partition("?")[0]
        return self._locate(internal=True)

    def _file(self, path: Path | None) -> Answer | Pass:
        """A file of the server."""
        if path is None:
            return self.failed(400)
        if path.is_dir():
            path = path / self.location.value("index", "index.html")
        if self.method not in ("GET", "HEAD"):
            return self.failed(405)
        try:
            body = path.read_bytes()
        except PermissionError:
            return self.failed(403)
        except OSError:
            return self.failed(404)
        return self._finish(200, body, TYPES.get(path.suffix, self._default_type()))

    def _finish(self, status: int, body: bytes, kind: str, headers: list[tuple[str, str]] | None = None) -> Answer:
        """An answer with the headers that the configuration adds."""
        status = self.error_status or status
        answer = Answer(status, list(headers or []), body)
        charset = self.location.value("charset")
        if kind:
            textual = charset not in ("", "off") and kind.startswith("text/") and "charset" not in kind
            answer.headers.append(("Content-Type", f"{kind}; charset={charset}" if textual else kind))
        answer.headers += self.added(status)
        return answer

    def added(self, status: int) -> list[tuple[str, str]]:
        """The headers of `add_header` for a status."""
        return [
            (item.args[0], self.expand(item.args[1]))
            for item in self.location.inherited("add_header")
            if status in PLAIN_ADDS or item.args[-1] == "always"
        ]

    def _pass(self, item: Directive) -> Answer | Pass:
        """Where a proxy_pass leads, with the headers for it."""
        target = re.match(r"https?://([^/:]+)(?::(\d+))?(/.*)?$", self.expand(item.args[0]))
        if target is None:
            return self.failed(500)
        name, port, path = target.groups()
        host, number = self.config.upstreams.get(name, [(name, int(port or 80))])[0]
        host = "127.0.0.1" if host == "localhost" else host
        line = self.request.target
        if path is not None or self.in_error:
            base = (path or "") + self.uri.removeprefix(self.location.path) if path else self.uri
            line = base + (f"?{self.args}" if self.args else "")
        self.variables["proxy_host"] = name if port is None else f"{name}:{port}"
        replaced = {entry.args[0].lower(): entry for entry in self.location.inherited("proxy_set_header")}
        headers = [pair for pair in self.request.headers if pair[0].lower() not in {*replaced, "host", "connection"}]
        if "host" not in replaced:
            headers.append(("Host", self.variables["proxy_host"]))
        values = [(entry.args[0], self.expand(entry.args[1])) for entry in replaced.values()]
        headers += [(key, value) for key, value in values if value and key.lower() != "connection"]
        times = [seconds(self.location.value(key, "60s")) for key in ("proxy_connect_timeout", "proxy_read_timeout")]
        return Pass(host, number, line, headers, times[0], times[1], self)

    def expand(self, text: str) -> str:
        """A text with its variables' values."""
        return VARIABLE.sub(lambda match: self._variable(match[1] or match[2]), text)

    def _variable(self, name: str) -> str:
        """The value of one variable."""
        if name in self.variables:
            return self.variables[name]
        request = self.request
        if name in self.config.maps:
            source, values = self.config.maps[name]
            return self.expand(values.get(self.expand(source), values.get("default", "")))
        if name.startswith("http_"):
            return request.header(name[5:].replace("_", "-"))
        host = re.sub(r":\d+$", "", request.header("host")).lower()
        forwarded = request.header("x-forwarded-for")
        names = {
            "host": host or (self.server.names[0] if self.server.names else ""),
            "remote_addr": request.peer,
            "proxy_add_x_forwarded_for": f"{forwarded}, {request.peer}" if forwarded else request.peer,
            "scheme": request.scheme,
            "https": "on" if request.scheme == "https" else "",
            "request_uri": request.target,
            "uri": self.uri,
            "document_uri": self.uri,
            "args": self.args,
            "query_string": self.args,
            "is_args": "?" if self.args else "",
            "server_name": self.server.names[0] if self.server.names else "",
            "server_port": str(request.port),
            "server_addr": "127.0.0.1",
            "request_method": request.method,
            "content_type": request.header("content-type"),
            "content_length": request.header("content-length"),
            "status": str(self.error_status),
        }
        return names.get(name, "")


def seconds(text: str) -> float:
    """A time of nginx' in seconds."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h)?", text)
    scale = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, None: 1}
    return float(found[1]) * scale[found[2]] if found else 60.0
