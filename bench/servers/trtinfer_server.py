"""trtinfer, as its command line starts it."""

from __future__ import annotations

import sys

from network import Arguments

from trtinfer.cli import main

if __name__ == "__main__":
    arguments = Arguments.read()
    command = ["serve", f"model={arguments.model}", "--http", str(arguments.http_port)]
    sys.exit(main([*command, "--grpc", str(arguments.grpc_port)]))
