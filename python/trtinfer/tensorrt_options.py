"""What only the TensorRT backend has a choice in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trtinfer.build_options import BuildOptions


@dataclass(frozen=True)
class TensorRtOptions:
    """What only this backend has a choice in.

    Attributes:
        build: How plans are built; the session's GPUs take the place of its ``device``.
        buckets: Batch sizes that have buffers, a CUDA graph and (but for `build.dynamic_batch`) a
            plan of their own; None: 1, 2, 4, ... and the largest.
        library: Path of TensorRT or of its folder; None: the first that is found.
        spin: Seconds that a wait for the GPU spins before it sleeps.
        outputs_on_gpu: Outputs stay on the GPU, as `trtinfer.DeviceTensor`, and requests are at
            most as large as a batch. After the GPU has failed they are arrays.
        falls_back: Whether requests go on on the CPU when the GPU fails. A session over a plan has
            no model to go on with.
    """

    build: BuildOptions = field(default_factory=BuildOptions)
    buckets: Sequence[int] | None = None
    library: str | None = None
    spin: float = 2e-3
    falls_back: bool = True
    outputs_on_gpu: bool = False
