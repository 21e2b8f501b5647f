"""POST /classify: pictures in, ordered (probability, label) pairs out."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from classification import COLORS, picture, png, ultralytics
from models import matmul_model
from serving import Served, serving

PICTURES = {color: png(picture(color)) for color in COLORS}
ANSWER = [[0.999909, "red"], [4.5e-05, "green"], [4.5e-05, "blue"]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = {"plain": matmul_model(), "colors": ultralytics()}
    with serving(models, tmp_path_factory.mktemp("models")) as served:
        yield served


def form(*files: tuple[str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form as curl -F image=@FILE sends it, and its headers."""
    parts = []
    for name, data in files:
        filename = "" if name is None else f'; filename="{name}"'
        head = f'--cut\r\nContent-Disposition: form-data; name="image"{filename}\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    body = b"".join(parts) + b"--cut--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=cut"}


def test_a_form_becomes_a_map_from_name_to_pairs(served: Served) -> None:
    files = [(f"{color}.png", data) for color, data in PICTURES.items()]
    status, body, _ = served.ask("POST", "/classify", *form(*files))
    answers = json.loads(body)
    assert status == 200
    assert list(answers) == ["red.png", "green.png", "blue.png"]
    assert answers["red.png"] == ANSWER
    assert [pairs[0][1] for pairs in answers.values()] == list(COLORS)


def test_a_bare_image_needs_no_form(served: Served) -> None:
    status, body, _ = served.ask("POST", "/classify?top_k=1", PICTURES["blue"])
    assert (status, json.loads(body)) == (200, {"image": [[0.999909, "blue"]]})


def test_the_model_may_be_chosen(served: Served) -> None:
    assert served.ask("POST", "/classify?model=colors", PICTURES["red"])[0] == 200
    assert served.ask("POST", "/classify?model=plain", PICTURES["red"])[0] == 400
    assert served.ask("POST", "/classify?model=nothing", PICTURES["red"])[0] == 404


def test_a_bad_image_fails_alone(served: Served) -> None:
    sent = form(("bad.png", b"no image"), ("red.png", PICTURES["red"]))
    status, body, _ = served.ask("POST", "/classify", *sent)
    answers = json.loads(body)
    assert status == 200
    assert "is not a readable image" in answers["bad.png"]["error"]
    assert answers["red.png"] == ANSWER


def test_bad_images_only_are_a_bad_request(served: Served) -> None:
    for data in (b"no image", PICTURES["red"][:60], b""):
        status, body, _ = served.ask("POST", "/classify", data)
        assert status == 400
        assert "error" in json.loads(body)["image"]


def test_images_of_one_name_are_told_apart(served: Served) -> None:
    sent = form(("a.png", PICTURES["red"]), ("a.png", PICTURES["blue"]), (None, PICTURES["green"]))
    answers = json.loads(served.ask("POST", "/classify?top_k=1", *sent)[1])
    labels = {name: pairs[0][1] for name, pairs in answers.items()}
    assert labels == {"a.png": "red", "a.png (2)": "blue", "image": "green"}


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "", "1e3", "9" * 50, "000000001" * 500])
def test_other_numbers_of_labels_are_refused(served: Served, top_k: str) -> None:
    assert served.ask("POST", f"/classify?top_k={top_k}", PICTURES["red"])[0] == 400


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; x=y"]
)
def test_forms_that_cannot_be_read_are_refused(served: Served, kind: str) -> None:
    body = form(("a.png", PICTURES["red"]))[0]
    assert served.ask("POST", "/classify", body, {"Content-Type": kind})[0] == 400


@pytest.mark.parametrize("cut", [0, 1, 5, 40, 100])
def test_truncated_forms_are_refused(served: Served, cut: int) -> None:
    body, headers = form(("a.png", PICTURES["red"]))
    assert served.ask("POST", "/classify", body[:cut], headers)[0] == 400


def test_more_images_than_a_request_may_have_are_refused(served: Served) -> None:
    assert served.ask("POST", "/classify", *form(*[("a", b"x")] * 300))[0] == 400


def test_image_files_are_elements_of_a_bytes_tensor(served: Served) -> None:
    files = [PICTURES["red"], PICTURES["blue"]]
    raw = b"".join(len(data).to_bytes(4, "little") + data for data in files)
    size = {"binary_data_size": len(raw)}
    for shape in ([2], [2, 1]):
        head = json.dumps(
            {
                "inputs": [
                    {"name": "images", "datatype": "BYTES", "shape": shape, "parameters": size}
                ],
                "outputs": [{"name": "answer", "parameters": {"classification": 1}}],
            }
        ).encode()
        status, body, _ = served.ask(
            "POST",
            "/v2/models/colors/infer",
            head + raw,
            {"Inference-Header-Content-Length": str(len(head))},
        )
        assert status == 200
        (output,) = json.loads(body)["outputs"]
        assert output["data"] == ["0.999909:0:red", "0.999909:2:blue"]


@pytest.mark.parametrize("shape", [[1, 3], [1, 1, 3], [3, 2], [3, 0]])
def test_image_files_in_another_shape_are_refused(served: Served, shape: list[int]) -> None:
    data = ["no image"] * int(np.prod(shape))
    inputs = [{"name": "images", "datatype": "BYTES", "shape": shape, "data": data}]
    status, answer = served.ask_json("POST", "/v2/models/colors/infer", {"inputs": inputs})
    assert status == 400
    assert f"has the shape [-1, 1] (-1: any), {shape} was received" in answer["error"]


def test_pixels_are_taken_as_a_tensor(served: Served) -> None:
    pixels = picture("green")
    inputs = [
        {
            "name": "images",
            "datatype": "UINT8",
            "shape": list(pixels.shape),
            "data": pixels.ravel().tolist(),
        }
    ]
    status, answer = served.ask_json("POST", "/v2/models/colors/infer", {"inputs": inputs})
    assert status == 200
    assert answer["outputs"][0]["shape"] == [1, 3]
    assert np.argmax(answer["outputs"][0]["data"]) == 1


def test_a_bare_image_is_an_inference_too(served: Served) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    status, body, got = served.ask("POST", "/v2/models/colors/infer", PICTURES["red"], headers)
    assert status == 200
    length = int(got["inference-header-content-length"])
    assert np.argmax(np.frombuffer(body[length:], np.float32)) == 0
