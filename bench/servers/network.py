"""What the servers of bench_server.py share: MODEL HTTP_PORT GRPC_PORT, and the model itself.

All answer a sample's float32 elements with those of its output. Each file here is one server and
imports one peer, so that each may live in an environment of its own.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BATCH_SIZE = 64


@dataclass(frozen=True)
class Arguments:
    """What a server is started with."""

    model: str
    http_port: int
    grpc_port: int

    @classmethod
    def read(cls) -> Arguments:
        """Read them; from here on SIGTERM ends the process as sys.exit would."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        model, http_port, grpc_port = sys.argv[1:]
        return cls(model, int(http_port), int(grpc_port))


class Network:
    """The model, run directly, with one thread."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        info = self._session.get_inputs()[0]
        self._name, self.shape = info.name, tuple(info.shape[1:])

    def read(self, body: bytes) -> Any:
        return np.frombuffer(body, np.float32).reshape(self.shape)

    def run(self, rows: Any) -> Any:
        return self.run_batch(np.stack(rows))

    def run_batch(self, batch: Any) -> Any:
        return self._session.run(None, {self._name: batch})[0]
