"""Other interpreters in the process, and an interpreter without a GIL."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

#: Python 3.14 has this in the standard library as `concurrent.interpreters`.
INTERPRETERS = """
import faulthandler, sys
faulthandler.dump_traceback_later(40, exit=True)

def run_in_other(code, kind):
    if sys.version_info >= (3, 13):
        import _interpreters
        raised = _interpreters.exec(_interpreters.create(kind), code)
        if raised is not None:
            print(raised.formatted, file=sys.stderr)
    else:
        import _xxsubinterpreters
        other = _xxsubinterpreters.create(isolated=kind == "isolated")
        try:
            _xxsubinterpreters.run_string(other, code)
        except _xxsubinterpreters.RunFailedError as error:
            print(error, file=sys.stderr)
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", INTERPRETERS + textwrap.dedent(code)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
@pytest.mark.parametrize("main_first", [True, False])
def test_another_interpreter_is_refused_and_the_main_one_goes_on(kind, main_first):
    process = run_python(
        f"""
        if {main_first}:
            import trtinfer
        for _ in range(2):
            run_in_other("import trtinfer", {kind!r})
        import models, numpy, trtinfer
        with trtinfer.Session(models.slow_model()) as session:
            assert session.infer(numpy.array(1, numpy.float32))["y"] == 2
        """
    )
    assert process.returncode == 0, process.stderr
    refusals = [line for line in process.stderr.splitlines() if "ImportError" in line]
    assert len(refusals) == 2, process.stderr
    for refusal in refusals:
        assert "main interpreter" in refusal or "does not support loading in subinter" in refusal


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_sessions_of_strings_outlive_another_interpreter(kind):
    """Their lanes hold Python objects: whether they may touch one is not for Python to say then."""
    process = run_python(
        f"""
        run_in_other("pass", {kind!r})
        import models, trtinfer
        import numpy as np
        x = np.array(["a"] * 9, object)
        with trtinfer.Session(models.string_model()) as session:
            for _ in range(50):
                futures = [session.submit(x) for _ in range(8)]
                assert all(len(future.result(30)["y"]) for future in futures)
                dropped = trtinfer.Session(models.string_model())
                futures = [dropped.submit(x) for _ in range(8)]
                del dropped, futures
        print("answered")
        """
    )
    assert (process.returncode, process.stdout) == (0, "answered\n"), process.stderr


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_the_core_leaves_the_gil_off():
    process = run_python("import trtinfer._core; print(sys._is_gil_enabled())")
    assert "trtinfer" not in process.stderr  # which would name the module that wants the GIL
    assert process.returncode == 0, process.stderr
