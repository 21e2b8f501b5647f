"""From an ONNX model to plans of TensorRT, one for each bucket, out of the cache where they are.

A plan with a fixed batch size runs up to 1.9 times as fast as one for a range of them, so every
bucket gets its own, unless `BuildOptions.dynamic_batch` wants one for all of them.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtinfer import _core, cache, tf32_override
from trtinfer.batching import BatchAxis
from trtinfer.build_options import BuildOptions
from trtinfer.build_target import BuildTarget, find_target
from trtinfer.errors import BackendError, ModelError
from trtinfer.model_source import ModelSource
from trtinfer.plan_cache import Key, PlanCache
from trtinfer.precision import convert
from trtinfer.progress import BuildProgress

logger = logging.getLogger("trtinfer")

# For releases that can choose precision by themselves.
_WEAK_PRECISIONS = {
    "fp16": _core.TensorRtPrecision.FP16,
    "bf16": _core.TensorRtPrecision.BF16,
    "int8-qdq": _core.TensorRtPrecision.INT8,
}


@dataclass(frozen=True)
class Plan:
    """A plan of one bucket, or of all up to it.

    Attributes:
        bucket: The batch size that it runs, or the largest.
        smallest: The smallest batch that it runs.
        data: For `_core.TensorRtEngine`.
        seconds: How long it took to build or to read.
        built: False when it was in the cache.
    """

    bucket: int
    smallest: int
    data: bytes = field(repr=False)
    seconds: float
    built: bool


class PlanBuilder:
    """Makes the plans of one model; for one thread at a time.

    The model is converted and parsed once, when the first plan is not in the cache.
    """

    def __init__(
        self,
        library: _core.TensorRtLibrary,
        source: ModelSource,
        axis: BatchAxis,
        options: BuildOptions | None = None,
        plan_cache: PlanCache | None = None,
    ) -> None:
        """Looks at the GPU; nothing is built yet.

        Args:
            library: TensorRT, as `trtinfer.tensorrt_library.find` gives it.
            source: The model.
            axis: How its first axis is used: see `trtinfer.model_description.describe`.
            options: How to build.
            plan_cache: Keeps the plans; None: they are built anew.

        Raises:
            BackendError: There is no GPU to build for.
        """
        self._library = library
        self._source = source
        self._axis = axis
        self._options = options or BuildOptions()
        self._cache = plan_cache
        self._timing_cache: bytes | None = None
        exact = self._options.precision == "fp32" and not self._options.tf32
        tf32_override.settle(library, exact=exact)
        self.target: BuildTarget = find_target(
            library, self._options.compute_capabilities, self._options.device
        )

    @property
    def is_dynamic(self) -> bool:
        """Whether one plan is for all batches: where this is wanted, and the model has several."""
        return self._options.dynamic_batch and self._axis.batched and not self._axis.fixed

    def plan(self, bucket: int) -> Plan:
        """Reads or builds the plan of a bucket.

        Args:
            bucket: Its batch size; for a model without batch axis 1. Of a dynamic plan the largest.

        Raises:
            ModelError: TensorRT does not take the model, sizes of dimensions are missing, or the
                model has another batch size only.
            BackendError: The library cannot build.
        """
        self._check_bucket(bucket)
        started = time.perf_counter()
        built = False

        def build() -> bytes:
            nonlocal built
            built = True
            return self._build(bucket)

        data = self._cache.get_or_build(self.key(bucket), build) if self._cache else build()
        return Plan(bucket, self._smallest(bucket), data, time.perf_counter() - started, built)

    def key(self, bucket: int) -> Key:
        """What the plan of a bucket depends on."""
        options = self._options
        dimensions = [
            [name, axis, *sizes]
            for name, axes in sorted(options.dimensions.items())
            for axis, sizes in sorted(axes.items())
        ]
        return {
            "kind": "plan",
            **self._common_key,
            "bucket": bucket,
            "smallest": self._smallest(bucket),
            "batched": self._axis.batched,
            "dimensions": dimensions,
            "keep_io_types": options.keep_io_types,
            "tf32": options.tf32,
            "workspace_bytes": options.workspace_bytes,
            "optimization_level": options.optimization_level,
        }

    def model_for_cpu(self) -> Callable[[], str | bytes]:
        """What gives ONNX Runtime the model with the plans' types of inputs and outputs.

        It may be kept for long: it does not hold on to what a build needs.
        """
        if not self._options.keep_io_types and self._converts:
            return self._conversion()
        given = self._source.given
        return lambda: given

    def _conversion(self) -> Callable[[], bytes]:
        source, options = self._source, self._options
        settings = options.precision, options.keep_io_types
        return functools.partial(convert, source.path or source.data, *settings)

    def runtime_cache_key(self) -> Key:
        """Where the kernels of all buckets are kept: see `trtinfer.plans.runtime_cache_key`."""
        return runtime_cache_key(self._common_key, self._library, self.target)

    @functools.cached_property
    def _common_key(self) -> dict[str, Any]:
        return {
            "model": self._source.digest,
            "library": self.library_name,
            "gpu": self.target.gpu,
            "precision": self._options.precision,
            "converter": _converter_version() if self._converts else None,
            # TensorRT writes it into a plan, and refuses the plan where it is another.
            "tf32_override": tf32_override.current(),
        }

    @property
    def device(self) -> int:
        """Index of the GPU that plans are built on."""
        return self._options.device

    @property
    def library_name(self) -> str:
        """As in keys: flavor and version."""
        return _library_name(self._library)

    @property
    def _converts(self) -> bool:
        """Whether precision has to be in the model."""
        return self._options.precision != "fp32" and self._library.only_strongly_typed

    def _smallest(self, bucket: int) -> int:
        return 1 if self.is_dynamic else bucket

    def _check_bucket(self, bucket: int) -> None:
        if not self._axis.batched and bucket != 1:
            raise ModelError(f"the model has no batch axis, so its only bucket is 1, not {bucket}")
        if self._axis.batched and self._axis.fixed not in (0, bucket):
            raise ModelError(f"the model's batch size is {self._axis.fixed}, not {bucket}")

    def _build(self, bucket: int) -> bytes:
        started = time.perf_counter()
        options = self._options
        progress = BuildProgress(f"{self._source.name}, batch {bucket}")
        try:
            plan, self._timing_cache = self._parsed.build(
                self._shapes(bucket),
                tf32=options.tf32,
                workspace_bytes=options.workspace_bytes,
                optimization_level=options.optimization_level,
                compute_capabilities=self.target.compute_capabilities,
                timing_cache=self._timing_cache or b"",
                progress=progress,
            )
        finally:
            progress.clear()
        seconds = time.perf_counter() - started
        logger.info(
            "built the plan of %s for batch %d in %.1f s, %.1f MB",
            *(self._source.name, bucket, seconds, len(plan) / 1e6),
        )
        return plan

    @functools.cached_property
    def _parsed(self) -> _core.TensorRtBuilder:
        source, precision = self._source, self._options.precision
        if not self._library.can_build:
            raise BackendError(f"no plan can be built: {self._library.build_reason}")
        weak = not self._library.only_strongly_typed and precision != "fp32"
        builder = _core.TensorRtBuilder(
            self._library,
            _WEAK_PRECISIONS[precision] if weak else _core.TensorRtPrecision.AS_MODEL,
        )
        if self._converts:
            builder.parse(self._conversion()())
        else:
            builder.parse(source.data, "" if source.path is None else str(source.path))
        return builder

    def _shapes(self, bucket: int) -> dict[str, _core.TensorRtShapeRange]:
        """Shapes of the inputs that vary."""
        inputs = [tensor for tensor in self._parsed.tensors if tensor.is_input]
        self._check_dimensions(inputs)
        shapes = {}
        for tensor in inputs:
            if tensor.is_on_host:
                raise ModelError(
                    f"input {tensor.name} decides the shapes of other tensors; make it a constant, "
                    'or use backend="onnxruntime"'
                )
            if -1 in tensor.shape:
                sizes = [self._sizes(tensor, axis, bucket) for axis in range(len(tensor.shape))]
                shapes[tensor.name] = _core.TensorRtShapeRange(*zip(*sizes, strict=True))
        return shapes

    def _sizes(self, tensor: _core.TensorRtTensor, axis: int, bucket: int) -> tuple[int, int, int]:
        """The smallest, the most frequent and the largest size of one axis."""
        size = tensor.shape[axis]
        if size >= 0:
            return (size,) * 3
        if axis == 0 and self._axis.batched:
            return self._smallest(bucket), bucket, bucket
        try:
            return self._options.dimensions[tensor.name][axis]
        except KeyError:
            raise ModelError(
                f"dimension {axis} of input {tensor.name} {_shape_text(tensor)} varies; give its "
                "smallest, most frequent and largest size, as dimensions="
                f'{{"{tensor.name}": {{{axis}: (64, 224, 640)}}}}'
            ) from None

    def _check_dimensions(self, inputs: Iterable[_core.TensorRtTensor]) -> None:
        """A size that would not be used is a mistake."""
        tensors = {tensor.name: tensor for tensor in inputs}
        for name, axes in self._options.dimensions.items():
            if name not in tensors:
                raise ModelError(
                    f"dimensions are given for {name}, but the inputs are {', '.join(tensors)}"
                )
            for axis in axes:
                shape = tensors[name].shape
                free = 0 <= axis < len(shape) and shape[axis] < 0
                if not free or (axis == 0 and self._axis.batched):
                    raise ModelError(
                        f"dimension {axis} of input {name} {_shape_text(tensors[name])} is none "
                        "that sizes can be given for"
                    )


def build_plans(
    builder: PlanBuilder, buckets: Collection[int], on_plan: Callable[[Plan], None] | None = None
) -> dict[int, bytes]:
    """Reads or builds the plans of buckets.

    Args:
        builder: Of the model's plans.
        buckets: Their batch sizes: see `trtinfer.buckets.bucket_sizes`.
        on_plan: Is told of each one as it is ready.

    Returns:
        For each bucket, ascending, its plan; for the largest only when that is for all of them.

    Raises:
        ModelError: As `PlanBuilder.plan`.
        BackendError: As `PlanBuilder.plan`.
    """
    plans = {}
    for bucket in [max(buckets)] if builder.is_dynamic else sorted(set(buckets)):
        plan = builder.plan(bucket)
        plans[bucket] = plan.data
        if on_plan is not None:
            on_plan(plan)
    return plans


def write_plans(plans: Mapping[int, bytes], folder: Path, name: str) -> list[Path]:
    """Writes plans as files that TensorRT's own tools read too: `NAME-b8.plan` for bucket 8.

    Returns:
        The files.

    Raises:
        ModelError: The folder cannot be written.
    """
    files = []
    for bucket, plan in plans.items():
        path = folder / f"{name}-b{bucket}.plan"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            cache.write(path, [plan], 0o644)
        except OSError as error:
            raise ModelError(f"cannot write {path}: {error.strerror}") from error
        files.append(path)
    return files


def runtime_cache_key(model: Key, library: _core.TensorRtLibrary, target: BuildTarget) -> Key:
    """Where kernels that TensorRT for RTX compiled for a model are kept; the driver decides, too.

    To be written with `PlanCache.put` again whenever kernels were added.
    """
    return {
        "kind": "runtime cache",
        **model,
        "library": _library_name(library),
        "gpu": target.gpu,
        "driver": _core.probe_cuda().driver_version,
    }


def _library_name(library: _core.TensorRtLibrary) -> str:
    return f"TensorRT {'for RTX ' * library.is_rtx}{library.version}"


def _shape_text(tensor: _core.TensorRtTensor) -> str:
    return str(tuple("?" if size < 0 else size for size in tensor.shape)).replace("'", "")


def _converter_version() -> str:
    """Of the package whose converter `trtinfer.precision` uses."""
    import onnxruntime

    return str(onnxruntime.__version__)
