"""Image classification: an image in, the top K (probability, label) pairs out."""

from __future__ import annotations

import ast
import collections
import functools
import itertools
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from trtinfer import default_model, labels, model_metadata
from trtinfer.errors import BackendError, InputError, ModelError
from trtinfer.preprocess import Recipe
from trtinfer.session import Session

Answer: TypeAlias = "list[tuple[float, str]]"

_PROBE_SIZE = 224  # height and width; any size will do, the recipe resizes
_SUM_TOLERANCE = 1e-2  # 1000 probabilities in bfloat16 add up to 1 within this
_THREADS_PER_CORE, _MOST_THREADS = 4, 32
_PATIENCE = 3600.0  # seconds that an image of a stream may wait for room


class Classifier:
    """A session whose answers are labels; thread-safe, as the session is.

    Attributes:
        labels: One for each class, in the order of the model's outputs.
        session: The session that runs the model, owned by the classifier.
        softmax: Whether softmax is applied to the model's outputs.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | None = None,
        labels: labels.LabelSource | None = None,
        recipe: Recipe | str | None = None,
        *,
        softmax: bool | None = None,
        **session_options: Any,
    ) -> None:
        """Opens the model and classifies three plain images, so that a mistake shows here.

        Args:
            model: As for `Session`; None for the embedded EfficientNet-Lite0 (extra `demo`).
            labels: A list, a mapping from class index, or a file of them (`trtinfer.labels.read`);
                None for those in the model's metadata, else "class 0", "class 1" and so on.
            recipe: How images become the model's input; None where the model says so itself: the
                embedded one, and those that ultralytics exported.
            softmax: Apply softmax or not; None to find out: it is applied unless the outputs for
                the three images are all probabilities (0 to 1, with the sum 1). The choice is made
                once for the model, because a single row of scores may look like probabilities by
                chance, and an order must not change from one request to the next.
            **session_options: Passed on to `Session`.

        Raises:
            ModelError: The model cannot be opened, classifies nothing, or names no recipe.
            InputError: The labels cannot be read, or are not one for each class.
        """
        if model is None:
            model = default_model.path()
            recipe = recipe or default_model.RECIPE
            labels = labels if labels is not None else default_model.labels()
        metadata = {} if recipe is not None and labels is not None else model_metadata.read(model)
        if recipe is None:
            recipe = own_recipe(model, metadata)
        self.session = Session(model, preprocess=recipe, **session_options)
        try:
            self._output = self.session.outputs[0].name
            rows = [self._scores(self.session.infer(image)) for image in _probes()]
            self.softmax = not all(map(_are_probabilities, rows)) if softmax is None else softmax
            self.labels = _labels(labels, metadata, rows[0].size)
        except BaseException:
            self.session.close(drain=False)
            raise

    def __call__(self, image: object, top_k: int = 5, **request_options: Any) -> Answer:
        """Classifies one image and waits for the answer.

        Args:
            image: As for `trtinfer.images.load`: a path, bytes, a file object, a NumPy array (RGB)
                or a PIL image.
            top_k: How many classes to return; all of them when there are fewer.
            **request_options: Passed on to `Session.infer`: `timeout`, `priority`.

        Returns:
            (probability, label) pairs, the most probable first; equal ones by class index.

        Raises:
            InputError: The image cannot be read, or `top_k` is less than 1.
            QueueFullError: The session has no room for the request.
            DeadlineExceededError: The timeout ran out.
            BackendError: The model failed, or gave NaN.
        """
        count = _checked(top_k)
        return self._answer(self.session.infer(image, **request_options), count)

    def submit(self, image: object, top_k: int = 5, **request_options: Any) -> Future[Answer]:
        """Classifies one image without waiting; arguments and errors as in a call.

        Args:
            image: As in a call.
            top_k: As in a call.
            **request_options: As in a call.

        Returns:
            A future of the answer. Cancelling it cancels the request, unless it is running.
        """
        count = _checked(top_k)
        request = self.session.submit(image, **request_options)
        answer: Future[Answer] = Future()

        def pass_on(done: Future[Any]) -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(self._answer(done.result(), count))
            except BaseException as error:
                answer.set_exception(error)

        answer.add_done_callback(lambda done: request.cancel() if done.cancelled() else None)
        request.add_done_callback(pass_on)
        return answer

    async def aclassify(self, image: object, top_k: int = 5, **request_options: Any) -> Answer:
        """Classifies one image on an asyncio loop; arguments and errors as in `submit`."""
        count = _checked(top_k)
        return self._answer(await self.session.ainfer(image, **request_options), count)

    def classify_many(self, images: Iterable[object], top_k: int = 5) -> list[Answer]:
        """Classifies images as concurrent requests, and waits for all answers.

        Returns:
            One answer for each image, in their order.

        Raises:
            Exception: The first image's that failed, as in a call; see `stream` to go on.
        """
        answers = []
        for answer in self.stream(images, top_k):
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
        return answers

    def stream(self, images: Iterable[object], top_k: int = 5) -> Iterator[Answer | Exception]:
        """Classifies images as concurrent requests, and gives answers as they come.

        Reads a few dozen images ahead and no more, so that an endless iterable is fine; images that
        find the session full wait.

        Yields:
            For each image, in their order, its answer or the error that it met.
        """
        count = _checked(top_k)
        threads = min(_THREADS_PER_CORE * len(os.sched_getaffinity(0)), _MOST_THREADS)
        waiting: collections.deque[Future[Answer]] = collections.deque()
        source = iter(images)
        ask = functools.partial(self, timeout=_PATIENCE)
        with ThreadPoolExecutor(threads, "trtinfer-classify") as pool:
            try:
                for image in itertools.islice(source, threads):
                    waiting.append(pool.submit(ask, image, count))
                while waiting:
                    done = waiting.popleft()
                    error = done.exception()
                    for image in itertools.islice(source, 1):
                        waiting.append(pool.submit(ask, image, count))
                    yield done.result() if error is None else _as_exception(error)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def close(self, drain: bool = True) -> None:
        """Closes the session; see `Session.close`."""
        self.session.close(drain=drain)

    def __enter__(self) -> Classifier:
        """Leaves closing to the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the session; after an error, without draining."""
        self.close(drain=error is None)

    def _scores(self, outputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """The only axis longer than 1 of the first output: one number for each class."""
        output = outputs[self._output]
        if output.size != max(output.shape, default=1) or output.size == 0:
            raise ModelError(
                f"output {self._output!r} has shape {output.shape} for one image, which is no row "
                "of class scores; use Session for models that do not classify"
            )
        return output.reshape(-1).astype(np.float64)

    def _answer(self, outputs: Mapping[str, npt.NDArray[Any]], count: int) -> Answer:
        scores = self._scores(outputs)
        probabilities = _softmax(scores) if self.softmax else scores
        if np.isnan(probabilities).any():
            raise BackendError(
                f"output {self._output!r} has NaN or infinite scores; check the model and its dtype"
            )
        chosen = _largest(probabilities, count)
        return [(float(probabilities[index]), self.labels[index]) for index in chosen]


def own_recipe(model: str | os.PathLike[str] | bytes, metadata: Mapping[str, str]) -> Recipe:
    """The recipe of a model that ultralytics exported for classification.

    Args:
        model: For the message.
        metadata: Of the model.

    Raises:
        ModelError: It is no such model.
    """
    name = "the model" if isinstance(model, bytes) else repr(os.fspath(model))
    if metadata.get("task") != "classify" or "imgsz" not in metadata:
        raise ModelError(
            f"{name} does not say how its images are prepared, and a wrong guess costs accuracy "
            "silently; pass recipe=... ('torchvision' suits most ImageNet models, 'timm' those of "
            "timm, 'yolov8-cls' those of ultralytics)"
        )
    try:
        height, width = map(int, ast.literal_eval(metadata["imgsz"]))
    except (ValueError, TypeError, SyntaxError) as error:
        raise ModelError(
            f"{name} has imgsz = {metadata['imgsz']!r}, not [height, width]; pass recipe=..."
        ) from error
    recipe = Recipe.named("yolov8-cls")
    if height == width:
        return recipe.replace(resize=height, crop=height)
    return recipe.replace(resize=(height, width), crop=None)  # ultralytics stretches these


def _labels(
    source: labels.LabelSource | None, metadata: Mapping[str, str], classes: int
) -> tuple[str, ...]:
    known = labels.from_metadata(metadata) if source is None else labels.read(source)
    if known is None:
        return labels.numbered(classes)
    labels.check_count(known, classes)
    return known


def _probes() -> Iterator[npt.NDArray[np.uint8]]:
    """Black, white and noise: images that no classifier of scores answers alike."""
    shape = (_PROBE_SIZE, _PROBE_SIZE, 3)
    yield np.zeros(shape, np.uint8)
    yield np.full(shape, 255, np.uint8)
    yield np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _are_probabilities(row: npt.NDArray[np.float64]) -> bool:
    within = row.min() >= 0 and row.max() <= 1 + _SUM_TOLERANCE
    return bool(within and abs(row.sum() - 1) <= _SUM_TOLERANCE)


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # an infinite score becomes NaN, which is reported
        powers: npt.NDArray[np.float64] = np.exp(scores - scores.max())
        powers /= powers.sum()
    return powers


def _largest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` largest values, descending; equal ones by index.

    Twice as fast as sorting all of 1000, and as stable: every value that equals the last one taken
    is a candidate, and candidates are in the order of their indices.
    """
    count = min(count, values.size)
    last = np.partition(values, values.size - count)[values.size - count]
    candidates = np.flatnonzero(values >= last)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:count]]


def _checked(top_k: int) -> int:
    try:
        count = operator.index(top_k)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"got top_k = {top_k!r}; pass how many classes to return, 1 or more")
    return count


def _as_exception(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    raise error
