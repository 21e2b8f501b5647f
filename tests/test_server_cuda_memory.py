"""Memory of a GPU that clients share: used where there is one, refused with a reason elsewhere."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classification import COLORS, picture, ultralytics
from gpu import Gpu
from models import WEIGHTS, matmul_model, string_model

from trtinfer import _core

pytest.importorskip("grpc", reason="the server's packages are not installed")
pytest.importorskip("tritonclient", reason="the server's packages are not installed")
from serving import Served, serving
from triton_clients import MODULES, client_of
from tritonclient.utils import InferenceServerException

HANDLE = bytes(range(64))
X = np.random.default_rng(3).standard_normal((2, 256), dtype=np.float32)
SERVE = [sys.executable, "-m", "trtinfer", "serve", "--allow-shared-memory"]
without_gpu = pytest.mark.skipif(not _core.probe_cuda().reason, reason="there is a GPU")


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- Without a GPU, and before one is asked -------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    models = {"m": matmul_model()}
    with serving(models, folder, grpc_port=0, allow_shared_memory=True) as served:
        yield served


def refusal(
    client: Any, handle: bytes = HANDLE, device: int = 0, size: int = 64
) -> tuple[str, str]:
    encoded = base64.b64encode(handle)
    with pytest.raises(InferenceServerException) as caught:
        client.register_cuda_shared_memory("region", encoded, device, size)
    return str(caught.value.status()).removeprefix("StatusCode."), caught.value.message()


@without_gpu
def test_a_machine_without_gpu_refuses_its_memory(served: Served, protocol: str) -> None:
    with client_of(served, protocol) as client:
        status, message = refusal(client)
    assert status == {"http": "400", "grpc": "INVALID_ARGUMENT"}[protocol]
    assert "no GPU" in message


def test_a_gpu_that_the_machine_lacks_is_refused(served: Served, protocol: str) -> None:
    with client_of(served, protocol) as client:
        status, message = refusal(client, device=1000)
    assert status == {"http": "400", "grpc": "INVALID_ARGUMENT"}[protocol]
    assert "GPU 1000" in message


def test_it_is_off_unless_allowed(tmp_path: Path, protocol: str) -> None:
    with (
        serving({"m": matmul_model()}, tmp_path, grpc_port=0) as served,
        client_of(served, protocol) as client,
    ):
        status, message = refusal(client)
    assert status == {"http": "403", "grpc": "PERMISSION_DENIED"}[protocol]
    assert "--allow-shared-memory" in message


def test_unregistering_always_answers(served: Served, protocol: str) -> None:
    with client_of(served, protocol) as client:
        client.unregister_cuda_shared_memory()
        client.unregister_cuda_shared_memory("nothing")
        with pytest.raises(InferenceServerException, match="not registered"):
            client.get_cuda_shared_memory_status("nothing")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"raw_handle": {"b64": "%%%"}, "byte_size": 64},
        {"raw_handle": {"b64": 5}, "byte_size": 64},
        {"raw_handle": "AAAA", "byte_size": 64},
        {"raw_handle": {"b64": base64.b64encode(HANDLE).decode()}, "device_id": -1},
        {"raw_handle": {"b64": base64.b64encode(HANDLE).decode()}, "device_id": "zero"},
    ],
    ids=str,
)
def test_a_registration_that_is_none_is_refused(served: Served, document: dict[str, Any]) -> None:
    path = "/v2/cudasharedmemory/region/r/register"
    status, answer = served.ask_json("POST", path, document)
    assert status == 400
    assert answer["error"]


def test_forgetting_one_kind_of_region_keeps_the_other(served: Served) -> None:
    name = Path("/dev/shm/trtinfer_test_kinds")
    name.write_bytes(bytes(64))
    try:
        with client_of(served, "http") as client:
            client.register_system_shared_memory("region", f"/{name.name}", 64)
            client.unregister_cuda_shared_memory()
            assert client.get_system_shared_memory_status("region")
            assert client.get_cuda_shared_memory_status() == []
            assert "registered already" in refusal(client)[1]
            client.unregister_system_shared_memory()
    finally:
        name.unlink()


# --- On a GPU: the server is another process, since no process opens a handle of its own ---------


@contextlib.contextmanager
def program(folder: Path, protocol: str, backend: str, *models: Path) -> Iterator[Any]:
    """A client of the program."""
    ports = ["--http", "0" if protocol == "http" else "-1"]
    ports += ["--grpc", "0" if protocol == "grpc" else "-1"]
    command = [*SERVE, "--backend", backend, "--max-batch-size", "4", *ports, *map(str, models)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            address = f"127.0.0.1:{line.strip().rpartition(':')[2]}"
            with MODULES[protocol].InferenceServerClient(address) as client:
                yield client
        finally:
            process.terminate()
        assert process.wait(60) == 0, (folder / "log").read_text()


class GpuRegion:
    """Memory of GPU 0 that this process made, as a client does."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.gpu = Gpu()
        self.address = self.gpu.allocate(size)

    @property
    def handle(self) -> bytes:
        """As base64."""
        handle = ctypes.create_string_buffer(64)
        self.gpu.call("cuIpcGetMemHandle", handle, ctypes.c_uint64(self.address))
        return base64.b64encode(handle.raw)

    def put(self, array: np.ndarray, offset: int = 0) -> None:
        self.gpu.write(self.address + offset, array)

    def get(self, array: np.ndarray, offset: int = 0) -> np.ndarray:
        return self.gpu.download(self.address + offset, array)


