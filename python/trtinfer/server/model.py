"""A model that is served: its session, and how the Open Inference Protocol sees it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from trtinfer.classifier import Answer, Classifier
from trtinfer.errors import ClosedError, InputError, QueueFullError
from trtinfer.server.classification import largest
from trtinfer.server.datatypes import BYTES, datatype_of
from trtinfer.server.errors import status_of
from trtinfer.server.inference import (
    InferenceAnswer,
    InferenceRequest,
    OutputRequest,
    OutputTensor,
)
from trtinfer.server.slot_body import SlotBody
from trtinfer.server.tensors import DeviceTensor, Tensor, TensorHead
from trtinfer.server.trace import Trace
from trtinfer.session import Session
from trtinfer.types import Array, Outputs, TensorInfo, fits

Input = Tensor | DeviceTensor

_IDLE_CHECK = 0.01  # seconds


class Outcomes:
    """Counts what requests end with; a block that answers one is ``with outcomes:``.

    Attributes:
        answered: Requests that were answered.
        refusals: Requests that failed here or in the session, by Triton's reason.
        last_inference: Milliseconds since 1970 of the last answer; 0 before there is one.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.answered = 0
        self.refusals: Counter[str] = Counter()
        self.last_inference = 0

    def __enter__(self) -> None:
        """Begin a request."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Count how it ends."""
        if error is None:
            self.answered += 1
            self.last_inference = time.time_ns() // 1_000_000
            return
        cancelled = isinstance(error, asyncio.CancelledError)
        self.refusals["CANCELED" if cancelled else status_of(error).reason] += 1


