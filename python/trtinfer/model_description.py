"""What has to be known of a model before plans are built: its inputs, and what its first axis is.

Found out by ONNX Runtime, with trial runs, and kept beside the plans.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from trtinfer import _core
from trtinfer.batching import BatchAxis, find_batch_axis
from trtinfer.build_options import Dimensions
from trtinfer.errors import ModelError
from trtinfer.model_source import ModelSource
from trtinfer.onnxruntime_backend import available_cores, library_path
from trtinfer.plan_cache import PlanCache
from trtinfer.types import TensorInfo

#: Element types that engines take and give, numbered as in ONNX; its parser turns float64 silently
#: into float32.
_TYPES = frozenset({1, 2, 3, 6, 7, 9, 10, 16, 17})


@dataclass(frozen=True)
class ModelDescription:
    """What is known of a model.

    Attributes:
        axis: How the first axis of its tensors is used.
        inputs: Name and whole shape of each input; -1 is a dimension that varies.
    """

    axis: BatchAxis
    inputs: tuple[tuple[str, tuple[int, ...]], ...]

    def dimensions_of(self, shape: Sequence[int]) -> Dimensions:
        """Sizes for what varies in the only input, when all its rows have one shape.

        Args:
            shape: Of a row, as a recipe makes it.

        Raises:
            ModelError: There are other inputs, or the shape does not fit.
        """
        if len(self.inputs) != 1 or not self.axis.batched:
            raise ModelError(f"a recipe needs a model with one image input, not {self.inputs}")
        ((name, whole),) = self.inputs
        if len(whole) != 1 + len(shape) or any(
            size not in (-1, given) for size, given in zip(whole[1:], shape, strict=True)
        ):
            raise ModelError(f"input {name} of shape {whole} takes no rows of {tuple(shape)}")
        varying = [i for i, size in enumerate(whole) if size < 0 and i > 0]
        return {name: {i: (shape[i - 1],) * 3 for i in varying}} if varying else {}


def describe(
    source: ModelSource, cache: PlanCache | None = None, batched: bool | None = None
) -> ModelDescription:
    """Finds out what a model takes, or reads what was found out before.

    Args:
        source: The model.
        cache: Keeps the answer; None: it is found out anew.
        batched: Whether the first axis of every input and output is a batch axis; None finds out.

    Raises:
        ModelError: The model cannot be read, or has values that are no tensors of numbers.
    """
    if source.plan_flavor:
        raise ModelError(f"this is a plan of {source.plan_flavor} already; give the ONNX model")
    if cache is None:
        return _found_out(source, batched)
    key = {
        "kind": "description",
        "model": source.digest,
        "batched": batched,
        "trtinfer": _core.__version__,
    }
    stored = cache.get_or_build(key, lambda: _to_json(_found_out(source, batched)))
    return _from_json(stored)


def _found_out(source: ModelSource, batched: bool | None) -> ModelDescription:
    native = _core.OnnxRuntimeModel(library_path(), source.given, available_cores(), 1, {})
    for value in (*native.inputs, *native.outputs):
        if not value.is_tensor or value.element_type not in _TYPES:
            raise ModelError(
                f"TensorRT has no inputs or outputs like {TensorInfo.of(value)}; use "
                'backend="onnxruntime", or change its type in the model'
            )
    inputs = tuple((value.name, tuple(value.shape)) for value in native.inputs)
    return ModelDescription(find_batch_axis(native, batched), inputs)


def _to_json(description: ModelDescription) -> bytes:
    axis = description.axis
    values = {"batched": axis.batched, "fixed": axis.fixed, "inputs": description.inputs}
    return json.dumps(values).encode()


def _from_json(text: bytes) -> ModelDescription:
    values = json.loads(text)
    inputs = tuple((name, tuple(shape)) for name, shape in values["inputs"])
    return ModelDescription(BatchAxis(values["batched"], values["fixed"]), inputs)
