"""Triton's own clients work unchanged: HTTP and gRPC, blocking and asyncio."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from classification import COLORS, picture, png, ultralytics
from models import BUSY, VERY_BUSY, WEIGHTS, matmul_model, slow_model, string_model
from serving import Served, serving
from tritonclient.utils import InferenceServerException, shared_memory

X = np.random.default_rng(3).standard_normal((2, 256), dtype=np.float32)
MODULES = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = {
        "m": matmul_model(),
        "strings": string_model(),
        "slow": slow_model(),
        "colors": ultralytics(),
    }
    with serving(
        models,
        tmp_path_factory.mktemp("models"),
        grpc_port=0,
        allow_shared_memory=True,
        allow_repository_control=True,
        model_options={"session_options": {"max_batch_size": 8, "max_inflight": 1}},
    ) as served:
        yield served


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(served: Served, protocol: str) -> Iterator[Any]:
    address = served.address if protocol == "http" else served.grpc_address
    with MODULES[protocol].InferenceServerClient(address) as client:
        yield client


def tensor(module: Any, name: str, array: Any, datatype: str) -> Any:
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def x_input(module: Any, **options: Any) -> Any:
    made = module.InferInput("x", [2, 256], "FP32")
    made.set_data_from_numpy(X, **options)
    return made


def number(module: Any, value: float) -> Any:
    return tensor(module, "x", np.array([value], np.float32), "FP32")


def check(answer: Any) -> None:
    np.testing.assert_allclose(answer.as_numpy("y"), X @ WEIGHTS, rtol=1e-3)


def plain(answer: Any) -> Any:
    """gRPC's messages and HTTP's documents as the same dicts."""
    from google.protobuf.json_format import MessageToDict

    is_message = hasattr(answer, "DESCRIPTOR")
    return MessageToDict(answer, preserving_proto_field_name=True) if is_message else answer


def test_health_and_descriptions(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("nothing")
    assert plain(client.get_server_metadata())["name"] == "trtinfer"
    described = plain(client.get_model_metadata("m"))
    assert described["inputs"][0]["datatype"] == "FP32"
    config = plain(client.get_model_config("m"))
    config = config.get("config", config)
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    stats = plain(client.get_inference_statistics("m"))["model_stats"][0]
    assert stats["name"] == "m"
    assert len(plain(client.get_inference_statistics())["model_stats"]) == 4


def test_inference_without_options(client: Any, protocol: str) -> None:
    check(client.infer("m", [x_input(MODULES[protocol])]))
    check(client.infer("m", [x_input(MODULES[protocol])], model_version="1", request_id="7"))


def test_json_and_binary_tensors_over_http(served: Served) -> None:
    module = tritonclient.http
    with module.InferenceServerClient(served.address) as client:
        for binary_in in (True, False):
            for binary_out in (True, False):
                outputs = [module.InferRequestedOutput("y", binary_data=binary_out)]
                check(client.infer("m", [x_input(module, binary_data=binary_in)], outputs=outputs))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Any, protocol: str, algorithm: str) -> None:
    if protocol == "grpc":
        options = {"compression_algorithm": algorithm}
    else:
        options = {
            "request_compression_algorithm": algorithm,
            "response_compression_algorithm": algorithm,
        }
    check(client.infer("m", [x_input(MODULES[protocol])], **options))


def test_many_requests_at_a_time(served: Served, protocol: str) -> None:
    module = MODULES[protocol]
    if protocol == "http":
        with module.InferenceServerClient(served.address, concurrency=8) as client:
            requests = [client.async_infer("m", [x_input(module)]) for _ in range(50)]
            for request in requests:
                check(request.get_result())
        return
    answers: queue.Queue[Any] = queue.Queue()
    with module.InferenceServerClient(served.grpc_address) as client:
        for _ in range(50):
            callback = lambda result, error: answers.put((result, error))  # noqa: E731
            client.async_infer("m", [x_input(module)], callback)
        for _ in range(50):
            result, error = answers.get(timeout=30)
            assert error is None
            check(result)


def test_asyncio_clients(served: Served, protocol: str) -> None:
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    address = served.address if protocol == "http" else served.grpc_address

    async def run() -> None:
        async with module.aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            requests = [client.infer("m", [x_input(module)]) for _ in range(20)]
            for answer in await asyncio.gather(*requests):
                check(answer)

    asyncio.run(run())


def test_streaming(served: Served) -> None:
    module = tritonclient.grpc
    answers: queue.Queue[Any] = queue.Queue()
    with module.InferenceServerClient(served.grpc_address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number_ in range(20):
            client.async_stream_infer("m", [x_input(module)], request_id=str(number_))
        for number_ in range(20):
            result, error = answers.get(timeout=30)
            assert error is None
            assert result.get_response().id == str(number_)
            check(result)
        client.stop_stream()


def test_a_call_can_be_cancelled(served: Served) -> None:
    module = tritonclient.grpc
    answers: queue.Queue[Any] = queue.Queue()
    with module.InferenceServerClient(served.grpc_address) as client:
        call = client.async_infer(
            "slow", [number(module, VERY_BUSY)], lambda result, error: answers.put(error)
        )
        call.cancel()
        assert "CANCELLED" in str(answers.get(timeout=30))


def test_a_client_timeout_ends_the_wait(served: Served) -> None:
    module = tritonclient.grpc
    with module.InferenceServerClient(served.grpc_address) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("slow", [number(module, VERY_BUSY)], client_timeout=0.02)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_a_timeout_in_the_queue_is_unavailable(served: Served, client: Any, protocol: str) -> None:
    """The timeout parameter is in microseconds and counts from arrival."""
    module = MODULES[protocol]
    status = {"http": "503", "grpc": "StatusCode.UNAVAILABLE"}[protocol]
    with tritonclient.grpc.InferenceServerClient(served.grpc_address) as other:
        done: queue.Queue[Any] = queue.Queue()
        other.async_infer(
            "slow",
            [number(tritonclient.grpc, VERY_BUSY)],
            lambda result, error: done.put(error),
        )

        def ask_until_one_waits() -> None:
            for _ in range(100):
                client.infer("slow", [number(module, BUSY)], timeout=100)

        with pytest.raises(InferenceServerException) as caught:
            ask_until_one_waits()
        assert caught.value.status() == status
        assert done.get(timeout=30) is None


def test_top_classes(client: Any, protocol: str) -> None:
    module = MODULES[protocol]
    images = np.array([[png(picture(color))] for color in COLORS], dtype=np.object_)
    outputs = [module.InferRequestedOutput("answer", class_count=2)]
    answer = client.infer("colors", [tensor(module, "images", images, "BYTES")], outputs=outputs)
    rows = answer.as_numpy("answer")
    assert rows.shape == (3, 2)
    assert [row[0].decode().split(":")[2] for row in rows] == list(COLORS)


def test_text(client: Any, protocol: str) -> None:
    text = np.array([b"ab", "straße".encode()], dtype=np.object_)
    answer = client.infer("strings", [tensor(MODULES[protocol], "x", text, "BYTES")])
    assert answer.as_numpy("y")[0] == b"AB"


def test_system_shared_memory(client: Any, protocol: str) -> None:
    module = MODULES[protocol]
    name = f"trtinfer_test_{protocol}"
    handle = shared_memory.create_shared_memory_region(name, f"/{name}", 4096)
    try:
        shared_memory.set_shared_memory_region(handle, [X])
        client.register_system_shared_memory(name, f"/{name}", 4096)
        assert name in str(client.get_system_shared_memory_status())
        sent = module.InferInput("x", [2, 256], "FP32")
        sent.set_shared_memory(name, X.nbytes)
        wanted = module.InferRequestedOutput("y")
        wanted.set_shared_memory(name, 128, offset=2048)
        client.infer("m", [sent], outputs=[wanted])
        y = shared_memory.get_contents_as_numpy(handle, np.float32, [2, 16], offset=2048)
        np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-3)
        sent.set_shared_memory(name, X.nbytes, offset=4000)
        with pytest.raises(InferenceServerException, match="not within"):
            client.infer("m", [sent])
        client.unregister_system_shared_memory(name)
        client.unregister_cuda_shared_memory()
        sent.set_shared_memory(name, X.nbytes)
        with pytest.raises(InferenceServerException, match="not registered"):
            client.infer("m", [sent])
    finally:
        shared_memory.destroy_shared_memory_region(handle)


@pytest.mark.parametrize("key", ["/../etc/passwd", "..", "/", "", "a/b", "/nothing_of_this_name"])
def test_only_shared_memory_can_be_registered(client: Any, key: str) -> None:
    with pytest.raises(InferenceServerException):
        client.register_system_shared_memory("region", key, 100)


def test_models_are_unloaded_and_loaded(client: Any, protocol: str) -> None:
    module = MODULES[protocol]
    client.unload_model("m")
    assert not client.is_model_ready("m")
    assert client.is_server_ready()
    with pytest.raises(InferenceServerException, match="unloaded"):
        client.infer("m", [x_input(module)])
    index = plain(client.get_model_repository_index())
    models = index["models"] if protocol == "grpc" else index
    states = {model["name"]: model["state"] for model in models}
    assert states["m"] == "UNAVAILABLE"
    assert states["slow"] == "READY"
    client.load_model("m")
    check(client.infer("m", [x_input(module)]))


def test_settings(client: Any) -> None:
    assert plain(client.get_log_settings())
    client.update_log_settings({"log_verbose_level": 0})
    assert "OFF" in str(client.get_trace_settings())
    client.update_trace_settings(settings={"trace_level": ["OFF"]})
    with pytest.raises(InferenceServerException, match="--trace-file"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})


def test_errors_have_tritons_status(client: Any, protocol: str) -> None:
    module = MODULES[protocol]

    def status(model: str, inputs: list[Any], **options: Any) -> str:
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, inputs, **options)
        return str(caught.value.status()).removeprefix("StatusCode.")

    bad = {"http": "400", "grpc": "INVALID_ARGUMENT"}[protocol]
    missing = {"http": "404", "grpc": "NOT_FOUND"}[protocol]
    assert status("nothing", [x_input(module)]) == missing
    assert status("m", [x_input(module)], model_version="2") == missing
    assert status("m", []) == bad
    assert status("m", [tensor(module, "x", X.astype(np.float64), "FP64")]) == bad
    assert status("m", [tensor(module, "x", X[:, :9], "FP32")]) == bad
    assert status("m", [tensor(module, "x", np.tile(X, (5, 1)), "FP32")]) == bad
    assert status("m", [tensor(module, "z", X, "FP32")]) == bad
    outputs = [module.InferRequestedOutput("z")]
    assert status("m", [x_input(module)], outputs=outputs) == bad