@pytest.fixture
def region() -> Iterator[GpuRegion]:
    region = GpuRegion(1 << 20)
    yield region
    region.gpu.free(region.address)


def shared_input(module: Any, array: np.ndarray, datatype: str, offset: int = 0) -> Any:
    names = {"FP32": "x", "UINT8": "images", "BYTES": "x"}
    sent = module.InferInput(names[datatype], list(array.shape), datatype)
    sent.set_shared_memory("region", array.nbytes, offset=offset)
    return sent


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_tensors_cross_in_memory_of_the_gpu(
    tmp_path: Path, protocol: str, backend: str, region: GpuRegion
) -> None:
    (tmp_path / "m.onnx").write_bytes(matmul_model())
    module = MODULES[protocol]
    with program(tmp_path, protocol, backend, tmp_path / "m.onnx") as client:
        client.register_cuda_shared_memory("region", region.handle, 0, region.size)
        assert "region" in str(client.get_cuda_shared_memory_status())
        wanted = module.InferRequestedOutput("y")
        wanted.set_shared_memory("region", 128, offset=8192)
        for turn in range(1, 4):  # the memory is read anew each time
            region.put(turn * X, 4096)
            sent = shared_input(module, X, "FP32", 4096)
            client.infer("m", [sent], outputs=[wanted])
            y = region.get(np.empty((2, 16), np.float32), 8192)
            np.testing.assert_allclose(y, turn * X @ WEIGHTS, rtol=2e-2, atol=5e-2)
        answer = client.infer("m", [sent])
        np.testing.assert_allclose(answer.as_numpy("y"), 3 * X @ WEIGHTS, rtol=2e-2, atol=5e-2)
        client.unregister_cuda_shared_memory("region")
        with pytest.raises(InferenceServerException, match="not registered"):
            client.infer("m", [sent])


@pytest.mark.gpu
def test_triton_s_own_helper_makes_regions(tmp_path: Path, protocol: str) -> None:
    memory = pytest.importorskip("tritonclient.utils.cuda_shared_memory")
    (tmp_path / "m.onnx").write_bytes(matmul_model())
    handle = memory.create_shared_memory_region("region", X.nbytes, 0)
    try:
        memory.set_shared_memory_region(handle, [X])
        with program(tmp_path, protocol, "tensorrt", tmp_path / "m.onnx") as client:
            raw = memory.get_raw_handle(handle)
            client.register_cuda_shared_memory("region", raw, 0, X.nbytes)
            answer = client.infer("m", [shared_input(MODULES[protocol], X, "FP32")])
            np.testing.assert_allclose(answer.as_numpy("y"), X @ WEIGHTS, rtol=2e-2, atol=2e-2)
    finally:
        memory.destroy_shared_memory_region(handle)


@pytest.mark.gpu
def test_pixels_and_text_cross_too(tmp_path: Path, protocol: str, region: GpuRegion) -> None:
    (tmp_path / "colors.onnx").write_bytes(ultralytics())
    (tmp_path / "strings.onnx").write_bytes(string_model())
    module = MODULES[protocol]
    pixels = np.ascontiguousarray(np.asarray(picture("green"), np.uint8))
    text = np.frombuffer(b"\x02\x00\x00\x00ab", np.uint8)
    models = [tmp_path / "colors.onnx", tmp_path / "strings.onnx"]
    with program(tmp_path, protocol, "auto", *models) as client:
        client.register_cuda_shared_memory("region", region.handle, 0, region.size)
        for batch in ((), (1,)):
            region.put(pixels)
            sent = shared_input(module, pixels.reshape(*batch, *pixels.shape), "UINT8")
            answer = client.infer("colors", [sent])
            assert COLORS[int(answer.as_numpy("answer").argmax())] == "green"
        region.put(text)
        sent = module.InferInput("x", [1], "BYTES")
        sent.set_shared_memory("region", text.nbytes)
        assert client.infer("strings", [sent]).as_numpy("y")[0] == b"AB"


@pytest.mark.gpu
def test_what_lies_outside_is_refused(tmp_path: Path, protocol: str, region: GpuRegion) -> None:
    (tmp_path / "m.onnx").write_bytes(matmul_model())
    module = MODULES[protocol]
    with program(tmp_path, protocol, "tensorrt", tmp_path / "m.onnx") as client:
        assert "opens nothing" in refusal(client)[1]
        assert "64 bytes" in refusal(client, HANDLE[:10])[1]
        handle = base64.b64decode(region.handle)
        assert "not within" in refusal(client, handle, size=1 << 40)[1]
        assert "not within" in refusal(client, handle, size=0)[1]
        client.register_cuda_shared_memory("region", region.handle, 0, 4096)
        for offset in (2049, 4096, 1 << 40):
            with pytest.raises(InferenceServerException, match="not within"):
                client.infer("m", [shared_input(module, X, "FP32", offset)])
        wrong = module.InferInput("x", [2, 256], "FP32")
        wrong.set_shared_memory("region", 100)
        with pytest.raises(InferenceServerException, match="2048 bytes, 100 were received"):
            client.infer("m", [wrong])
        region.put(X)
        answer = client.infer("m", [shared_input(module, X, "FP32")])
        np.testing.assert_allclose(answer.as_numpy("y"), X @ WEIGHTS, rtol=2e-2, atol=2e-2)
