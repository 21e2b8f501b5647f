"""The Open Inference Protocol over HTTP: tensors in every form, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from models import (
    WEIGHTS,
    gather_model,
    identity_model,
    matmul_model,
    several_model,
    string_model,
    varying_model,
    whole_model,
)
from serving import Served, serving

X = np.random.default_rng(3).standard_normal((2, 256), dtype=np.float32)
STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = {
        "matmul": matmul_model(),
        "several": several_model(),
        "half": identity_model(10),
        "whole": whole_model(),
        "strings": string_model(),
        "varying": varying_model(),
        "gather": gather_model(),
        "unsigned": identity_model(13),
    }
    with serving(models, tmp_path_factory.mktemp("models")) as served:
        yield served


def infer(served: Served, model: str, **document: Any) -> tuple[int, Any]:
    return served.ask_json("POST", f"/v2/models/{model}/infer", document)


def entry(name: str, datatype: str, shape: Any, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def x_entry(**changes: Any) -> dict[str, Any]:
    return {**entry("x", "FP32", [2, 256], X.ravel().tolist()), **changes}


def test_json_tensors_may_be_flat_or_nested(served: Served) -> None:
    for data in (X.ravel().tolist(), X.tolist()):
        status, answer = infer(served, "matmul", id="7", inputs=[x_entry(data=data)])
        assert status == 200
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("matmul", "1", "7")
        (y,) = answer["outputs"]
        assert (y["name"], y["datatype"], y["shape"]) == ("y", "FP32", [2, 16])
        np.testing.assert_allclose(np.reshape(y["data"], (2, 16)), X @ WEIGHTS, rtol=1e-3)


def test_only_the_outputs_asked_for_are_sent(served: Served) -> None:
    inputs = [entry("a", "FP32", [1, 4], [1, 2, 3, 4]), entry("b", "INT64", [1, 2], [5, 6])]
    status, answer = infer(served, "several", inputs=inputs, outputs=[{"name": "total"}])
    assert status == 200
    (total,) = answer["outputs"]
    assert total == {"name": "total", "datatype": "INT64", "shape": [1], "data": [11]}


def test_an_output_asked_for_twice_is_refused(served: Served) -> None:
    outputs = [{"name": "y"}, {"name": "y", "parameters": {"binary_data": True}}]
    status, answer = infer(served, "matmul", inputs=[x_entry()], outputs=outputs)
    assert (status, answer["error"]) == (400, "the output 'y' comes twice")


def test_binary_and_json_tensors_mix(served: Served) -> None:
    a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.array([[1, 2], [3, 4]])
    document = {
        "inputs": [
            {
                "name": "a",
                "datatype": "FP32",
                "shape": [2, 4],
                "parameters": {"binary_data_size": 32},
            },
            entry("b", "INT64", [2, 2], b.tolist()),
        ],
        "outputs": [
            {"name": "total"},
            {"name": "joined", "parameters": {"binary_data": True}},
        ],
    }
    head = json.dumps(document).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    status, body, headers = served.ask(
        "POST", "/v2/models/several/infer", head + a.tobytes(), length
    )
    assert status == 200
    size = int(headers["inference-header-content-length"])
    total, joined = json.loads(body[:size])["outputs"]
    assert total["data"] == [3, 7]
    assert joined["parameters"] == {"binary_data_size": 48}
    rows = np.frombuffer(body[size:], np.float32).reshape(2, 6)
    np.testing.assert_array_equal(rows, np.concatenate([a, b], axis=1))


def test_models_without_batch_axis_take_whole_tensors(served: Served) -> None:
    inputs = [
        entry("x", "FP32", [2, 3], [[1, 2, 3], [4, 5, 6]]),
        entry("factor", "FP32", [], [2]),
    ]
    status, answer = infer(served, "whole", inputs=inputs)
    assert status == 200
    assert answer["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12]


def test_text_is_text_in_json(served: Served) -> None:
    status, answer = infer(served, "strings", inputs=[entry("x", "BYTES", [2], ["ab", "straße"])])
    assert status == 200
    assert answer["outputs"][0]["datatype"] == "BYTES"
    assert answer["outputs"][0]["data"][0] == "AB"


def test_half_precision_and_varying_shapes(served: Served) -> None:
    status, answer = infer(served, "half", inputs=[entry("x", "FP16", [1, 3], [0.5, 1, -2])])
    assert (status, answer["outputs"][0]["data"]) == (200, [0.5, 1.0, -2.0])
    for length in (1, 5):
        data = list(range(length))
        inputs = [entry("x", "FP32", [1, length], data)]
        status, answer = infer(served, "varying", inputs=inputs)
        assert (status, answer["outputs"][0]["data"]) == (200, [2 * value for value in data])


def test_the_largest_are_named_where_classes_are_asked_for(served: Served) -> None:
    inputs = [entry("x", "FP16", [2, 3], [1, 9, 4, 7, 7, 8])]
    for k, shape in ((2, [2, 2]), (10, [2, 3])):
        outputs = [{"name": "y", "parameters": {"classification": k}}]
        status, answer = infer(served, "half", inputs=inputs, outputs=outputs)
        assert status == 200
        assert answer["outputs"][0]["datatype"] == "BYTES"
        assert answer["outputs"][0]["shape"] == shape
        rows = np.reshape(answer["outputs"][0]["data"], shape)
        assert rows[0, :2].tolist() == ["9.000000:1", "4.000000:2"]
        assert rows[1, :2].tolist() == ["8.000000:2", "7.000000:0"]


def test_whole_numbers_are_ranked_and_written_as_such(served: Served) -> None:
    high = 2**64 - 1
    inputs = [entry("x", "UINT64", [1, 3], [3, high - 1, high])]
    outputs = [{"name": "y", "parameters": {"classification": 3}}]
    status, answer = infer(served, "unsigned", inputs=inputs, outputs=outputs)
    assert (status, answer["outputs"][0]["data"]) == (200, [f"{high}:2", f"{high - 1}:1", "3:0"])


def test_what_a_model_looks_like_is_told(served: Served) -> None:
    status, described = served.ask_json("GET", "/v2/models/several/versions/1")
    assert status == 200
    assert described["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "b", "datatype": "INT64", "shape": [-1, 2]},
    ]
    status, config = served.ask_json("GET", "/v2/models/several/config")
    assert status == 200
    assert config["max_batch_size"] == 64
    assert config["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": [4]}
    assert served.ask_json("GET", "/v2/models/whole/config")[1]["max_batch_size"] == 0


def test_statistics_count_requests_samples_and_batches(served: Served) -> None:
    def stats() -> Any:
        return served.ask_json("GET", "/v2/models/matmul/stats")[1]["model_stats"][0]

    before = stats()
    for _ in range(3):
        assert infer(served, "matmul", inputs=[x_entry()])[0] == 200
    assert infer(served, "matmul", inputs=[])[0] == 400
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 3
    counts = {
        name: after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"]
        for name in ("success", "fail", *STAGES)
    }
    assert counts == {"success": 3, "fail": 1, **dict.fromkeys(STAGES, 3)}
    assert after["batch_stats"][0]["batch_size"] == 2
    assert all(after["inference_stats"][name]["ns"] > 0 for name in STAGES)
    assert all(after["batch_stats"][0][name]["ns"] > 0 for name in STAGES[1:])
    everything = served.ask_json("GET", "/v2/models/stats")[1]["model_stats"]
    assert len(everything) == 8


def test_a_failure_of_the_backend_is_no_success(served: Served) -> None:
    def counts() -> tuple[int, int]:
        model = served.ask_json("GET", "/v2/models/gather/stats")[1]["model_stats"][0]
        success, fail = (model["inference_stats"][name]["count"] for name in ("success", "fail"))
        return success, fail

    success, fail = counts()
    for index, status in ((1, 200), (99, 500)):
        assert infer(served, "gather", inputs=[entry("index", "INT64", [1], [index])])[0] == status
    assert counts() == (success + 1, fail + 1)


@pytest.mark.parametrize(
    ("model", "status"),
    [("nothing", 404), ("matmul/versions/2", 404), ("matmul/versions/one", 404)],
)
def test_unknown_models_and_versions_are_not_found(served: Served, model: str, status: int) -> None:
    assert infer(served, model, inputs=[x_entry()])[0] == status
    assert served.ask_json("GET", f"/v2/models/{model}")[0] == status


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": [7]},
        {"inputs": [x_entry(name="z")]},
        {"inputs": [x_entry(name=None)]},
        {"inputs": [x_entry(), x_entry()]},
        {"inputs": [x_entry(), x_entry(name="z")]},
        {"inputs": [x_entry(datatype="FP64")]},
        {"inputs": [x_entry(datatype="FP33")]},
        {"inputs": [x_entry(datatype="BYTES")]},
        {"inputs": [x_entry(shape=[1, 256])]},
        {"inputs": [x_entry(shape=[512])]},
        {"inputs": [x_entry(shape=[256], data=[0.0] * 256)]},
        {"inputs": [x_entry(shape=[-2, -256])]},
        {"inputs": [x_entry(shape=[2.0, 256])]},
        {"inputs": [x_entry(shape=[True, 512])]},
        {"inputs": [x_entry(shape=None)]},
        {"inputs": [x_entry(shape=[2**40, 2**40])]},
        {"inputs": [x_entry(shape=[2**62, 2**62, 0], data=[])]},
        {"inputs": [x_entry(shape=[2**61, 0], data=[])]},
        {"inputs": [x_entry(shape=[1] * 40)]},
        {"inputs": [x_entry(shape=[0, 256], data=[])]},
        {"inputs": [x_entry(shape=[65, 256], data=[0] * 65 * 256)]},
        {"inputs": [x_entry(data=None)]},
        {"inputs": [x_entry(data=["1"] * 512)]},
        {"inputs": [x_entry(data=[None] * 512)]},
        {"inputs": [x_entry(data=[[1], [2, 3]])]},
        {"inputs": [x_entry(data=[{}] * 512)]},
        {"inputs": [x_entry(parameters={"binary_data_size": 2048})]},
        {"inputs": [x_entry(parameters={"binary_data_size": -1})]},
        {"inputs": [x_entry(parameters={"binary_data_size": "2048"})]},
        {"inputs": [x_entry(parameters=7)]},
        {"inputs": [x_entry()], "outputs": [{"name": "z"}]},
        {"inputs": [x_entry()], "outputs": [{}]},
        {"inputs": [x_entry()], "outputs": "y"},
        {"inputs": [x_entry()], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        {"inputs": [x_entry()], "parameters": {"timeout": "soon"}},
        {"inputs": [x_entry()], "parameters": {"priority": -1}},
        {"inputs": [x_entry()], "id": 7},
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_does_not_fit_is_refused_with_a_reason(served: Served, document: Any) -> None:
    status, answer = infer(served, "matmul", **document)
    assert status == 400
    assert len(answer["error"]) > 10


def test_numbers_that_a_type_cannot_hold_are_refused(served: Served) -> None:
    a = entry("a", "FP32", [1, 4], [1, 2, 3, 4])
    for data in ([1.5, 2], [2**70, 1], [True, False], ["1", "2"]):
        status, _ = infer(served, "several", inputs=[a, entry("b", "INT64", [1, 2], data)])
        assert status == 400


def test_integers_of_any_size_that_a_type_holds_are_taken(served: Served) -> None:
    numbers = [1, 2**64 - 1, 5]
    for data in (numbers, [numbers]):
        inputs = [entry("x", "UINT64", [1, 3], data)]
        status, answer = infer(served, "unsigned", inputs=inputs)
        assert (status, answer["outputs"][0]["data"]) == (200, numbers)
    for data in ([1, 2**63, 5.0], [1, 2**63, -5], [1, 2**63, True], [1, 2, 1.5]):
        assert infer(served, "unsigned", inputs=[entry("x", "UINT64", [1, 3], data)])[0] == 400


@pytest.mark.parametrize("depth", [33, 900])
def test_text_nested_too_deep_is_refused(served: Served, depth: int) -> None:
    data: Any = "ab"
    for _ in range(depth):
        data = [data]
    status, answer = infer(served, "strings", inputs=[entry("x", "BYTES", [1], data)])
    assert status == 400
    assert "deep" in answer["error"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"inputs":'])
def test_bodies_that_are_no_json_object_are_refused(served: Served, body: bytes) -> None:
    assert served.ask("POST", "/v2/models/matmul/infer", body)[0] == 400


@pytest.mark.parametrize("length", ["abc", "-1", "99999", "1e3", "9" * 30, ""])
def test_wrong_lengths_of_the_json_are_refused(served: Served, length: str) -> None:
    body = json.dumps({"inputs": [x_entry()]}).encode()
    headers = {"Inference-Header-Content-Length": length}
    assert served.ask("POST", "/v2/models/matmul/infer", body[:9000], headers)[0] == 400


@pytest.mark.parametrize("size", [0, 1, 1023, 1025, 2048])
def test_bare_elements_of_another_size_are_refused(served: Served, size: int) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    assert served.ask("POST", "/v2/models/matmul/infer", bytes(size), headers)[0] == 400


def test_a_failure_of_the_backend_is_its_own(served: Served) -> None:
    def ask(index: int) -> tuple[int, Any]:
        return infer(served, "gather", inputs=[entry("index", "INT64", [1], [index])])

    assert ask(99)[0] == 500
    assert ask(1)[1]["outputs"][0]["data"] == [4.0, 5.0, 6.0, 7.0]
