"""The peer of a list: a Starlette handler on uvicorn that sends given bytes, `python -m benchmarks.bare PORT FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def main(port: int, body: bytes) -> None:
    """Serve the bytes, with uvicorn set as the API sets it."""

    async def clients(_: Request) -> Response:
        return Response(body, media_type="application/vnd.api+json")

    app = Starlette(routes=[Route("/clients", clients)])
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False, proxy_headers=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes())
