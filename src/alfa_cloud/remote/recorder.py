"""What becomes of one stream of a command: its first part is kept, its lines go to the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from alfa_cloud.remote.host import CAPTURE_BYTES, LineSink
from alfa_cloud.remote.output import Masker, OutputPipeline
from alfa_cloud.specs import Stream

LAST_LINES: Final = 3


class Recorder:
    """Takes the bytes of one stream.

    Args:
        sink: where the lines go; None where they are not to be seen.
        name: the detached command whose checkpoint goes with the lines.
        offset: how many bytes of the stream were taken before.
    """

    def __init__(
        self, stream: Stream, masker: Masker, sink: LineSink | None, *, name: str | None = None, offset: int = 0
    ) -> None:
        self.received = offset
        """Where in the stream the next bytes belong."""
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        """The last lines that say anything."""
        self._captured = bytearray()
        self._stream = stream
        self._sink = sink
        self._name = name
        self._pipeline = OutputPipeline(masker, offset)

    @property
    def captured(self) -> bytes:
        """The first part of what was taken, as it came."""
        return bytes(self._captured)

    async def take(self, data: bytes) -> None:
        """These bytes are recorded.

        Raises:
            LeaseLostError: this worker was replaced.
        """
        self.received += len(data)
        self._captured += data[: CAPTURE_BYTES - len(self._captured)]
        await self._emit(self._pipeline.feed(data))

    async def finish(self) -> None:
        """There is no more: the last line goes too.

        Raises:
            LeaseLostError: this worker was replaced.
        """
        await self._emit(self._pipeline.finish())

    async def _emit(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self.last.extend([line.strip() for line in lines if line.strip()][-LAST_LINES:])
        if self._sink is not None:
            checkpoint = (self._name, self._pipeline.offset) if self._name is not None else None
            await self._sink.lines(self._stream, lines, checkpoint)
