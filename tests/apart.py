"""Tests that may ruin the GPU for the rest of their process, each in a process of its own.

A file that has such tests ends with ``apart.main(globals())``: it is their program, too.
"""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


def apart(
    case: Callable[..., None], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a function of a test file as a program; its log is in `stderr`."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", inspect.getfile(case), case.__name__, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, f"status {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run


def main(functions: Mapping[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO)
    functions[sys.argv[1]](*sys.argv[2:])
