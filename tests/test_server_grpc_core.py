"""The server on gRPC's core: handlers of all kinds, and calls that do not end as they should."""

from __future__ import annotations

import asyncio
import logging
import threading
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from models import matmul_model
from serving import serving

from trtinfer.server.grpc import core_call, core_server
from trtinfer.server.grpc.core_server import CoreServer
from trtinfer.server.grpc.messages import message

MOST = 8  # calls at a time
SECOND = 1.0


class Handlers:
    """What the server of these tests does with a call."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.let_go = asyncio.Event()
        self.ends: list[str] = []

    async def double(self, request: bytes, context: Any) -> bytes:
        return request * 2

    async def metadata(self, request: bytes, context: Any) -> bytes:
        return str(dict(context.invocation_metadata())["word"]).encode()

    async def refuse(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")
        raise AssertionError

    async def fail(self, request: bytes, context: Any) -> bytes:
        raise ValueError("a handler's own fault")

    async def hold(self, request: bytes, context: Any) -> bytes:
        self.held.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        self.ends.append("answered")
        return request

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for i in range(int(request)):
            yield b"%d" % i

    async def write(self, request: bytes, context: Any) -> None:
        for i in range(int(request)):
            await context.write(b"%d" % i)

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    def finder(self) -> grpc.GenericRpcHandler:
        unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            **{name: unary(getattr(self, name)) for name in ("double", "metadata", "refuse")},
            **{name: unary(getattr(self, name)) for name in ("fail", "hold")},
            **{name: streaming(getattr(self, name)) for name in ("count", "write")},
            "echo": grpc.stream_stream_rpc_method_handler(self.echo),
        }
        return grpc.method_handlers_generic_handler("test", handlers)


def call(channel: grpc.aio.Channel, method: str) -> Callable[..., Awaitable[bytes]]:
    """A caller of a method with one request and one response."""
    caller: Callable[..., Awaitable[bytes]] = channel.unary_unary(f"/test/{method}")
    return caller


def run(
    main: Callable[[grpc.aio.Channel, Handlers, CoreServer], Awaitable[None]], stop: bool = True
) -> None:
    """Runs a test beside a server, which must end as it should; `stop`: not by the test."""

    async def whole() -> None:
        handlers, server = Handlers(), CoreServer((), MOST)
        server.add_generic_rpc_handlers((handlers.finder(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await main(channel, handlers, server)
        if stop:
            await server.stop(SECOND)
        assert not server._calls

    before = threading.active_count()
    asyncio.run(asyncio.wait_for(whole(), 60))
    assert threading.active_count() <= before + 1  # grpc.aio's own, of the client


async def status(answer: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value.code(), str(caught.value.details())


def test_answers_many_calls_at_a_time() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        double = call(channel, "double")
        for turn in range(300):
            words = [b"%d" % (turn * MOST + i) for i in range(MOST)]
            answers = await asyncio.gather(*(double(word) for word in words))
            assert answers == [word * 2 for word in words]

    run(main)


def test_messages_may_be_empty_and_large() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        for size in (0, 1, 1_000_000):
            assert await call(channel, "double")(b"x" * size) == b"x" * (2 * size)

    run(main)


def test_handlers_see_metadata() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        assert await call(channel, "metadata")(b"", metadata=(("word", "heard"),)) == b"heard"

    run(main)


@pytest.mark.parametrize("method", ["count", "write"])
def test_streams_responses(method: str) -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        for count in (0, 3, 500):
            answers = channel.unary_stream(f"/test/{method}")(b"%d" % count)
            assert [int(answer) async for answer in answers] == list(range(count))

    run(main)


def test_streams_both_ways() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        echo = channel.stream_stream("/test/echo")()
        for i in range(100):  # each waits for the one before
            await echo.write(b"%d" % i)
            assert await echo.read() == b"%d" % i
        await echo.done_writing()
        assert await echo.read() is grpc.aio.EOF
        assert await echo.code() is grpc.StatusCode.OK

    run(main)


def test_says_what_went_wrong(caplog: pytest.LogCaptureFixture) -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        ended = await status(call(channel, "refuse")(b""))
        assert ended == (grpc.StatusCode.FAILED_PRECONDITION, "not today")
        ended = await status(call(channel, "fail")(b""))
        assert ended == (grpc.StatusCode.UNKNOWN, "ValueError: a handler's own fault")
        code, _ = await status(call(channel, "nothing")(b""))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        no_request = channel.stream_unary("/test/double")(iter(()))
        code, details = await status(no_request)
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "exactly one request" in details
        assert await call(channel, "double")(b"x") == b"xx"  # all others are served

    run(main)
    assert [record.message for record in caplog.records] == ["a handler of a gRPC call failed"]


def test_a_client_that_leaves_ends_the_handler() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        left = asyncio.ensure_future(call(channel, "hold")(b""))
        await handlers.held.wait()
        left.cancel()
        late = call(channel, "hold")(b"", timeout=0.05)
        assert (await status(late))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        echo = channel.stream_stream("/test/echo")()
        await echo.write(b"x")
        assert await echo.read() == b"x"
        echo.cancel()
        while handlers.ends != ["cancelled"] * 2 or server._calls:
            await asyncio.sleep(0.01)

    run(main)


def test_calls_beyond_the_limit_are_refused() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        hold = call(channel, "hold")
        held = [asyncio.ensure_future(hold(b"x")) for _ in range(MOST)]
        while len(server._calls) < MOST:
            await asyncio.sleep(0.01)
        code, details = await status(call(channel, "double")(b""))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "8 calls are under way" in details
        handlers.let_go.set()
        assert await asyncio.gather(*held) == [b"x"] * MOST
        assert await call(channel, "double")(b"x") == b"xx"

    run(main)


def test_stop_waits_for_calls_and_refuses_new_ones() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        held = asyncio.ensure_future(call(channel, "hold")(b"x"))
        await handlers.held.wait()
        stop = asyncio.ensure_future(server.stop(30))
        while (await status(call(channel, "double")(b"")))[0] is not grpc.StatusCode.UNAVAILABLE:
            await asyncio.sleep(0.01)
        assert not stop.done()
        handlers.let_go.set()
        assert await held == b"x"
        await stop

    run(main, stop=False)


def test_stop_cancels_what_takes_too_long() -> None:
    async def main(channel: grpc.aio.Channel, handlers: Handlers, server: CoreServer) -> None:
        held = asyncio.ensure_future(call(channel, "hold")(b"x"))
        await handlers.held.wait()
        await server.stop(0.05)
        assert (await status(held))[0] in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        assert handlers.ends == ["cancelled"]

    run(main, stop=False)


# --- Another core --------------------------------------------------------------------------------


def test_this_core_works() -> None:
    assert asyncio.run(core_server.works())


@pytest.mark.parametrize("missing", ["SendMessageOperation", "SendStatusFromServerOperation"])
def test_another_core_leaves_calls_to_grpc_aio(
    missing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: value for name, value in vars(core_call.cygrpc).items() if name != missing}
    monkeypatch.setattr(core_call, "cygrpc", types.SimpleNamespace(**known))
    monkeypatch.setattr(core_server, "_PATIENCE", 0.2)
    request, response = message("ServerLiveRequest"), message("ServerLiveResponse")
    with (
        caplog.at_level(logging.WARNING, "trtinfer"),
        serving({"m": matmul_model()}, tmp_path, grpc_port=0) as served,
        grpc.insecure_channel(served.grpc_address) as channel,
    ):
        live = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive",
            request.SerializeToString,
            response.FromString,
        )
        assert live(request()).live
    assert "has another core" in caplog.text
