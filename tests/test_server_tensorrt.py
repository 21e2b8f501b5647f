"""Sessions on a GPU behind the server: over both protocols, the answers of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from classification import COLORS, picture, png, ultralytics
from models import WEIGHTS, matmul_model

pytest.importorskip("grpc", reason="the server's packages are not installed")
from serving import Served, serving
from tritonclient.grpc import service_pb2, service_pb2_grpc

pytestmark = pytest.mark.gpu

X = np.random.default_rng(3).standard_normal((4, 256), dtype=np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = {"session_options": {"backend": "tensorrt", "max_batch_size": 8}}
    models = {"m": matmul_model(), "colors": ultralytics()}
    folder = tmp_path_factory.mktemp("models")
    with serving(models, folder, grpc_port=0, model_options=options) as served:
        yield served


def test_tensors_over_http(served: Served) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    for row in X:
        status, body, _ = served.ask("POST", "/v2/models/m/infer", row.tobytes(), headers)
        assert status == 200
        y = np.frombuffer(body[-64:], np.float32)
        np.testing.assert_allclose(y, row @ WEIGHTS, rtol=2e-2, atol=2e-2)
    assert served.ask_json("GET", "/v2/models/m")[1]["platform"] == "tensorrt_plan"


def test_tensors_over_grpc(served: Served) -> None:
    import grpc

    request = service_pb2.ModelInferRequest(
        model_name="m",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [4, 256]}],
        raw_input_contents=[X.tobytes()],
    )
    with grpc.insecure_channel(served.grpc_address) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    rows = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(4, 16)
    np.testing.assert_allclose(rows, X @ WEIGHTS, rtol=2e-2, atol=2e-2)


def test_pictures(served: Served) -> None:
    for color in COLORS:
        status, answer, _ = served.ask("POST", "/classify?top_k=1", png(picture(color)))
        assert status == 200
        assert color.encode() in answer
