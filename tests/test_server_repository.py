"""Model repositories in folders: layout, configuration, versions, reloading under load."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from classification import COLORS, model, picture, png
from models import cast_model, identity_model, matmul_model
from serving import Served, serving_sources
from tritonclient.grpc import service_pb2, service_pb2_grpc

from trtinfer.errors import ModelError
from trtinfer.server import model_config
from trtinfer.server.model import Model
from trtinfer.server.model_folder import Folder, FolderSource
from trtinfer.server.options import ServerOptions
from trtinfer.server.repository import Repository

FLOAT, DOUBLE = 1, 11
CPU = {"backend": "onnxruntime"}


def put(folder: Path, name: str, data: bytes, version: str = "1", config: str = "") -> None:
    place = folder / name / version
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.onnx").write_bytes(data)
    if config:
        (folder / name / "config.pbtxt").write_text(config)


def ask(served: Served, path: str, value: float = 1.5) -> float:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [value] * 3}]
    status, answer = served.ask_json("POST", f"/v2/models/{path}/infer", {"inputs": inputs})
    assert status == 200, answer
    return float(answer["outputs"][0]["data"][0])


def test_every_folder_is_a_model_and_its_newest_version_is_served(tmp_path: Path) -> None:
    put(tmp_path, "one", matmul_model())
    put(tmp_path, "two", identity_model(FLOAT), "3")
    put(tmp_path, "two", cast_model(FLOAT, DOUBLE), "12")
    put(tmp_path, "two", b"not a model", "backup")
    with serving_sources(list(Folder(tmp_path, CPU).sources())) as served:
        status, index = served.ask_json("POST", "/v2/repository/index")
        assert status == 200
        assert [(entry["name"], entry["version"]) for entry in index] == [
            ("one", "1"),
            ("two", "12"),
        ]
        assert served.ask_json("GET", "/v2/models/two/versions/3")[0] == 404
        assert ask(served, "two") == 1.5


def test_statistics_are_those_of_all_versions_or_of_one(tmp_path: Path) -> None:
    for version in ("1", "2", "10"):
        put(tmp_path, "m", identity_model(FLOAT), version, "version_policy: { all { } }")
    put(tmp_path, "other", identity_model(FLOAT))
    sources = list(Folder(tmp_path, CPU).sources())
    with (
        serving_sources(sources, grpc_port=0) as served,
        grpc.insecure_channel(served.grpc_address) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert ask(served, "m/versions/1") == 1.5
        for version, path, counts in (
            ("", "m/stats", {"1": 1, "2": 0, "10": 0}),
            ("2", "m/versions/2/stats", {"2": 0}),
        ):
            found = served.ask_json("GET", f"/v2/models/{path}")[1]["model_stats"]
            assert {stats["version"]: stats["inference_count"] for stats in found} == counts
            asked = service_pb2.ModelStatisticsRequest(name="m", version=version)
            answer = stub.ModelStatistics(asked).model_stats
            assert {stats.version: stats.inference_count for stats in answer} == counts
        assert served.ask_json("GET", "/v2/models/m/versions/3/stats")[0] == 404
        assert served.ask_json("GET", "/v2/models/nothing/stats")[0] == 404


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("all { }", ["1", "2", "10"]),
        ("latest { num_versions: 2 }", ["2", "10"]),
        ("specific { versions: [1, 10] }", ["1", "10"]),
    ],
)
def test_the_configuration_chooses_versions(
    tmp_path: Path, policy: str, versions: list[str]
) -> None:
    for version in ("1", "2", "10"):
        config = f"version_policy: {{ {policy} }}"
        put(tmp_path, "m", identity_model(FLOAT), version, config)
    with serving_sources(list(Folder(tmp_path, CPU).sources())) as served:
        assert served.ask_json("GET", "/v2/models/m")[1]["versions"] == versions
        assert ask(served, f"m/versions/{versions[0]}") == 1.5


def test_the_configuration_sets_what_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(
        tmp_path,
        "m",
        identity_model(FLOAT),
        config="""
            name: "m"  # optimization { in a comment }
            platform: "onnxruntime_onnx"
            max_batch_size: 8
            input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] reshape: { shape: [ 3 ] } } ]
            output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
            instance_group [ { count: 3 kind: KIND_CPU } ]
            dynamic_batching {
              max_queue_delay_microseconds: 100
              default_queue_policy { max_queue_size: 5 timeout_action: DELAY }
            }
            optimization { graph: { level: 1 } }
            parameters { key: "other" value: { string_value: "ensemble: {" } }
        """,
    )
    with caplog.at_level(logging.WARNING, "trtinfer"):
        (source,) = Folder(tmp_path, CPU).sources()
        with serving_sources([source]) as served:
            config = served.ask_json("GET", "/v2/models/m/config")[1]
    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 100}
    assert config["instance_group"][0]["count"] == 3
    (warning,) = caplog.messages
    assert warning.endswith(
        "no effect here: graph, level, optimization, reshape, shape, timeout_action"
    )


def test_a_recipe_and_labels_make_a_classifier(tmp_path: Path) -> None:
    config = """
        output [ { name: "answer" label_filename: "labels.txt" } ]
        parameters { key: "recipe" value: { string_value: "torchvision" } }
    """
    put(tmp_path, "colors", model_of_size(), config=config)
    (tmp_path / "colors" / "labels.txt").write_text("\n".join(COLORS))
    with serving_sources(list(Folder(tmp_path, CPU).sources())) as served:
        status, body, _ = served.ask("POST", "/classify?top_k=1", png(picture("blue")))
        assert status == 200
        assert json.loads(body)["image"][0][1] == "blue"


def model_of_size() -> bytes:
    """The classifier of colors for pictures of any size."""
    import onnx

    built = onnx.load_from_string(model())
    for axis in (2, 3):
        built.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 224
    return built.SerializeToString()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('name: "other"', "configuration of a model 'other'"),
        ("max_batch_size: many", "cannot be read"),
        ('input [ { name: "z" } ]', "has the input 'z'"),
        ("version_policy { specific { versions: [7] } }", "version 7 is not there"),
        ('default_model_filename: "../../../secret.onnx"', "within the repository"),
        ('default_model_filename: "/etc/passwd"', "within the repository"),
        ('default_model_filename: "other.onnx"', "'other.onnx'.*No such file"),
        ('parameters { key: "recipe" value { string_value: "x" } }', "config.pbtxt: .*recipe"),
        ("max_batch_size: 2000000000", "config.pbtxt: .*batch"),
        ("instance_group { count: 2000000000 }", "config.pbtxt: .*inflight"),
    ],
)
def test_configurations_that_cannot_be_followed_are_refused(
    tmp_path: Path, config: str, reason: str
) -> None:
    (tmp_path / "secret.onnx").write_bytes(identity_model(FLOAT))
    folder = tmp_path / "repository"
    put(folder, "m", identity_model(FLOAT), config=config)
    with pytest.raises(ModelError, match=reason):
        FolderSource(folder / "m", CPU).open()


@pytest.mark.parametrize("option", ["default_model_filename", "label_filename"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "name too long"),
        ("x/" * 3000, "No such file"),
        (r"a\000b", "embedded null"),
        ("../../../secret.txt", "out of the repository"),
        ("/etc/passwd", "out of the repository"),
        (".", "no file"),
        ("missing", "No such file"),
    ],
    ids=["long", "deep", "null", "up", "absolute", "folder", "missing"],
)
def test_a_load_is_refused_where_a_name_of_a_file_cannot_be_followed(
    tmp_path: Path, option: str, name: str, reason: str
) -> None:
    folder = Folder(tmp_path / "models" / "repository", CPU)
    put(folder.path, "good", identity_model(FLOAT))
    for place in (tmp_path, tmp_path / "models"):
        (place / "secret.txt").write_bytes(b"secret")
    named = f'{option}: "{name}"'
    config = named if option == "default_model_filename" else f"output [ {{ {named} }} ]"
    with serving_sources(list(folder.sources()), allow_repository_control=True) as served:
        put(folder.path, "good", identity_model(FLOAT), config=config)
        status, answer = served.ask_json("POST", "/v2/repository/models/good/load")
        assert status == 400
        assert option in answer["error"]
        assert reason in answer["error"]
        assert ask(served, "good") == 1.5


def test_a_link_out_of_the_repository_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.onnx").write_bytes(identity_model(FLOAT))
    place = tmp_path / "repository" / "m" / "1"
    place.mkdir(parents=True)
    (place / "model.onnx").symlink_to(tmp_path / "secret.onnx")
    with pytest.raises(ModelError, match="within the repository"):
        FolderSource(place.parent, CPU).open()


def test_a_missing_configuration_has_only_defaults(tmp_path: Path) -> None:
    assert not model_config.read(tmp_path / "config.pbtxt").ListFields()


def test_clients_load_what_has_come_since(tmp_path: Path) -> None:
    put(tmp_path, "first", identity_model(FLOAT))
    folder = Folder(tmp_path, CPU)
    options = ServerOptions(http_port=0, grpc_port=None, allow_repository_control=True)
    served = Served(list(folder.sources()), options, folder.find)
    try:
        put(tmp_path, "second", identity_model(FLOAT))
        load = "/v2/repository/models/{}/load".format
        assert served.ask_json("POST", load("second"))[0] == 200
        assert ask(served, "second") == 1.5
        for name in ("third", "..", "%2e%2e", "..%2f..", ".", "first%00", "x" * 300):
            assert served.ask_json("POST", load(name))[0] == 404
        put(tmp_path, "first", b"broken", "2")
        assert served.ask_json("POST", load("first"))[0] == 400
        assert ask(served, "first") == 1.5
    finally:
        served.stop()


@dataclass
class HeldSource:
    """Opens a model only once it is let."""

    source: FolderSource
    begun: threading.Event = field(default_factory=threading.Event)
    let: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return self.source.name

    def open(self) -> list[Model]:
        self.begun.set()
        assert self.let.wait(30)
        return self.source.open()


async def give_up(repository: Repository, source: HeldSource) -> None:
    """Asks for a load and goes away while the model is opened."""
    asking = asyncio.ensure_future(repository.load(source.name))
    assert await asyncio.to_thread(source.begun.wait, 30)
    asking.cancel()
    await asyncio.wait((asking,))
    assert asking.cancelled()


def test_a_load_goes_on_without_the_client_that_asked(tmp_path: Path) -> None:
    put(tmp_path, "m", identity_model(FLOAT))
    source = HeldSource(FolderSource(tmp_path / "m", CPU))

    async def run() -> None:
        repository = Repository([source])
        await give_up(repository, source)
        source.let.set()
        end = time.monotonic() + 30
        while not repository.ready:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        await repository.close()

    asyncio.run(run())


@pytest.mark.parametrize("data", [identity_model(FLOAT), b"broken"], ids=["good", "broken"])
def test_the_end_waits_for_a_load_that_nobody_waits_for(tmp_path: Path, data: bytes) -> None:
    put(tmp_path, "m", data)
    source = HeldSource(FolderSource(tmp_path / "m", CPU))
    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        repository = Repository([source])
        await give_up(repository, source)
        loop.call_later(0.1, source.let.set)
        await repository.close()
        assert source.let.is_set()
        assert not list(repository)
        gc.collect()

    asyncio.run(run())
    assert not complaints


def test_clients_control_nothing_unless_allowed(tmp_path: Path) -> None:
    put(tmp_path, "m", identity_model(FLOAT))
    with serving_sources(list(Folder(tmp_path, CPU).sources())) as served:
        for verb in ("load", "unload"):
            assert served.ask_json("POST", f"/v2/repository/models/m/{verb}")[0] == 403
        region = {"key": "/x", "offset": 0, "byte_size": 1}
        path = "/v2/systemsharedmemory/region/r/register"
        assert served.ask_json("POST", path, region)[0] == 403
        assert ask(served, "m") == 1.5


def test_no_request_is_lost_while_a_model_is_reloaded(tmp_path: Path) -> None:
    put(tmp_path, "m", identity_model(FLOAT))
    sources = list(Folder(tmp_path, CPU).sources())
    stop = threading.Event()
    answers: list[float] = []
    errors: list[BaseException] = []

    def load(served: Served, value: float) -> None:
        try:
            while not stop.is_set():
                assert ask(served, "m", value) == value
                answers.append(value)
        except BaseException as error:
            errors.append(error)

    with serving_sources(sources, allow_repository_control=True) as served:
        threads = [threading.Thread(target=load, args=(served, float(i))) for i in range(4)]
        for thread in threads:
            thread.start()
        for version in range(2, 12):
            put(tmp_path, "m", identity_model(FLOAT), str(version))
            assert served.ask_json("POST", "/v2/repository/models/m/load")[0] == 200
        stop.set()
        for thread in threads:
            thread.join()
        assert served.ask_json("GET", "/v2/models/m")[1]["versions"] == ["11"]
    assert not errors
    assert len(answers) > 20
    assert np.unique(answers).size == 4