class Model:
    """One version of a model. Use it on one event loop.

    A model with a recipe takes images: JPEG, PNG or others as the elements of a BYTES tensor, or
    the pixels of one as a UINT8 tensor of shape (height, width, 3).

    Attributes:
        name: Of the model.
        version: A number, as text.
        session: What runs it.
        classifier: Its classifier; None for models that do not classify images.
        labels: One for each class; empty when there are none.
        outcomes: What became of its requests.
        waiting: Requests that are under way.
        reading: Samples whose slots are claimed while their bytes come.
    """

    def __init__(
        self,
        name: str,
        session: Session | Classifier,
        *,
        version: str = "1",
        labels: Sequence[str] = (),
        queue_limit: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Serve an open session.

        Args:
            name: What clients call it.
            session: The session, or the classifier around it; closed with the model.
            version: What clients call this version.
            labels: One for each class; a classifier has its own.
            queue_limit: Samples that may be under way at a time, more are refused at once; None:
                as many as the session has slots.
            timeout: Seconds for requests that set none; None: no limit.

        Raises:
            ModelError: The protocol has no name for a tensor's type.
        """
        self.name, self.version = name, version
        self.classifier = session if isinstance(session, Classifier) else None
        self.session = session.session if isinstance(session, Classifier) else session
        self.labels = self.classifier.labels if self.classifier else tuple(labels)
        self.outcomes = Outcomes()
        self.waiting = 0
        slots = self.session.sizes.capacity
        self._queue_limit = slots if queue_limit is None else min(queue_limit, slots)
        self._timeout = timeout
        self.reading = 0
        self._samples = 0
        self._batched = self.session.batched
        self._inputs = {info.name: info for info in self.session.inputs}
        self._raw_dtype, self._raw_shape = _raw_layout(self.session)
        fixed = min(self._raw_shape, default=1) > 0
        self._sample_bytes = self._raw_dtype.itemsize * math.prod(self._raw_shape) if fixed else 0
        self._all_outputs = {
            binary: [OutputRequest(info.name, binary) for info in self.session.outputs]
            for binary in (False, True)
        }
        self._output_names = {info.name for info in self.session.outputs}
        for info in (*self.session.inputs, *self.session.outputs):
            datatype_of(info.dtype)  # refuses what clients could not name

    async def infer(self, request: InferenceRequest) -> InferenceAnswer:
        """Answer a request.

        Raises:
            InputError: It does not fit the model.
            QueueFullError: Too many samples are under way.
            DeadlineExceededError: Its time ran out.
            BackendError: The backend failed on it.
            ClosedError: The session is closed.
        """
        with self.outcomes:
            self._check_names(request)
            if self.session.recipe is not None:
                images = _images(next(iter(request.inputs.values())), self._batched)
                return self._answer(request, await self._infer_images(images, request))
            arrays, samples = self._arrays(request.inputs)
            return self._answer(request, await self._run(arrays, samples, request))

    async def infer_raw(
        self, body: bytes | bytearray | SlotBody, trace: Trace | None = None
    ) -> Outputs:
        """Answer one sample of a model with one input of fixed size, given as its bare elements.

        Of a model with a recipe the body is an image file. Errors as `infer`.
        """
        timeline = None if trace is None else trace.run()
        with self.outcomes:  # not through _run: a coroutine on the way costs half a microsecond
            slots, sample = None, None
            if isinstance(body, SlotBody) and body.model is self:
                slots = body
            else:
                sample = self._raw_sample(body.room if isinstance(body, SlotBody) else body)
            self._admit(1)
            try:
                if slots is not None:
                    return await slots.ainfer(self._timeout, timeline=timeline)
                return await self.session.ainfer(sample, self._timeout, timeline=timeline)
            finally:
                self._leave(1)

    def claim_body(self, size: int, said: TensorHead | None = None) -> SlotBody | None:
        """Claim slots for the elements of the only input, which are still to come.

        A client that is slow holds them meanwhile, so no more than a quarter of all are for that,
        and none where half of them are in use: a claim that fails counts as a refusal.

        Args:
            size: Bytes of the elements.
            said: What a client says of its input; None: the bare elements of one sample.

        Returns:
            None: they need memory of their own, or there is no room, or they do not fit.
        """
        if not self._sample_bytes or size % self._sample_bytes:
            return None
        samples = size // self._sample_bytes
        info, limits = self.session.inputs[0], self.session.sizes
        rows = samples if self._batched and said is not None else None
        shape = [*self._raw_shape] if rows is None else [rows, *self._raw_shape]
        if said is not None and said != TensorHead(info.name, datatype_of(info.dtype), shape):
            return None
        if (rows is None and samples != 1) or not 1 <= samples <= limits.max_batch_size:
            return None
        reading = self.reading + samples
        if reading > limits.capacity // 4 or self._samples + reading > limits.capacity // 2:
            return None
        try:
            return SlotBody(self, self.session.claim(rows), samples)
        except (QueueFullError, ClosedError):
            return None

    async def classify(self, image: bytes | bytearray, top_k: int) -> Answer:
        """Return the top K (probability, label) pairs of an image file; errors as `infer`.

        Raises:
            InputError: The model classifies no images.
        """
        with self.outcomes:
            if self.classifier is None:
                raise InputError(f"the model {self.name!r} classifies no images: give it a recipe")
            self._admit(1)
            try:
                return await self.classifier.aclassify(image, top_k, timeout=self._timeout)
            finally:
                self._leave(1)

    async def idle(self) -> None:
        """Wait until no request is under way."""
        while self.waiting:
            await asyncio.sleep(_IDLE_CHECK)

    def close(self) -> None:
        """Answer what is under way, then free everything; blocks."""
        self.session.close(drain=True)

    # --- Inputs ---------------------------------------------------------------------------------

    def _check_names(self, request: InferenceRequest) -> None:
        if request.inputs.keys() != self._inputs.keys():
            raise InputError(
                f"the model {self.name!r} has the inputs {sorted(self._inputs)}, "
                f"{sorted(request.inputs)} were received"
            )
        asked: set[str] = set()
        for output in request.outputs:
            if output.name not in self._output_names:
                raise InputError(
                    f"the model {self.name!r} has the outputs {sorted(self._output_names)}, "
                    f"{output.name!r} was asked for"
                )
            if output.name in asked:
                raise InputError(f"the output {output.name!r} comes twice")
            asked.add(output.name)

    def _arrays(self, tensors: Mapping[str, Input]) -> tuple[dict[str, object], int]:
        """Return what the session takes, and how many samples these are."""
        arrays: dict[str, object] = {}
        samples = 1
        for name, tensor in tensors.items():
            info = self._inputs[name]
            _check_tensor(tensor, info, self._batched)
            if isinstance(tensor, Tensor) and tensor.datatype == BYTES:
                arrays[name] = _text(tensor)
            else:
                arrays[name] = tensor.array
            if self._batched:
                samples = tensor.shape[0]
                self._check_samples(samples)
        return arrays, samples

    def _check_samples(self, samples: int) -> None:
        most = self.session.sizes.max_batch_size
        if not 1 <= samples <= most:
            raise InputError(
                f"the model {self.name!r} takes 1 to {most} samples in a request, "
                f"{samples} were received"
            )

    def _raw_sample(self, body: bytes | bytearray | memoryview) -> object:
        if self.session.recipe is not None:
            return body
        if 0 < len(body) == self._sample_bytes:
            return np.ndarray(self._raw_shape, self._raw_dtype, body)
        raise InputError(
            "bare elements are for models with one input of fixed size, that many bytes: "
            f"{len(body)} were received for {', '.join(map(str, self.session.inputs))}"
        )

    # --- Running --------------------------------------------------------------------------------

    async def _run(self, x: object, samples: int, request: InferenceRequest) -> Outputs:
        timeout = self._timeout if request.timeout is None else request.timeout
        timeline = None if request.trace is None else request.trace.run()
        slots = request.slots
        self._admit(samples)
        try:
            if slots is not None and slots.model is self:
                return await slots.ainfer(timeout, request.priority, timeline=timeline)
            return await self.session.ainfer(x, timeout, request.priority, timeline=timeline)
        finally:
            self._leave(samples)

    async def _infer_images(self, images: list[object], request: InferenceRequest) -> Outputs:
        """Answer each image as a request of its own; they meet again in a batch."""
        self._check_samples(len(images) if self._batched else 1)
        runs = (self._run(image, 1, request) for image in images)
        answers = await _all(runs)
        if not self._batched:
            return answers[0]
        return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}

    def _admit(self, samples: int) -> None:
        if self._samples + samples > self._queue_limit:
            raise QueueFullError(
                f"{self._samples} samples are under way for {self.name!r}, at most "
                f"{self._queue_limit} may be: try again later"
            )
        self._samples += samples
        self.waiting += 1

    def _leave(self, samples: int) -> None:
        self._samples -= samples
        self.waiting -= 1

    # --- Outputs --------------------------------------------------------------------------------

    def _answer(self, request: InferenceRequest, outputs: Outputs) -> InferenceAnswer:
        wanted = request.outputs or self._all_outputs[request.binary_outputs]
        tensors = [
            OutputTensor(self._output(outputs[output.name], output), output) for output in wanted
        ]
        return InferenceAnswer(self.name, self.version, request.id, tensors)

    def _output(self, array: Array, request: OutputRequest) -> Tensor:
        tensor = Tensor.of(request.name, array)
        if not request.class_count:
            return tensor
        return largest(tensor, request.class_count, self.labels, self._batched)


def _raw_layout(session: Session) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and shape of a sample's only input; a shape that no buffer has where they vary."""
    info = session.inputs[0]
    shape = info.shape[1:] if session.batched else info.shape
    if len(session.inputs) != 1 or -1 in shape or info.dtype == object:
        return np.dtype(np.uint8), (-1, 0)
    return info.dtype, shape


async def _all(runs: Iterable[Coroutine[Any, Any, Outputs]]) -> list[Outputs]:
    """Return all answers; where one fails, the others are taken back."""
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()


def _check_tensor(tensor: Input, info: TensorInfo, batched: bool) -> None:
    datatype = datatype_of(info.dtype)
    if tensor.datatype != datatype:
        raise InputError(f"the input {info.name!r} is {datatype}, {tensor.datatype} was received")
    wanted = (-1, *info.shape[1:]) if batched else info.shape
    if not fits(tensor.shape, wanted):
        raise _shape_error(tensor, wanted)


def _shape_error(tensor: Input, wanted: Sequence[int]) -> InputError:
    return InputError(
        f"the input {tensor.name!r} has the shape {list(wanted)} (-1: any), "
        f"{list(tensor.shape)} was received"
    )


def _text(tensor: Tensor) -> Array:
    """The elements of a BYTES tensor as ONNX has them."""
    try:
        text = [element.decode() for element in tensor.array.flat]
    except UnicodeDecodeError as error:
        raise InputError(f"the input {tensor.name!r} is no UTF-8 text: {error}") from None
    array = np.empty(len(text), object)
    array[:] = text
    return array.reshape(tensor.shape)


def _images(tensor: Input, batched: bool) -> list[object]:
    """Image files, or the pixels of one image."""
    if isinstance(tensor, Tensor) and tensor.datatype == BYTES:
        wanted = (-1, 1) if batched else (1,)
        if math.prod(tensor.shape[1:] if batched else tensor.shape) != 1:
            raise _shape_error(tensor, wanted)
        return list(tensor.array.flat)
    shape = tensor.shape[1:] if len(tensor.shape) == 4 and tensor.shape[0] == 1 else tensor.shape
    if tensor.datatype != "UINT8" or len(shape) != 3 or shape[2] != 3:
        raise InputError(
            f"the input {tensor.name!r} takes image files as BYTES, or the pixels of one image as "
            f"UINT8 of shape [height, width, 3]: {tensor.datatype} {list(tensor.shape)} was "
            "received"
        )
    return [tensor.reshaped(shape)]
