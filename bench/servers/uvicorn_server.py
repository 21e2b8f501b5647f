"""uvicorn with a bare ASGI application that calls session.run itself, one request at a time."""

from __future__ import annotations

from typing import Any

import uvicorn
from network import Arguments, Network


def make_application(network: Network) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = network.run([network.read(body)])[0].tobytes()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


if __name__ == "__main__":
    arguments = Arguments.read()
    uvicorn.run(
        make_application(Network(arguments.model)),
        port=arguments.http_port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
