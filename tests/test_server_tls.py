"""Both protocols over TLS, with a certificate made for the test."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
from models import WEIGHTS, matmul_model
from serving import serving
from tritonclient.grpc import service_pb2, service_pb2_grpc

from trtinfer.server.options import ServerOptions

X = np.ones(256, np.float32)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_both_protocols_are_served_over_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    chain, key = map(str, certificate)
    with serving(
        {"m": matmul_model()}, tmp_path, grpc_port=0, certificate=chain, key=key
    ) as served:
        context = ssl.create_default_context(cafile=chain)
        connection = http.client.HTTPSConnection("127.0.0.1", served.port, context=context)
        for _ in range(3):
            headers = {"Inference-Header-Content-Length": "0"}
            connection.request("POST", "/v2/models/m/infer", X.tobytes(), headers)
            response = connection.getresponse()
            assert response.status == 200
            y = np.frombuffer(response.read()[-64:], np.float32)
            np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-3)
        entry = {"name": "x", "datatype": "FP32", "shape": [1, 256], "data": X.tolist()}
        long_body = json.dumps({"inputs": [entry]}).encode().ljust(1_000_000)
        connection.request("POST", "/v2/models/m/infer", long_body)
        y = json.load(connection.getresponse())["outputs"][0]["data"]
        np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-3)
        connection.close()
        with served.connect() as plain:
            plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")
        credentials = grpc.ssl_channel_credentials(Path(chain).read_bytes())
        with grpc.secure_channel(served.grpc_address, credentials) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready


@pytest.mark.parametrize(
    "options",
    [
        {"http_port": None, "grpc_port": None},
        {"token": ""},
        {"key": "key.pem"},
        {"max_body_bytes": -1},
        {"drain_timeout": -0.5},
    ],
    ids=str,
)
def test_options_that_no_server_can_have_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"server|token|key"):
        ServerOptions(**options)  # type: ignore[arg-type]
