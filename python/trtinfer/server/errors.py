"""What a server refuses beside what sessions refuse, and the status that each refusal gets."""

from __future__ import annotations

from typing import NamedTuple

from trtinfer.errors import (
    BackendError,
    ClosedError,
    DeadlineExceededError,
    InputError,
    ModelError,
    QueueFullError,
    TrtInferError,
)


class NotFoundError(TrtInferError):
    """There is no such model, version, region or path."""


class UnavailableError(TrtInferError):
    """The server cannot take the request now: it is full, draining, or the model is not ready."""


class NotAllowedError(TrtInferError):
    """The server was started without what the request asks for."""


class Status(NamedTuple):
    """One refusal in both protocols.

    Attributes:
        http: The status code.
        grpc: The name of a `grpc.StatusCode`.
        reason: The name in the metric of failures: Triton's REJECTED, CANCELED, BACKEND or OTHER.
    """

    http: int
    grpc: str
    reason: str


_INTERNAL = Status(500, "INTERNAL", "OTHER")
_STATUS: dict[type[Exception], Status] = {
    InputError: Status(400, "INVALID_ARGUMENT", "OTHER"),
    ModelError: Status(400, "INVALID_ARGUMENT", "OTHER"),
    NotFoundError: Status(404, "NOT_FOUND", "OTHER"),
    NotAllowedError: Status(403, "PERMISSION_DENIED", "OTHER"),
    QueueFullError: Status(503, "UNAVAILABLE", "REJECTED"),
    UnavailableError: Status(503, "UNAVAILABLE", "REJECTED"),
    # Triton answers 503 and UNAVAILABLE as well when a request's time runs out in its queue.
    DeadlineExceededError: Status(503, "UNAVAILABLE", "REJECTED"),
    ClosedError: Status(503, "UNAVAILABLE", "REJECTED"),
    BackendError: Status(500, "INTERNAL", "BACKEND"),
}


def status_of(error: BaseException) -> Status:
    """Return the status that tells a client of an error; errors of our own making are internal."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), _INTERNAL)
