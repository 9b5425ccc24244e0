"""The nginx stand-in's server: a process that serves the virtual hosts, and takes a new configuration by a line.

`python -m alfa_cloud.sandbox.practice.nginx_proxy NGINX_CONF HTTP_PORT HTTPS_PORT`; each line on its standard input
is a reload, answered by `ok` or by what is wrong (then the old configuration stays).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
from pathlib import Path
from typing import Final

from alfa_cloud.sandbox.practice import nginx_config
from alfa_cloud.sandbox.practice.folder import LOOPBACK
from alfa_cloud.sandbox.practice.nginx_config import Config, ConfigError
from alfa_cloud.sandbox.practice.nginx_routing import REASONS, Answer, Pass, Request, Route, choose_server

MAX_HEAD: Final = 64 * 1024
MAX_BODY: Final = 64 * 1024 * 1024
HOP: Final = ("connection", "keep-alive", "server")
HEAD_TIMEOUT_S: Final = 60


class UpstreamError(Exception):
    """The server behind did not answer: 502 or 504."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Proxy:
    """Serves one configuration at a time."""

    def __init__(self, path: Path, http_port: int, https_port: int) -> None:
        self.path = path
        self.http_port = http_port
        self.https_port = https_port
        self.config = Config()
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.tls_server: asyncio.Server | None = None

    async def reload(self) -> str:
        """The configuration on disk counts; `ok`, or what is wrong with it, and then nothing has changed."""
        try:
            config = nginx_config.load(self.path, (self.http_port, self.https_port))
            contexts = self._contexts(config)
        except ConfigError as error:
            return f"[emerg] {error}"
        self.config, self.contexts = config, contexts
        if contexts and self.tls_server is None:
            main = next(iter(contexts.values()))
            main.sni_callback = self._choose_context
            self.tls_server = await asyncio.start_server(
                lambda reader, writer: self.serve(reader, writer, self.https_port, "https"),
                LOOPBACK,
                self.https_port,
                ssl=main,
                limit=MAX_HEAD,
            )
        return "ok"

    def _contexts(self, config: Config) -> dict[str, ssl.SSLContext]:
        """A TLS context for each name that has a certificate."""
        contexts = {}
        for server in config.servers:
            if not server.tls:
                continue
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                context.load_cert_chain(server.certificate, server.key)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f'cannot load certificate "{server.certificate}": {error}') from error
            contexts.update(dict.fromkeys(server.names or [""], context))
        return contexts

    def _choose_context(self, link: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        chosen = self.contexts.get((name or "").lower()) or next(iter(self.contexts.values()), None)
        if chosen is not None:
            link.context = chosen

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, scheme: str) -> None:
        """Answer one request, and close the connection."""
        try:
            request = await asyncio.wait_for(read_request(reader, writer, port, scheme), HEAD_TIMEOUT_S)
            if request is not None:
                await self._answer(request, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Find the answer, and send it; a server behind that fails leads to the page for that."""
        server = choose_server(self.config, request.header("host"), request.port)
        if server is None:
            await send(writer, request, Answer(404, [("Content-Type", "text/plain")], b"No such virtual host here.\n"))
            return
        answer = Route(self.config, server, request).answer()
        while isinstance(answer, Pass):
            try:
                await forward(answer, request, writer)
            except UpstreamError as error:
                answer = answer.route.failed(error.status)
            else:
                return
        await send(writer, request, answer)


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, scheme: str
) -> Request | None:
    """The request on a connection; None where there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ", 2)
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    peer = writer.get_extra_info("peername")
    request = Request(method, target, headers, b"", peer[0] if peer else "", port, scheme)
    if request.header("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.header("transfer-encoding").lower() == "chunked":
        request.body = await _read_chunks(reader)
        request.headers = [pair for pair in headers if pair[0].lower() not in ("transfer-encoding", "expect")]
        request.headers.append(("Content-Length", str(len(request.body))))
    else:
        size = int(request.header("content-length") or 0)
        if not 0 <= size <= MAX_BODY:
            raise ValueError(size)
        request.body = await reader.readexactly(size)
        request.headers = [pair for pair in headers if pair[0].lower() != "expect"]
    return request


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
        if len(body) > MAX_BODY:
            raise ValueError(size)
    while (await reader.readline()).strip():
        pass
    return body


async def send(writer: asyncio.StreamWriter, request: Request, answer: Answer) -> None:
    """Write a whole answer."""
    if answer.close:
        return
    headers = [("Server", "nginx/1.26 (a stand-in)"), *answer.headers, ("Content-Length", str(len(answer.body)))]
    writer.write(head_of(answer.status, [*headers, ("Connection", "close")]))
    if request.method != "HEAD":
        writer.write(answer.body)
    await writer.drain()


def head_of(status: int, headers: list[tuple[str, str]], reason: str = "") -> bytes:
    """The first lines of an answer."""
    lines = [f"HTTP/1.1 {status} {reason or REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def forward(to: Pass, request: Request, writer: asyncio.StreamWriter) -> None:
    """Ask the server behind, and pass its answer on.

    Raises:
        UpstreamError: it did not answer, and nothing was sent yet.
    """
    try:
        reader, upstream = await asyncio.wait_for(
            asyncio.open_connection(to.host, to.port, limit=MAX_HEAD), to.connect_s
        )
    except TimeoutError as error:
        raise UpstreamError(504) from error
    except OSError as error:
        raise UpstreamError(502) from error
    try:
        head = [f"{request.method} {to.target} HTTP/1.1", *(f"{name}: {value}" for name, value in to.headers)]
        upstream.write(
            ("\r\n".join([*head, "Connection: close"]) + "\r\n\r\n").encode("latin-1", "replace") + request.body
        )
        try:
            status, reason, headers = await asyncio.wait_for(_upstream_head(reader), to.read_s)
        except TimeoutError as error:
            raise UpstreamError(504) from error
        if to.route.intercepts(status):
            raise UpstreamError(status)
        hidden = {item.args[0].lower() for item in to.route.location.inherited("proxy_hide_header")} | set(HOP)
        kept = [pair for pair in headers if pair[0].lower() not in hidden] + to.route.added(status)
        writer.write(head_of(status, [("Server", "nginx/1.26 (a stand-in)"), *kept, ("Connection", "close")], reason))
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    finally:
        upstream.close()


async def _upstream_head(reader: asyncio.StreamReader) -> tuple[int, str, list[tuple[str, str]]]:
    """Status, reason and headers of an answer.

    Raises:
        UpstreamError: there is none.
    """
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise UpstreamError(502) from error
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        words = first.split(" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            raise UpstreamError(502)
        if words[1] == "100":
            continue
        headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return int(words[1]), words[2] if len(words) > 2 else "", headers


async def run(path: Path, http_port: int, https_port: int) -> None:
    """Serve until TERM, or until nobody holds the standard input."""
    proxy = Proxy(path, http_port, https_port)
    await proxy.reload()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    serve = await asyncio.start_server(
        lambda reader, writer: proxy.serve(reader, writer, http_port, "http"),
        LOOPBACK,
        http_port,
        limit=MAX_HEAD,
        backlog=512,
    )

    async def obey() -> None:
        while await lines.readline():
            sys.stdout.write((await proxy.reload()).replace("\n", " ") + "\n")
            sys.stdout.flush()
        over.set()

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    listener = asyncio.create_task(obey())
    await over.wait()
    serve.close()
    listener.cancel()


def main() -> None:
    """Run as the arguments say."""
    path, http_port, https_port = sys.argv[1:]
    asyncio.run(run(Path(path), int(http_port), int(https_port)))


if __name__ == "__main__":
    main()
