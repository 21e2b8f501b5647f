"""How plans are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from trtinfer.precision import PRECISIONS

#: For an input and one of its axes: the smallest, the most frequent and the largest size.
Dimensions: TypeAlias = Mapping[str, Mapping[int, tuple[int, int, int]]]


@dataclass(frozen=True)
class BuildOptions:
    """How plans are built.

    Attributes:
        precision: `"fp32"`, `"fp16"`, `"bf16"` or `"int8-qdq"` (of a model with QuantizeLinear and
            DequantizeLinear nodes whose zero points are 0; TensorRT for RTX 1.6 takes matrix
            products between them, but no convolutions).
        dimensions: The sizes of what varies in the inputs beside the batch: for an input's name and
            an axis of its whole shape, the smallest, the most frequent and the largest.
        dynamic_batch: One plan for every batch size from 1 to the largest, tuned for the largest,
            instead of one for each bucket: the weights are held once, but batches take longer.
        keep_io_types: Inputs and outputs keep the model's types whatever the precision is; else
            they take part in it, with releases that take precision from the model only.
        tf32: Factors of products of fp32 numbers may be rounded to 11 bits, which is faster. With
            TensorRT for RTX and precision "fp32", False sets NVIDIA_TF32_OVERRIDE=0 for the whole
            process unless the variable is set (`trtinfer.tf32_override`).
        workspace_bytes: Limit of scratch memory; 0: TensorRT's own.
        optimization_level: 0 to 5, the more the longer a build takes; -1: TensorRT's own.
        compute_capabilities: GPUs to build for, as 89 for 8.9; empty: the one at hand. Others need
            TensorRT for RTX.
        device: Index of the GPU at hand.
    """

    precision: str = "fp32"
    dimensions: Dimensions = field(default_factory=dict)
    dynamic_batch: bool = False
    keep_io_types: bool = True
    tf32: bool = False
    workspace_bytes: int = 0
    optimization_level: int = -1
    compute_capabilities: tuple[int, ...] = ()
    device: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what no build can take."""
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}; give one of {', '.join(PRECISIONS)}"
            )
        if self.workspace_bytes < 0:
            raise ValueError(f"workspace_bytes is {self.workspace_bytes}; give a number from 0")
        if not -1 <= self.optimization_level <= 5:
            raise ValueError(f"optimization_level is {self.optimization_level}; give 0 to 5")
        for name, axes in self.dimensions.items():
            for axis, sizes in axes.items():
                if len(sizes) != 3 or not 0 < sizes[0] <= sizes[1] <= sizes[2]:
                    raise ValueError(
                        f"dimension {axis} of input {name} is {sizes}; give its smallest, its most "
                        "frequent and its largest size"
                    )
