"""grpc.aio alone: answers the first request with the model, and all others with the same bytes.

What a server that uses it cannot be quicker than.
"""

from __future__ import annotations

import asyncio

import grpc
import uvloop
from network import Arguments, Network

from trtinfer.server.grpc.messages import SERVICE, message

#: Behind the port: each accepts one call at a time; with one, calls cost half as much again.
SERVERS = 8


async def serve(network: Network, port: int) -> None:
    answers: list[bytes] = []

    async def infer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if not answers:
            (body,) = message("ModelInferRequest").FromString(request).raw_input_contents
            elements = network.run([network.read(body)])[0].tobytes()
            response = message("ModelInferResponse")(raw_output_contents=[elements])
            answers.append(response.SerializeToString())
        return answers[0]

    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    servers = [grpc.aio.server(options=[("grpc.so_reuseport", 1)]) for _ in range(SERVERS)]
    for server in servers:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = Arguments.read()
    uvloop.run(serve(Network(arguments.model), arguments.grpc_port))
