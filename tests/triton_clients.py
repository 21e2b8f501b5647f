"""Triton's own clients, by protocol; importing this needs tritonclient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tritonclient.grpc
import tritonclient.http
from serving import Served

MODULES = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@contextlib.contextmanager
def client_of(served: Served, protocol: str) -> Iterator[Any]:
    address = served.address if protocol == "http" else served.grpc_address
    with MODULES[protocol].InferenceServerClient(address) as client:
        yield client
