"""Requests whose head is the one before it are read as by the parser."""

from __future__ import annotations

import itertools
import random

import pytest

pytest.importorskip("httptools", reason="the server's packages are not installed")

from trtinfer.server.errors import UnavailableError
from trtinfer.server.http.message import Head, Request
from trtinfer.server.http.reader import RequestReader
from trtinfer.server.options import ServerOptions

SCRATCH = 64 << 10


class Untraced:
    active = False


class Taker:
    """Notes what a reader tells it."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.held = 0

    def take(self, request: Request) -> None:
        known = request.method, request.path, request.query, dict(request.headers)
        self.told.append((*known, bytes(request.body), request.keep_alive))

    def expect(self) -> None:
        self.told.append("expect")

    def claim(self, head: Head, part: memoryview) -> None:
        pass

    def hold(self, size: int) -> None:
        self.held += size

    def refuse(self, status: int, reason: str) -> None:
        self.told.append(status)


def new_reader() -> tuple[RequestReader, Taker]:
    taker = Taker()
    scratch = memoryview(bytearray(SCRATCH))
    return RequestReader(taker, ServerOptions(), Untraced(), scratch), taker


def feed(reader: RequestReader, data: bytes) -> None:
    while data:
        size = min(len(data), len(reader.room))
        reader.room[:size] = data[:size]
        data = data[size:]
        reader.received(size)


def post(body: bytes, *headers: str, target: str = "/infer") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def as_told(reads: list[bytes]) -> list[object]:
    """What a reader tells that knows no head again."""
    reader, taker = new_reader()
    reader._repeated.begins = lambda _: False  # type: ignore[method-assign]
    for data in reads:
        feed(reader, data)
    return taker.told


@pytest.fixture
def parsed(monkeypatch):
    """How many requests were parsed."""
    counted = []
    begin = RequestReader.on_message_begin

    def counting(self) -> None:
        counted.append(1)
        begin(self)

    monkeypatch.setattr(RequestReader, "on_message_begin", counting)
    return counted


@pytest.mark.parametrize(
    "request_of",
    [
        post,
        lambda body: post(body, "X-Text: a  b", target="/infer?top_k=1"),
        lambda body: b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda body: post(body * 30_000),  # of which the end is not parsed
    ],
)
def test_an_equal_head_is_parsed_once(parsed, request_of):
    reader, taker = new_reader()
    sent = [request_of(body) for body in (b"first", b"\r\n\r\n.", b"third")]
    for data in sent:
        feed(reader, data)
    assert len(parsed) == 1
    assert taker.told == as_told(sent)
    assert taker.held == sum(len(told[4]) for told in taker.told)


def test_heads_that_differ_are_parsed_each(parsed):
    reader, taker = new_reader()
    sent = [post(b"body", f"X-Number: {number}") for number in range(10)]
    for data in sent:
        feed(reader, data)
    assert len(parsed) == 10
    assert [told[3][b"x-number"] for told in taker.told] == [b"%d" % i for i in range(10)]


def test_two_heads_in_turns_do_not_displace_each_other(parsed):
    reader, _ = new_reader()
    for turn in range(20):
        feed(reader, post(b"body", f"X-Number: {turn % 2}"))
    assert len(parsed) == 11


def test_another_head_is_known_after_two(parsed):
    reader, _ = new_reader()
    for number in (1, 2):
        for _ in range(5):
            feed(reader, post(b"body", f"X-Number: {number}"))
    assert len(parsed) == 3


def test_heads_that_always_differ_are_remembered_no_more():
    reader, _ = new_reader()
    for number in range(20):
        feed(reader, post(b"body", f"X-Number: {number}"))
    head = reader._repeated._text
    feed(reader, post(b"body", "X-Number: 99"))
    assert reader._repeated._text == head


@pytest.mark.parametrize(
    "first",
    [
        post(b"abcd", "Connection: close"),
        post(b"abcd", "Expect: 100-continue"),
        b"POST /infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        post(b"ab\r\n") + b"\r\n",  # ends of lines between requests
        b"\r\n" + post(b"abcd"),
        post(b"abcd") + post(b"abcd"),
        post(b"abcd")[:-2],
        post(b"")[:-2],
    ],
)
def test_what_is_no_plain_request_is_not_remembered(first):
    reader, _ = new_reader()
    feed(reader, first)
    # The parser skips ends of lines before each request.
    assert reader._repeated.size == (len(first) - 4 if first.startswith(b"\r\n") else 0)


def test_the_memory_of_all_bodies_is_counted():
    class Full(Taker):
        def hold(self, size: int) -> None:
            super().hold(size)
            if self.held > 10:
                raise UnavailableError("too much")

    reader, _ = new_reader()
    taker = reader._taker = Full()
    for _ in range(3):
        feed(reader, post(b"12345"))
    assert [told if isinstance(told, int) else told[4] for told in taker.told] == [
        b"12345",
        b"12345",
        503,
    ]
    assert reader.closed


def test_any_requests_in_any_pieces_are_read_as_by_the_parser():
    """Bodies that look like ends of heads, heads that end in other ways, pieces of any size."""
    chance = random.Random(0)
    bodies = [b"", b"\r\n\r\n", b"\n\n", b"ab\r\n\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 300]
    bodies += [b"long" * 40_000, b"other" * 40_000]
    headers = [[], ["X: 1"], ["X: 2"], ["X:  1"], ["Connection: keep-alive"]]
    between = [b"", b"", b"", b"\r\n", b"\r\n\r\n"]
    kinds = [
        lambda: post(chance.choice(some), *chance.choice(few)),
        lambda: post(chance.choice(some), *chance.choice(few)).replace(b"\r\n", b"\n", 3),
        lambda: b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ]
    known = 0
    for _ in range(4000):
        weight = [10] * (len(bodies) - 2) + [1, 1]
        some, few = chance.choices(bodies, weight, k=2), chance.choices(headers, k=2)
        weights = chance.choice([(9, 1, 1, 1), (1, 0, 0, 0), (1, 0, 1, 0)])
        sent = [
            chance.choices(kinds, weights)[0]() + chance.choice(between)
            for _ in range(chance.randrange(2, 12))
        ]
        if chance.random() < 0.5:  # each comes by itself, as from clients that wait for answers
            reads = sent
        else:
            stream = b"".join(sent)
            cuts = sorted(chance.choices(range(1, len(stream)), k=chance.randrange(6)))
            reads = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)]) if a < b]
        reader, taker = new_reader()

        def counting(data: memoryview, begins=reader._repeated.begins) -> bool:
            nonlocal known
            found = begins(data)
            known += found
            return found

        reader._repeated.begins = counting  # type: ignore[method-assign]
        for data in reads:
            feed(reader, data)
        assert taker.told == as_told(reads)
    assert known > 1000
