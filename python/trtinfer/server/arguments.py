"""The arguments of `trtinfer serve`; known without the libraries that serving needs."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; where one is not given, its default is that of what it sets."""
    add = parser.add_argument
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    seconds: dict[str, Any] = {"type": float, "metavar": "SECONDS"}
    add(
        "models",
        nargs="*",
        metavar="MODEL",
        help="[NAME=]FILE, or a model repository's folder (default: EfficientNet-Lite0)",
    )
    add("--recipe", metavar="NAME", help="how images become the models' input")
    add("--labels", metavar="FILE", help="one a line, or JSON")
    add("--host", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("--http", type=int, default=8000, metavar="PORT", help="-1: none (default: 8000)")
    add("--grpc", type=int, default=8001, metavar="PORT", help="-1: none (default: 8001)")
    add("--backend", choices=["auto", "tensorrt", "onnxruntime"])
    add("--max-batch-size", help="samples in a batch (default: 64)", **number)
    add("--max-delay", help="that a request may wait for company (default: 0)", **seconds)
    add("--capacity", help="samples under way for a model; more get 503 (default: 1024)", **number)
    add("--timeout", help="for requests that set none (default: no limit)", **seconds)
    add("--max-body-bytes", help="of a request (default: 64 MiB)", **number)
    add("--drain-delay", help="from SIGTERM to the end of taking requests", **seconds)
    add("--drain-timeout", help="for requests under way then (default: 30)", **seconds)
    add("--token-file", metavar="FILE", help="holds the bearer token that clients must send")
    add("--certificate", metavar="FILE", help="PEM file: serve over TLS")
    add("--key", metavar="FILE", help="PEM file of its key (default: in that of the certificate)")
    add("--allow-repository-control", action="store_true", help="let clients load and unload")
    add("--allow-shared-memory", action="store_true", help="let clients name memory here")
    add("--trace-file", metavar="FILE", help="let clients have requests traced to this file")
