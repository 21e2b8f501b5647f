"""The server over gRPC, spoken to with the messages of tritonclient."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from classification import picture, png, ultralytics
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from models import VERY_BUSY, WEIGHTS, matmul_model, several_model, slow_model, string_model
from serving import Served, serving
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from trtinfer.server.grpc import messages

FOLDER = Path(messages.__file__).parent
X = np.random.default_rng(3).standard_normal((2, 256), dtype=np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = {
        "m": matmul_model(),
        "several": several_model(),
        "strings": string_model(),
        "slow": slow_model(),
        "colors": ultralytics(),
    }
    with serving(models, tmp_path_factory.mktemp("models"), grpc_port=0) as served:
        yield served


@pytest.fixture(scope="module")
def stub(served: Served) -> Iterator[Any]:
    with grpc.insecure_channel(served.grpc_address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(model: str = "m", **changes: Any) -> Any:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [2, 256]}]
    whole = {"model_name": model, "inputs": inputs, "raw_input_contents": [X.tobytes()]}
    return service_pb2.ModelInferRequest(**{**whole, **changes})


def refusal(stub: Any, sent: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(sent, timeout=30)
    return caught.value.code(), caught.value.details()


def test_the_compiled_protocol_is_that_of_the_text(tmp_path: Path) -> None:
    out = tmp_path / "inference.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(FOLDER)]
    subprocess.run([*command, f"--descriptor_set_out={out}", "inference.proto"], check=True)
    again = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    assert again.file[0] == messages.description()


def test_every_field_is_that_of_the_published_protocol() -> None:
    published = descriptor_pb2.FileDescriptorProto()
    for module in (service_pb2, model_config_pb2):
        published.MergeFromString(module.DESCRIPTOR.serialized_pb)
    assert checked_fields(messages.description(), published) > 150
    ours, theirs = messages.description().service[0], published.service[0]
    for method in ours.method:
        (same,) = [other for other in theirs.method if other.name == method.name]
        assert (method.input_type, method.output_type) == (same.input_type, same.output_type)
        assert method.client_streaming == same.client_streaming
    assert len(ours.method) == len(theirs.method)


def checked_fields(ours: Any, theirs: Any) -> int:
    """The number of fields compared, in messages within messages, too."""
    count = 0
    nested = "message_type" if hasattr(ours, "message_type") else "nested_type"
    known = {message.name: message for message in getattr(theirs, nested)}
    for message in getattr(ours, nested):
        other = known[message.name]
        fields = {field.name: field for field in other.field}
        for field in message.field:
            same = fields[field.name]
            assert (field.number, field.type, field.label, field.type_name) == (
                same.number,
                same.type,
                same.label,
                same.type_name,
            ), f"{message.name}.{field.name}"
        count += len(message.field) + checked_fields(message, other)
    enums = {enum.name: enum for enum in theirs.enum_type}
    for enum in ours.enum_type:
        published = [(value.name, value.number) for value in enums[enum.name].value]
        assert [(value.name, value.number) for value in enum.value] == published
    return count


def test_raw_tensors_are_answered(stub: Any) -> None:
    answer = stub.ModelInfer(request(id="7"))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    (y,) = answer.outputs
    assert (y.name, y.datatype, list(y.shape)) == ("y", "FP32", [2, 16])
    rows = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, 16)
    np.testing.assert_allclose(rows, X @ WEIGHTS, rtol=1e-3)


def test_typed_tensors_are_answered(stub: Any) -> None:
    inputs = [
        {
            "name": "a",
            "datatype": "FP32",
            "shape": [1, 4],
            "contents": {"fp32_contents": [1, 2, 3, 4]},
        },
        {
            "name": "b",
            "datatype": "INT64",
            "shape": [1, 2],
            "contents": {"int64_contents": [5, 6]},
        },
    ]
    sent = request("several", inputs=inputs, raw_input_contents=[], outputs=[{"name": "total"}])
    answer = stub.ModelInfer(sent)
    assert [output.name for output in answer.outputs] == ["total"]
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == [11]


def test_text_and_images_travel_as_bytes(stub: Any) -> None:
    inputs = [
        {
            "name": "x",
            "datatype": "BYTES",
            "shape": [1],
            "contents": {"bytes_contents": [b"ab"]},
        }
    ]
    answer = stub.ModelInfer(request("strings", inputs=inputs, raw_input_contents=[]))
    assert answer.raw_output_contents[0] == b"\x02\x00\x00\x00AB"
    image = png(picture("green"))
    inputs[0].update(name="images", contents={"bytes_contents": [image]})
    outputs = [{"name": "answer", "parameters": {"classification": {"int64_param": 1}}}]
    sent = request("colors", inputs=inputs, raw_input_contents=[], outputs=outputs)
    assert stub.ModelInfer(sent).raw_output_contents[0][4:] == b"0.999909:1:green"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_name": "nothing"}, "NOT_FOUND"),
        ({"model_version": "2"}, "NOT_FOUND"),
        ({"inputs": []}, "INVALID_ARGUMENT"),
        ({"raw_input_contents": []}, "INVALID_ARGUMENT"),
        ({"raw_input_contents": [X.tobytes()[:-1]]}, "INVALID_ARGUMENT"),
        ({"raw_input_contents": [X.tobytes(), b""]}, "INVALID_ARGUMENT"),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2, -256]}]},
            "INVALID_ARGUMENT",
        ),
        ({"inputs": [{"name": "x", "datatype": "FP16", "shape": [4, 256]}]}, "INVALID_ARGUMENT"),
        ({"inputs": [{"name": "x", "datatype": "", "shape": [2, 256]}]}, "INVALID_ARGUMENT"),
        ({"inputs": [{"name": "y", "datatype": "FP32", "shape": [2, 256]}]}, "INVALID_ARGUMENT"),
        ({"outputs": [{"name": "z"}]}, "INVALID_ARGUMENT"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "INVALID_ARGUMENT"),
        ({"parameters": {"timeout": {"string_param": "soon"}}}, "INVALID_ARGUMENT"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_a_reason(
    stub: Any, changes: dict[str, Any], code: str
) -> None:
    got, details = refusal(stub, request(**changes))
    assert got.name == code
    assert len(details) > 10


def test_a_stream_answers_in_order_and_survives_failures(stub: Any) -> None:
    sent = [request(id="1"), request("nothing", id="2"), request(id="3"), request("slow", id="4")]
    answers = list(stub.ModelStreamInfer(iter([*sent, request(id="5")])))
    assert [answer.infer_response.id for answer in answers] == ["1", "2", "3", "4", "5"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False, True, False]


def test_a_message_that_cannot_be_read_ends_a_stream_after_what_came_before(served: Served) -> None:
    sent = [request(id="1").SerializeToString(), request("nothing").SerializeToString()]
    answers = []
    with grpc.insecure_channel(served.grpc_address) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as caught:
            answers.extend(call(iter([*sent, b"\xff\xff\xff", sent[0]]), timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "this is no ModelInferRequest" in caught.value.details()
    assert len(answers) == 2


def test_a_deadline_of_the_client_takes_the_request_back(stub: Any, served: Served) -> None:
    def cancelled() -> float:
        text = served.ask("GET", "/metrics")[1].decode()
        label = 'nv_inference_request_failure{model="slow",version="1",reason="CANCELED"} '
        return float(text.split(label)[1].split("\n")[0])

    inputs = [{"name": "x", "datatype": "FP32", "shape": [1]}]
    sent = request("slow", inputs=inputs, raw_input_contents=[np.float32(VERY_BUSY).tobytes()])
    before = cancelled()
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(sent, timeout=0.02)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    end = time.monotonic() + 20
    while cancelled() == before:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("algorithm", grpc.Compression)
def test_messages_are_limited_by_what_they_unpack_to(
    tmp_path: Path, algorithm: grpc.Compression
) -> None:
    limit = 100_000
    models = {"m": matmul_model()}
    with (
        serving(models, tmp_path, grpc_port=0, max_body_bytes=limit) as served,
        grpc.insecure_channel(served.grpc_address) as channel,
    ):
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        padding = "x" * (limit + 1000)
        with pytest.raises(grpc.RpcError) as caught:
            infer(request(id=padding), timeout=30, compression=algorithm)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answer = infer(request(id=padding[:90_000]), timeout=30, compression=algorithm)
        assert len(answer.id) == 90_000


def test_health_is_told_the_standard_way(served: Served) -> None:
    with grpc.insecure_channel(served.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_protocol_can_be_asked_for(served: Served) -> None:
    with grpc.insecure_channel(served.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
        file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        assert file == messages.description()
        assert database.FindFileContainingSymbol("grpc.health.v1.Health").name


def test_a_token_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    with (
        serving({"m": matmul_model()}, tmp_path, grpc_port=0, token="secret") as served,
        grpc.insecure_channel(served.grpc_address) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        assert refusal(stub, request())[0] is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer secret"),)
        assert stub.ModelInfer(request(), metadata=metadata).model_name == "m"
