"""Bytes that a server printed become lines that may be shown: masked, split, bounded, without control characters."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from alfa_cloud.specs import Secret

LINE_BYTES: Final = 8192
"""What a line may have in UTF-8, the mark of truncation included."""
TRUNCATED: Final = " [truncated]"
MASK: Final = b"***"
PLAIN_CHARACTERS: Final = 500
MIN_SECRET: Final = 6
"""A shorter secret would mask half of every text."""
RAW_LINE_BYTES: Final = 65536
"""What is kept of a line before it is cut; a piece of input is never longer, so only its first line can be."""

CONTROL_BYTES: Final = bytes({*range(0x20), 0x7F} - set(b"\t\n\r"))
CONTROL_LEADS: Final = (b"\xc2", b"\xd8\x9c", b"\xe2\x80", b"\xe2\x81")
"""How C1 and bidi controls begin in UTF-8."""
# ECMA-48: CSI; OSC, DCS, SOS, PM and APC with their strings; other escapes; then what is left of C0, C1 and bidi.
CONTROLS: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\r\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
LINE_END: Final = re.compile(rb"\r\n|\n|\r")
PERCENT: Final = re.compile(r"%[0-9A-F]{2}")


class Masker:
    """Replaces secrets, in every form a program may print them in, by `***`.

    A secret of several lines is masked line by line: the parts of fewer than 6 characters where they are a whole line.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._forms: list[bytes] = []
        self._cores: list[bytes] = []
        self._whole_lines: re.Pattern[bytes] | None = None
        self._texts: set[str] = set()
        self.add(*secrets)

    def add(self, *secrets: Secret) -> None:
        """These secrets are masked too from now on."""
        self._texts |= {secret.reveal() for secret in secrets if len(secret.reveal()) >= MIN_SECRET}
        parts = {part for text in self._texts for part in re.split(r"[\r\n]+", text) if part.strip()}
        short = sorted(re.escape(part.encode()) for part in parts if len(part) < MIN_SECRET)
        known = self._texts | {part for part in parts if len(part) >= MIN_SECRET}
        found = {form for text in known for form in _forms(text)}
        forms = {form for form in found if len(form) >= MIN_SECRET and not LINE_END.search(form)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._cores = [form for form in forms if not any(other in form for other in forms if other != form)]
        self._whole_lines = re.compile(rb"(?<![^\r\n])(?:%s)(?![^\r\n])" % b"|".join(short)) if short else None

    @property
    def longest(self) -> int:
        """The length of the longest masked form, in bytes."""
        return len(self._forms[0]) if self._forms else 0

    def mask(self, data: bytes) -> bytes:
        """The same bytes with every secret replaced; line ends stay where they are."""
        if any(core in data for core in self._cores):
            for form in self._forms:
                data = data.replace(form, MASK)
        return self._whole_lines.sub(MASK, data) if self._whole_lines else data

    def mask_text(self, text: str) -> str:
        """The same for text."""
        return self.mask(text.encode("utf-8", "replace")).decode()


class OutputPipeline:
    """Turns the bytes of one stream into lines; the same bytes give the same lines, however they are cut.

    Args:
        masker: what must not be shown.
        offset: how many bytes of the stream were consumed before.
    """

    def __init__(self, masker: Masker, offset: int = 0) -> None:
        self.offset = offset
        """The bytes consumed up to the last line end: whoever feeds on from here misses and repeats nothing."""
        self._masker = masker
        self._tail = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete."""
        lines: list[str] = []
        for start in range(0, len(data), RAW_LINE_BYTES):
            lines += self._feed_piece(data[start : start + RAW_LINE_BYTES])
        return lines

    def finish(self) -> list[str]:
        """The last line, where it has no end."""
        return self._take(len(self._tail)) if self._tail else []

    def _feed_piece(self, piece: bytes) -> list[str]:
        tail = self._tail
        known = max(0, len(tail) - 1)
        tail += piece
        # A CR that is the last byte may be half of a CRLF: it waits for the next one.
        end = 1 + max(tail.rfind(b"\n", known), tail.rfind(b"\r", known, len(tail) - 1))
        if end:
            return self._take(end)
        if len(tail) > RAW_LINE_BYTES:
            kept = RAW_LINE_BYTES + 1 if tail.endswith(b"\r") else RAW_LINE_BYTES
            self._dropped += len(tail) - kept
            tail[RAW_LINE_BYTES:] = tail[RAW_LINE_BYTES:][-1:] if kept > RAW_LINE_BYTES else b""
        return []

    def _take(self, end: int) -> list[str]:
        block, lines = bytes(self._tail[:end]), []
        first = LINE_END.search(block)
        length = first.start() if first else end
        if length > RAW_LINE_BYTES or self._dropped:
            lines.append(self._overlong(block[:RAW_LINE_BYTES]))
            block = block[first.end() :] if first else b""
        del self._tail[:end]
        self.offset += end + self._dropped
        self._dropped = 0
        return lines + self._clean(block) if block else lines

    def _overlong(self, raw: bytes) -> str:
        masked = self._masker.mask(raw)
        # The cut may go through a secret; its first half would not be known as one.
        masked = masked[: max(0, len(masked) - self._masker.longest)]
        return _cut(self._visible(masked), always=True)

    def _clean(self, block: bytes) -> list[str]:
        # Before anything is taken out: what is left of a CR, a colour and an LF is no CRLF.
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
        lines = self._visible(self._masker.mask(block)).split("\n")
        if not lines[-1] and block.endswith(b"\n"):
            lines.pop()
        if lines and max(map(len, lines)) * 4 > LINE_BYTES:
            lines = [_cut(line) if len(line) * 4 > LINE_BYTES else line for line in lines]
        return lines

    def _visible(self, masked: bytes) -> str:
        text = masked.decode("utf-8", "replace")
        plain = len(masked.translate(None, CONTROL_BYTES)) == len(masked)
        if plain and (masked.isascii() or not any(lead in masked for lead in CONTROL_LEADS)):
            return text
        shown = CONTROLS.sub("", text)
        # A colour in the middle of a secret hid it from the first look.
        return shown if len(shown) == len(text) else self._masker.mask_text(shown)


def clean(text: str, masker: Masker) -> list[str]:
    """Text of our own as lines that may be shown."""
    pipeline = OutputPipeline(masker)
    return pipeline.feed(text.encode("utf-8", "replace")) + pipeline.finish()


def plain_text(data: bytes) -> str:
    """What a program printed as one line of at most 500 characters, without control characters; not masked."""
    return " ".join(CONTROLS.sub("", data[:RAW_LINE_BYTES].decode("utf-8", "replace")).split())[:PLAIN_CHARACTERS]


def _cut(line: str, *, always: bool = False) -> str:
    data = line.encode()
    if not always and len(data) <= LINE_BYTES:
        return line
    return data[: LINE_BYTES - len(TRUNCATED)].decode("utf-8", "ignore") + TRUNCATED


def _forms(text: str) -> Iterator[bytes]:
    yield from (form.encode("utf-8", "replace") for form in {*_escaped(text), *_url_encoded(text)})
    yield from _base64(text.encode("utf-8", "replace"))


def _escaped(text: str) -> Iterator[str]:
    ascii_json, json_text = json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]
    backslashed = text.replace("\\", "\\\\")
    yield from (text, ascii_json, json_text, repr(text)[1:-1], html.escape(text), html.escape(text, quote=False))
    yield from (ascii_json.replace("/", "\\/"), json_text.replace("/", "\\/"))  # PHP's json_encode
    yield re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), ascii_json)
    yield shlex.quote(text).strip("'")
    yield text.replace("'", "'\\''")  # bash under `set -x`
    yield text.replace("'", "''")  # SQL and YAML
    yield text.replace("$", "$$")  # compose
    yield backslashed.replace("'", "\\'")  # PHP's var_export
    yield re.sub(r'(["$`\\])', r"\\\1", text)  # in double quotes
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", text, flags=re.ASCII)  # printf %q


def _url_encoded(text: str) -> Iterator[str]:
    for form in (quote(text), quote(text, safe=""), quote_plus(text), quote(text, safe="!*'();:@&=+$,/?#[]~")):
        yield form
        yield PERCENT.sub(lambda found: found[0].lower(), form)


def _base64(data: bytes) -> Iterator[bytes]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(data)
        yield from (whole, whole.rstrip(b"="))
        for width in (64, 76):  # PEM; base64(1) and MIME
            yield from (whole[at : at + width] for at in range(0, len(whole), width) if len(whole) > width)
        for shift, skip in ((0, 0), (1, 2), (2, 3)):  # with other text before it, within the characters it fills alone
            yield encode(bytes(shift) + data)[skip : (shift + len(data)) * 8 // 6]
