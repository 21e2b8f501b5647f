"""The errors that trtinfer raises; every message says what was received and what to do."""

from __future__ import annotations


class TrtInferError(Exception):
    """Base of every error that trtinfer raises on purpose."""


class ModelError(TrtInferError):
    """The model cannot be read, converted, built or served."""


class InputError(TrtInferError, ValueError):
    """A request does not fit the model, or an image cannot be read; it fails alone."""


class QueueFullError(TrtInferError):
    """Every slot of the ring is taken; the request was not accepted."""


class DeadlineExceededError(TrtInferError, TimeoutError):
    """The request's timeout, counted from its arrival, ran out before its batch was launched."""


class ClosedError(TrtInferError):
    """The session was closed, or the process forked, before the request could run."""


class BackendError(TrtInferError):
    """The backend failed while a batch ran, or cannot be used on this machine."""
