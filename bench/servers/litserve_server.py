"""LitServe: its workers read no bare bodies, so elements are in base64 within JSON, both ways."""

from __future__ import annotations

import base64
from typing import Any

import litserve
from network import MAX_BATCH_SIZE, Arguments, Network


class Api(litserve.LitAPI):
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


if __name__ == "__main__":
    arguments = Arguments.read()
    api = Api(arguments.model, max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=arguments.http_port, generate_client_file=False, log_level="error")
