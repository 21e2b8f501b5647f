"""The published descriptions, answered: every call as reflection and OpenAPI describe it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from classification import ultralytics
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from models import WEIGHTS, matmul_model, string_model
from serving import Served, serving

from trtinfer.server.http.page import PATHS

MESSAGES = 100  # of each call
DEEPEST = 4
LIKELY = ["", "m", "x", "1"]
WORDS = ["y", "2", "FP32", "BYTES", "OFF", "TIMESTAMPS", "-1", "trace_level", "log_info", "timeout"]
WORDS += ["classification", "shared_memory_region", "\0", "ß" * 300]
INTEGERS = [0, 1, 2, 16, 256, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1]
SIGNED = [*INTEGERS, -1, -256, -(2**31), -(2**63)]
FLOATS = [0.0, -1.5, 3e38, float("inf"), float("nan")]
BYTES = [b"", b"\0", bytes(4), bytes(64), bytes(1024), bytes(2048), b"\xff" * 9]
#: A call may end with one of these; INTERNAL and UNKNOWN would be errors of the server.
CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "PERMISSION_DENIED"}

X = {"name": "x", "datatype": "FP32", "shape": [1, 256], "data": [0.5] * 256}

# A body that fits the document need not fit the model, and a model may be unloaded: no failures.
SCHEMATHESIS = """
[checks]
positive_data_acceptance.enabled = false
not_a_server_error.expected-statuses = ["2xx", "4xx", "503"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    models = {"m": matmul_model(), "strings": string_model(), "colors": ultralytics()}
    with serving(
        models,
        folder,
        grpc_port=0,
        allow_shared_memory=True,
        allow_repository_control=True,
        trace_file=str(folder / "trace.json"),
    ) as served:
        yield served


# --- gRPC -----------------------------------------------------------------------------------------


class Reflected:
    """A service as the server itself describes it."""

    def __init__(self, channel: grpc.Channel, name: str) -> None:
        self.channel = channel
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.service: ServiceDescriptor = pool.FindServiceByName(name)

    def call(self, method: Any, requests: list[Any]) -> set[str]:
        """Sends messages, in a stream or one by one; returns the names of the codes."""
        make = self.channel.stream_stream if method.client_streaming else self.channel.unary_unary
        answer = message_factory.GetMessageClass(method.output_type)
        call = make(
            f"/{self.service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        if method.client_streaming:
            return {self._code(lambda: list(call(iter(requests), timeout=30)))}
        return {self._code(lambda r=r: call(r, timeout=30)) for r in requests}

    @staticmethod
    def _code(call: Callable[[], object]) -> str:
        try:
            call()
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def generated(random_: random.Random, descriptor: Any, depth: int = 0) -> Any:
    """A message with some of its fields set, to what a client could send."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if depth < DEEPEST and random_.random() < 0.7:
            fill(random_, message, field, depth)
    return message


def fill(random_: random.Random, message: Any, field: FieldDescriptor, depth: int) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, kind = entry.fields_by_name["key"], entry.fields_by_name["value"]
        there = getattr(message, field.name)[value(random_, key, depth)]
        if kind.message_type is not None:
            there.CopyFrom(generated(random_, kind.message_type, depth + 1))
    elif field.is_repeated:
        values = [value(random_, field, depth) for _ in range(random_.randrange(3))]
        getattr(message, field.name).extend(values)
    elif entry is not None:
        getattr(message, field.name).CopyFrom(value(random_, field, depth))
    else:
        setattr(message, field.name, value(random_, field, depth))


def value(random_: random.Random, field: FieldDescriptor, depth: int) -> Any:
    if field.message_type is not None:
        return generated(random_, field.message_type, depth + 1)
    if field.enum_type is not None:
        return random_.choice(field.enum_type.values).number
    choices: dict[int, list[Any]] = {
        FieldDescriptor.CPPTYPE_BOOL: [False, True],
        FieldDescriptor.CPPTYPE_INT32: [n for n in SIGNED if -(2**31) <= n < 2**31],
        FieldDescriptor.CPPTYPE_INT64: [n for n in SIGNED if n < 2**63],
        FieldDescriptor.CPPTYPE_UINT32: [n for n in INTEGERS if n < 2**32],
        FieldDescriptor.CPPTYPE_UINT64: INTEGERS,
        FieldDescriptor.CPPTYPE_FLOAT: FLOATS,
        FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
    }
    if field.cpp_type in choices:
        return random_.choice(choices[field.cpp_type])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random_.choice(BYTES)
    return random_.choice(LIKELY if random_.random() < 0.6 else WORDS)


def test_every_reflected_call_answers_generated_messages(served: Served) -> None:
    codes: dict[str, set[str]] = {}
    with grpc.insecure_channel(served.grpc_address) as channel:
        for name in ("inference.GRPCInferenceService", "grpc.health.v1.Health"):
            reflected = Reflected(channel, name)
            for method in reflected.service.methods:
                if method.server_streaming and not method.client_streaming:
                    continue  # Health.Watch never ends
                random_ = random.Random(method.name)
                requests = [generated(random_, method.input_type) for _ in range(MESSAGES)]
                served.ask_json("POST", "/v2/repository/models/m/load")  # it may be unloaded
                codes[method.name] = reflected.call(method, requests)
    assert len(codes) > 20
    assert set().union(*codes.values()) <= CODES, codes
    without_ok = {name for name, found in codes.items() if "OK" not in found}
    never = {"SystemSharedMemoryRegister", "CudaSharedMemoryRegister", "ModelInfer"}
    assert without_ok <= never, "generated messages should reach beyond the refusals"
    assert_still_answers(served)


def assert_still_answers(served: Served) -> None:
    served.ask_json("POST", "/v2/repository/models/m/load")
    x = np.ones(256, np.float32)
    raw = {"Inference-Header-Content-Length": "0"}
    status, body, _ = served.ask("POST", "/v2/models/m/infer", x.tobytes(), raw)
    assert status == 200
    np.testing.assert_allclose(np.frombuffer(body[-64:], np.float32), x @ WEIGHTS, rtol=1e-3)


# --- HTTP -----------------------------------------------------------------------------------------


def test_the_document_describes_every_route(served: Served) -> None:
    """All but the page's."""
    status, document = served.ask_json("GET", "/openapi.json")
    assert status == 200
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method != "parameters"
    }
    application = served.server._connections.application
    routes = {
        (method.decode(), "/".join(parts)) for method, parts, *_ in application._routes._patterns
    }
    assert described == routes - {("GET", path.decode()) for path in PATHS}


def test_schemathesis_finds_nothing(served: Served, tmp_path: Path) -> None:
    """Its own process, since its requests would be slow on this one's lock."""
    _, document = served.ask_json("GET", "/openapi.json")
    for path, operations in document["paths"].items():
        if path.endswith("/infer"):
            content = operations["post"]["requestBody"]["content"]
            content["application/json"]["example"] = {"inputs": [X], "outputs": [{"name": "y"}]}
        for parameter in operations.get("parameters", []):
            if "/models/" in path and parameter["name"] == "name":
                name = "m" if not path.endswith("/unload") else "strings"
                parameter["schema"] = {"enum": [name, "nothing"]}
            if parameter["name"] == "version":
                parameter["schema"] = {"enum": ["1", "2"]}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(file)]
    command += ["--url", f"http://{served.address}", "--max-examples", "10", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert_still_answers(served)
