"""What bench_server.py asks each server, and what the elements of its answers are."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trtinfer.server.grpc.messages import SERVICE, message

Array = NDArray[np.float32]

_LENGTH = "Inference-Header-Content-Length"
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """A request over HTTP/1.1, or a message of gRPC.

    Attributes:
        path: Where.
        body: With which body.
        read: Returns the elements of an answer.
        headers: With which headers.
    """

    path: str
    body: bytes
    read: Callable[[bytes], Array]
    headers: dict[str, str] = field(default_factory=dict)


def http_request(server: str, x: Array) -> Request:
    raw, text = x.tobytes(), base64.b64encode(x.tobytes()).decode()
    if server in ("trtinfer", "pytriton"):
        return Request("/v2/models/model/infer", raw, _read_after_json, {_LENGTH: "0"})
    if server == "litserve":
        return Request("/predict", json.dumps({"body": text}).encode(), _read_litserve, _JSON)
    if server == "bentoml":
        return Request("/infer", json.dumps({"bodies": [text]}).encode(), _read_bentoml, _JSON)
    return Request("/inference" if server == "mosec" else "/", raw, _read_elements)


def grpc_request(x: Array) -> Request:
    asked = message("ModelInferRequest")(model_name="model", raw_input_contents=[x.tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=[1, *x.shape])
    headers = {"content-type": "application/grpc", "te": "trailers"}
    return Request(f"/{SERVICE}/ModelInfer", asked.SerializeToString(), _read_grpc, headers)


def _read_elements(body: bytes) -> Array:
    return np.frombuffer(body, np.float32)


def _read_litserve(body: bytes) -> Array:
    return _read_elements(base64.b64decode(json.loads(body)["body"]))


def _read_bentoml(body: bytes) -> Array:
    return _read_elements(base64.b64decode(json.loads(body)[0]))


def _read_after_json(body: bytes) -> Array:
    _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    return _read_elements(body[end:])


def _read_grpc(body: bytes) -> Array:
    return _read_elements(message("ModelInferResponse").FromString(body).raw_output_contents[0])
