"""The events of gRPC's core, taken by an event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from grpc._cython import cygrpc

logger = logging.getLogger("trtinfer")

_AT_A_TIME = 64  # events until others on the loop have their turn
_NOW = 0.0  # a deadline that is over


class CoreEvents:
    """A completion queue of the core. Use it on one event loop.

    The tag of an operation is a function, which is called with the operation's event. The loop
    takes events as long as there are any; a thread only waits for the first after there were none.
    """

    def __init__(self) -> None:
        """Open a queue; nobody takes events yet."""
        self.queue = cygrpc.CompletionQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._wait, name="trtinfer-grpc", daemon=True)
        self._none_left = threading.Lock()  # taken while the loop takes events
        self._none_left.acquire()
        self._closed = False

    def open(self) -> None:
        """Take events on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def start(self, call: Any, operations: tuple[Any, ...], tag: Any) -> bool:
        """Start operations of a call; False: it is too late, the queue is closed."""
        if not self._closed:  # the core would end the process
            call.start_server_batch(operations, tag)
        return not self._closed

    async def close(self) -> None:
        """Take what events are left, then end the thread."""
        self._closed = True
        self.queue.shutdown()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _wait(self) -> None:
        assert self._loop is not None
        while True:
            event = self.queue.poll()
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            try:
                self._loop.call_soon_threadsafe(self._take, event)
            except RuntimeError:
                return  # the loop was closed, and with it the server given up
            self._none_left.acquire()

    def _take(self, event: Any) -> None:
        assert self._loop is not None
        for _ in range(_AT_A_TIME):
            try:
                event.tag(event)
            except Exception:
                logger.exception("an event of gRPC's core was lost")
            event = self.queue.poll(_NOW)
            if event.completion_type != cygrpc.CompletionType.operation_complete:
                self._none_left.release()
                return
        self._loop.call_soon(self._take, event)
