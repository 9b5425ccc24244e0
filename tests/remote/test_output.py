"""From bytes to lines."""

from __future__ import annotations

import base64
import json
import re
import shlex
import tracemalloc
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfa_cloud.remote.output import LINE_BYTES, RAW_LINE_BYTES, TRUNCATED, Masker, OutputPipeline
from alfa_cloud.specs import Secret

SECRET = "p@ss/w'o\"rd $1+Ключ"
PEM = "-----BEGIN KEY-----\nb3BlbnNzaC1rZXktdjEA\nabc\nAAAAB3NzaC1yc2E=\n-----END KEY-----\n"
PIECES = st.sampled_from(
    [
        *(
            b"\n",
            b"\r",
            b"\r\n",
            b"a",
            b"line",
            b"\xff",
            b"\xd0",
            b"\xd0\x9f",
            b"\x1b[31m",
            b"\x1b]0;x",
            b"\x07",
            b"\0",
        ),
        *(SECRET.encode(), SECRET.encode()[:5], SECRET.encode()[5:], b"x" * 5000, b"abc", b"\xe2\x80\xae"),
    ]
)
STREAMS = st.lists(PIECES, max_size=40).map(b"".join)


def masker() -> Masker:
    return Masker([Secret(SECRET), Secret(PEM)])


def lines_of(data: bytes, *, cuts: list[int] | None = None, mask: Masker | None = None) -> list[str]:
    pipeline = OutputPipeline(mask or masker())
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    lines: list[str] = []
    for start, end in pairwise(edges):
        lines += pipeline.feed(data[start:end])
    lines += pipeline.finish()
    assert pipeline.offset == len(data)
    return lines


@given(STREAMS, st.lists(st.integers(0, 10**6), max_size=30))
def test_the_same_bytes_give_the_same_lines_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    assert lines_of(data, cuts=cuts) == lines_of(data)


@given(STREAMS, st.integers(0, 10**6))
def test_from_the_offset_on_the_lines_follow(data: bytes, cut: int) -> None:
    first = OutputPipeline(masker())
    lines = first.feed(data[: cut % (len(data) + 1)])
    second = OutputPipeline(masker(), first.offset)
    lines += second.feed(data[first.offset :]) + second.finish()
    assert lines == lines_of(data)
    assert second.offset == len(data)


@given(STREAMS)
def test_no_line_holds_a_control_character_or_too_much(data: bytes) -> None:
    for line in lines_of(data):
        assert len(line.encode()) <= LINE_BYTES
        assert not set(line) & {*map(chr, (*range(9), *range(10, 32), *range(127, 160))), "\u202e"}
        assert SECRET not in line


@given(st.integers(RAW_LINE_BYTES - 3, RAW_LINE_BYTES + 3), st.sampled_from([b"\n", b"\r", b"\r\n"]), st.data())
def test_a_line_as_long_as_what_is_kept(length: int, end: bytes, draw: st.DataObject) -> None:
    data = b"first" + end + b"y" * length + end + b"last" + end
    around = st.integers(length - 8, length + 20)
    cuts = draw.draw(st.lists(around, max_size=6))
    assert lines_of(data, cuts=cuts) == lines_of(data)
    assert [len(line) for line in lines_of(data)] == [5, LINE_BYTES, 4]


FORMS = {
    "raw": SECRET,
    "url": quote(SECRET, safe=""),
    "url, slash kept": quote(SECRET),
    "url plus": quote_plus(SECRET),
    "url, small letters": re.sub("%..", lambda found: found[0].lower(), quote(SECRET, safe="")),
    "json": json.dumps(SECRET),
    "json, not ASCII": json.dumps(SECRET, ensure_ascii=False),
    "json of PHP": json.dumps(SECRET).replace("/", "\\/"),
    "shell": shlex.quote(SECRET),
    "shell trace": "'" + SECRET.replace("'", "'\\''") + "'",
    "double quotes": SECRET.replace('"', '\\"').replace("$", "\\$"),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of user:secret": base64.b64encode(f"admin:{SECRET}".encode()).decode(),
    "base64 of ab:secret": base64.b64encode(f"ab:{SECRET}:x".encode()).decode(),
    "base64 of a:secret": base64.b64encode(f"a:{SECRET}:xy".encode()).decode(),
    "base64, urlsafe": base64.urlsafe_b64encode(SECRET.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_masked_in_every_form_at_every_cut(form: str) -> None:
    mask = Masker([Secret(SECRET)])
    data = f"value={FORMS[form]}; and more\n".encode()
    whole = lines_of(data, mask=mask)
    assert "***" in whole[0]
    assert whole[0].endswith("; and more")
    # What may be left are characters of base64 that the secret fills only in part.
    assert len(whole[0].replace("value=", "").replace("; and more", "").replace("***", "")) <= 12
    for cut in range(len(data)):
        assert lines_of(data, cuts=[cut], mask=mask) == whole


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    lines = lines_of(f"key:\n{PEM}end\nabcdef\n".encode())
    assert lines == ["key:", "***", "***", "***", "***", "***", "end", "abcdef"]


def test_a_secret_with_colours_in_it_is_masked() -> None:
    assert lines_of(b"pass: hunt\x1b[1mer2\x1b[0m-hunter2 ok\n", mask=Masker([Secret("hunter2-hunter2")])) == [
        "pass: *** ok"
    ]


def test_longer_secrets_first_and_short_ones_not_at_all() -> None:
    mask = Masker([Secret("secret1"), Secret("secret1-and-more"), Secret("abc"), Secret("")])
    assert mask.mask_text("secret1-and-more secret1 abc") == "*** *** abc"


def test_a_secret_at_the_cut_of_an_overlong_line_is_not_shown_in_part() -> None:
    secret = "0123456789abcdef" * 4
    data = (secret * (RAW_LINE_BYTES // 64 + 1))[10:].encode()
    (line,) = lines_of(b"x" * 10 + data, mask=Masker([Secret(secret)]))
    assert "0123456789abcdef0123456789abcdef" not in line.removeprefix("x" * 10)[60:]


def test_line_ends_and_progress_bars() -> None:
    assert lines_of(b"a\nb\r\nc\rd\r\r\n\ne") == ["a", "b", "c", "d", "", "", "e"]


def test_what_is_not_text() -> None:
    data = b"\xff\xfe\0tab\tstays \x1b[1;31mred\x1b[0m \x1b]0;title\x07bell\x07 \xc2\x9b31m\xe2\x80\xae<script>\n"
    assert lines_of(data) == ["\ufffd\ufffdtab\tstays red bell <script>"]


def test_an_open_title_ends_with_its_line() -> None:
    assert lines_of(b"a\x1b]0;never closed\nnext\n") == ["a", "next"]


def test_an_overlong_line_is_cut_on_a_character_and_the_rest_dropped() -> None:
    lines = lines_of("ж".encode() * 100_000 + b"\nnext\n")
    assert lines[1:] == ["next"]
    assert lines[0].endswith("ж" + TRUNCATED)
    assert LINE_BYTES - 2 < len(lines[0].encode()) <= LINE_BYTES


def test_a_line_without_an_end_takes_no_memory() -> None:
    pipeline, chunk = OutputPipeline(masker()), b"z" * 65536
    tracemalloc.start()
    for _ in range(512):
        assert pipeline.feed(chunk) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024**2
    assert [line[-12:] for line in pipeline.feed(b"\n!\n")] == [TRUNCATED, "!"]
    assert pipeline.offset == 512 * 65536 + 3
