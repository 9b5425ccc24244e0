"""What a client's container prints: its last lines, and those that come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import asyncssh

from alfa_cloud.errors import CommandFailedError, ConnectionLostError, HostUnreachableError
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.output import Masker, OutputPipeline
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.specs import Address

READ_BYTES: Final = 32 * 1024
READ_S: Final = 20.0
FOLLOW_S: Final = 600.0
"""How long one reader follows; whoever wants more asks again."""

# Both streams in one, for their order. Whoever reads holds standard input open: at its end Docker's program is ended,
# for one that prints nothing would not notice that nobody reads.
LOG: Final = """
exec 3<&0
docker container logs "$@" 2>&1 </dev/null &
log=$!
{ cat <&3; kill "$log"; } >/dev/null 2>&1 &
wait "$log"
"""


def read(container: str, tail_lines: int) -> Command:
    """Print the last lines of a container."""
    return _command(READ_S, f"--tail={tail_lines}", "--", container)


def follow(container: str, tail_lines: int) -> Command:
    """The same, and all that come, until standard input ends or for `FOLLOW_S`."""
    return _command(FOLLOW_S, f"--tail={tail_lines}", "--follow", "--", container)


def _command(timeout_s: float, *words: str) -> Command:
    return Command(("sh", "-c", LOG, "alfa-container-log", *words), sudo=True, timeout_s=timeout_s)


async def lines(pool: SshPool, address: Address, command: Command, masker: Masker) -> AsyncGenerator[list[str], None]:
    """What the command prints, masked and without control characters, as it comes.

    Raises:
        HostUnreachableError, HostKeyChangedError, LoginRefusedError: the server could not be asked.
        ConnectionLostError: the connection ended.
        CommandFailedError: there is no such container, or Docker does not answer.
    """
    pipeline = OutputPipeline(masker)
    last: list[str] = []
    async with pool.process(address, command.to_shell()) as process:
        while data := await _read(process.stdout):
            if found := pipeline.feed(data):
                last = found
                yield found
        if rest := pipeline.finish():
            last = rest
            yield rest
        await process.wait_closed()
        if process.exit_status not in (0, TIMED_OUT):
            raise CommandFailedError(f"The container's log cannot be read: {' '.join(last)[-300:]}")


TIMED_OUT: Final = 124


async def _read(stream: asyncssh.SSHReader[bytes]) -> bytes:
    try:
        return await stream.read(READ_BYTES)
    except (asyncssh.Error, OSError) as error:
        raise ConnectionLostError("The connection ended while the container's log was read.") from error


async def check_reachable(pool: SshPool, address: Address, within_s: float) -> None:
    """The server can be asked.

    Raises:
        RemoteError: it cannot; the error says why.
    """
    try:
        async with asyncio.timeout(within_s):
            await pool.connect(address)
    except TimeoutError as error:
        raise HostUnreachableError(f"{address.host} did not answer within {within_s:g} s.") from error
