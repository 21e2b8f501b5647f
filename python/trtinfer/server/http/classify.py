"""POST /classify: pictures in, labels out, without any knowledge of tensors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import multipart
import orjson

from trtinfer.errors import InputError, TrtInferError
from trtinfer.server.errors import NotFoundError, status_of
from trtinfer.server.http.message import Request, Response
from trtinfer.server.http.routes import Routes
from trtinfer.server.model import Model
from trtinfer.server.repository import Repository

_MOST_IMAGES = 256  # of a request
_DECIMALS = 6  # of a probability
_UNNAMED = "image"


class ClassifyCall:
    """The handler of /classify."""

    def __init__(self, repository: Repository) -> None:
        """Answer from the models that classify images."""
        self._repository = repository

    def add_to(self, routes: Routes) -> None:
        """Add the call to a table."""
        routes.add("POST", "/classify", self._classify)

    async def _classify(self, request: Request) -> Response:
        """Answer a map from image to (probability, label) pairs, or to what is wrong with it."""
        parameters = request.parameters()
        model = self._model(parameters.get("model"))
        top_k = _top_k(parameters.get("top_k", "5"))
        images = _named(_images(request))
        runs = (model.classify(image, top_k) for image in images.values())
        answers = await asyncio.gather(*runs, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in errors:
            if not isinstance(error, TrtInferError):
                raise error
        shown = (_shown(answer) for answer in answers)
        status = 200 if len(errors) < len(answers) else status_of(errors[0]).http
        body = orjson.dumps(dict(zip(images, shown, strict=True)))
        return Response(status, (body, b"\n"))

    def _model(self, name: str | None) -> Model:
        if name:
            return self._repository.get(name)
        for model in self._repository:
            if model.classifier is not None:
                return model
        raise NotFoundError("no model here classifies images: serve one with --recipe")


def _images(request: Request) -> Iterator[tuple[str, bytes | bytearray]]:
    kind = request.headers.get(b"content-type", b"").decode("latin-1")
    name, options = multipart.parse_options_header(kind)
    if name != "multipart/form-data":
        yield _UNNAMED, request.body
        return
    try:
        boundary = options["boundary"].encode("latin-1")
        with multipart.PushMultipartParser(boundary, max_segment_count=_MOST_IMAGES) as parser:
            yield from _segments(parser.parse(request.body))
    except (multipart.MultipartError, ValueError, KeyError) as error:
        raise InputError(f"the multipart body cannot be read: {error}") from None


def _segments(events: Any) -> Iterator[tuple[str, bytes]]:
    """Join the parts of each segment: the parser gives its head, its parts, and None at its end."""
    name, parts = _UNNAMED, list[bytes]()
    for event in events:
        if event is None:
            yield name, b"".join(parts)
        elif isinstance(event, multipart.MultipartSegment):
            name, parts = event.filename or event.name or _UNNAMED, []
        else:
            parts.append(event)


def _named(images: Iterator[tuple[str, bytes | bytearray]]) -> dict[str, bytes | bytearray]:
    """Images by name; where names repeat, later ones have a number."""
    by_name: dict[str, bytes | bytearray] = {}
    for name, image in images:
        unique, number = name, 1
        while unique in by_name:
            number += 1
            unique = f"{name} ({number})"
        by_name[unique] = image
    if not by_name:
        raise InputError("no image was received: curl -F image=@photo.jpg .../classify")
    return by_name


def _top_k(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= 100_000:
        raise InputError(f"top_k is a number of labels, {text[:80]!r} was received")
    return int(text)


def _shown(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        return {"error": str(answer)}
    return [[round(probability, _DECIMALS), label] for probability, label in answer]
