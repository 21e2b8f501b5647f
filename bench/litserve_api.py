"""LitServe's side of bench_server.py: a module of its own, since its workers import it by name."""

from __future__ import annotations

import base64
from typing import Any

import litserve
from servers import Network


class Api(litserve.LitAPI):
    """Float32 elements in base64 within JSON, both ways."""

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(**options)
        self._model = model

    def setup(self, device: str) -> None:
        self._network = Network(self._model)

    # Unannotated, or LitServe reads something else than the JSON.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return self._network.read(base64.b64decode(request["body"]))

    def batch(self, inputs: Any) -> Any:
        return inputs

    def predict(self, x: Any) -> Any:
        return self._network.run(x)

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> Any:
        return {"body": base64.b64encode(output.tobytes()).decode()}
