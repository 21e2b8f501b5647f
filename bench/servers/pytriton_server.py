"""pytriton: Triton with a model in Python, batched by Triton's scheduler without any delay."""

from __future__ import annotations

import os
import sysconfig
from typing import Any

import numpy as np
from network import MAX_BATCH_SIZE, Arguments, Network
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    arguments = Arguments.read()
    network = Network(arguments.model)

    @batch
    def infer(x: Any) -> dict[str, Any]:
        return {"y": network.run_batch(x)}

    # Triton's process for models in Python is linked with this Python's library.
    os.environ["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=arguments.http_port,
        grpc_address="127.0.0.1",
        grpc_port=arguments.grpc_port,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[Tensor(name="x", dtype=np.float32, shape=network.shape)],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH_SIZE,
                batcher=DynamicBatcher(max_queue_delay_microseconds=0),
            ),
        )
        triton.serve()
