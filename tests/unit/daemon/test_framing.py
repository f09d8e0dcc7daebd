"""Where requests end: any way the bytes come in, the same pieces; and never more than the bound."""

from __future__ import annotations

import contextlib

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.daemon.framing import BadRequest, Framing

LIMIT = 256
HEAD = b"POST /x HTTP/1.1\r\nHost: h\r\n\r\n"


class Parsed:
    """Feeds a real parser with what the framing cuts, as the protocol does."""

    def __init__(self) -> None:
        self.framing = Framing(LIMIT)
        self.parser = httptools.HttpRequestParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self.url = self.body = b""
        self.pieces: list[bytes] = []

    def receive(self, data: bytes) -> None:
        self.framing.add(data)
        while (piece := self.framing.cut()) is not None:
            self.pieces.append(bytes(piece))
            self.parser.feed_data(piece)

    def on_url(self, url: bytes) -> None:
        self.url, self.body, self.headers = url, b"", []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        found = dict(self.headers)
        chunked = b"transfer-encoding" in found
        self.framing.begin(int(found.get(b"content-length", 0)), chunked=chunked)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.framing.end()
        self.requests.append((self.url, self.body))


@st.composite
def _request(draw: st.DrawFn) -> tuple[bytes, tuple[bytes, bytes]]:
    url = b"/" + draw(st.text("abc/?=%20", max_size=9)).encode()
    body = draw(
        st.binary(max_size=300) | st.sampled_from([b"GET / HTTP/1.1\r\n\r\n", b"\r\n0\r\n"])
    )
    head = b"POST " + url + b" HTTP/1.1\r\nHost: h\r\n"
    if not draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, (url, body)
    raw = head + b"Transfer-Encoding: chunked\r\n\r\n"
    rest = body
    while rest:
        size = draw(st.integers(1, len(rest)))
        raw += b"%x" % size + draw(st.sampled_from([b"", b";ext=1"])) + b"\r\n"
        raw += rest[:size] + b"\r\n"
        rest = rest[size:]
    raw += b"0\r\n" + draw(st.sampled_from([b"", b"Trailer: t\r\n"])) + b"\r\n"
    return raw, (url, body)


@given(st.lists(_request(), max_size=4), st.data())
def test_however_the_bytes_come_the_same_requests_are_found(
    sent: list[tuple[bytes, tuple[bytes, bytes]]], data: st.DataObject
) -> None:
    raw = b"".join(each for each, _expected in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    parsed = Parsed()
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        parsed.receive(raw[start:end])
    assert parsed.requests == [expected for _raw, expected in sent]
    assert b"".join(parsed.pieces) == raw
    assert parsed.framing.between
    assert not parsed.framing.waiting


@given(st.lists(st.binary(max_size=40) | st.sampled_from([HEAD, b"\r\n", b"0"]), max_size=12))
def test_any_bytes_are_cut_or_refused(pieces: list[bytes]) -> None:
    parsed = Parsed()
    try:
        for piece in [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", *pieces]:
            parsed.receive(piece)
    except (BadRequest, httptools.HttpParserError):
        return
    assert all(len(piece) <= LIMIT for piece in parsed.pieces if piece.startswith(b"POST"))


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    "before",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET /",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
    ids=["header", "target", "chunk", "trailer"],
)
def test_a_line_without_an_end_is_refused_at_the_bound_however_it_comes(
    before: bytes, step: int
) -> None:
    parsed = Parsed()
    parsed.receive(before)
    fed = len(parsed.pieces)
    received = 0
    with contextlib.suppress(BadRequest):
        while received < LIMIT:
            received += step
            parsed.receive(b"a" * step)
            assert len(parsed.framing._kept) < LIMIT
        pytest.fail("it was not refused")
    assert len(parsed.pieces) == fed, "the parser collects what it is given"


def test_the_bound_is_the_last_size_that_passes() -> None:
    padding = LIMIT - len(HEAD) - len(b"X: \r\n")
    whole = HEAD[:-2] + b"X: " + b"a" * padding + b"\r\n\r\n"
    assert len(whole) == LIMIT
    for step in (1, LIMIT):
        parsed = Parsed()
        for start in range(0, LIMIT, step):
            parsed.receive(whole[start : start + step])
        assert len(parsed.requests) == 1
    with pytest.raises(BadRequest):
        Parsed().receive(whole.replace(b"X: ", b"X: a"))


def test_many_short_trailers_are_too_many_together() -> None:
    parsed = Parsed()
    parsed.receive(HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
    with pytest.raises(BadRequest):
        parsed.receive(b"X: y\r\n" * LIMIT)


def test_each_request_has_its_own_bound_of_trailers() -> None:
    parsed = Parsed()
    one = HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    parsed.receive((one + b"X: y\r\n" * (LIMIT // 8) + b"\r\n") * 3)
    assert len(parsed.requests) == 3


def test_an_offer_of_another_protocol_is_hidden_from_the_parser() -> None:
    parsed = Parsed()
    offer = b"Connection: Upgrade\r\nUPGRADE: h2c\r\nContent-Length: 2\r\n\r\n{}"
    parsed.receive(HEAD[:-2] + offer + HEAD)
    assert parsed.requests == [(b"/x", b"{}"), (b"/x", b"")]


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://h/x HTTP/1.1",
        b"CONNECT h:1 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"OPTIONS / RTSP/1.0",
        b"PRI * HTTP/2.0",
        b"GET / HTTP/2.0",
        b"GET / HTTP/0.9",
        b"GET /",
        b"GET /#x HTTP/1.1",
        b"GET /\xc3\xa4 HTTP/1.1",
        b"GET / x HTTP/1.1",
        b"get / HTTP/1.1",
        b"\r\nGET / HTTP/1.1",
        b"GET / HTTP/1.1\nX: y",
    ],
)
def test_a_request_line_that_is_not_served_never_gets_to_the_parser(line: bytes) -> None:
    parsed = Parsed()
    with pytest.raises(BadRequest):
        parsed.receive(line + b"\r\nHost: h\r\n\r\n")
    assert parsed.pieces == []


def test_a_handshake_of_another_protocol_is_refused_at_its_first_byte() -> None:
    with pytest.raises(BadRequest):
        Parsed().receive(b"\x16")


def test_a_parser_that_disagrees_about_the_end_is_found_out() -> None:
    early, late, twice = Framing(LIMIT), Framing(LIMIT), Framing(LIMIT)
    for framing in (early, late, twice):
        framing.add(HEAD + b"abc" + HEAD)
        assert framing.cut() == HEAD
        framing.begin(3, chunked=False)
    with pytest.raises(BadRequest):
        early.end()
    assert late.cut() == b"abc"
    with pytest.raises(BadRequest):
        late.cut()
    with pytest.raises(BadRequest):
        twice.begin(0, chunked=False)
