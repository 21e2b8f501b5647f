"""Real plans of real models, built by TensorRT for RTX, which needs no GPU for it."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

import onnx
import pytest
import rtx
from models import (
    FLOAT,
    INT64,
    build,
    identity_model,
    matmul_model,
    several_model,
    tensor,
    varying_model,
    whole_model,
)
from onnx import helper

from trtinfer import _core, default_model, tf32_override
from trtinfer.batching import BatchAxis
from trtinfer.build_options import BuildOptions
from trtinfer.build_target import find_target, parse_capability
from trtinfer.cli import main
from trtinfer.errors import BackendError, ModelError
from trtinfer.model_description import describe
from trtinfer.model_source import ModelSource
from trtinfer.onnxruntime_backend import library_path
from trtinfer.plan_cache import PlanCache
from trtinfer.plans import Plan, PlanBuilder, build_plans, write_plans

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
ROWS = BatchAxis(batched=True)
options = functools.partial(BuildOptions, compute_capabilities=(parse_capability(rtx.CAPABILITY),))


@pytest.fixture
def library() -> _core.TensorRtLibrary:
    return rtx.library()


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def builder(
    model: str | Path | bytes,
    cache: PlanCache | None = None,
    axis: BatchAxis = ROWS,
    build_options: BuildOptions | None = None,
) -> PlanBuilder:
    source = ModelSource(model)
    return PlanBuilder(rtx.library(), source, axis, build_options or options(), cache)


def is_plan(data: bytes) -> bool:
    return len(data) > 1000 and data[:4] == b"vtrt"  # what every plan of this library begins with


# --- Building ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("library")
def test_default_model_gets_a_plan_for_each_bucket(cache: PlanCache) -> None:
    path = default_model.path()
    description = describe(ModelSource(path), cache)
    assert description.axis == ROWS
    seen: list[Plan] = []
    plans = build_plans(builder(path, cache), (8, 1), seen.append)
    assert list(plans) == [1, 8]
    assert all(map(is_plan, plans.values()))
    assert plans[1] != plans[8]
    assert [(plan.bucket, plan.built) for plan in seen] == [(1, True), (8, True)]
    again: list[Plan] = []
    assert build_plans(builder(path, cache), (1, 8), again.append) == plans
    assert [plan.built for plan in again] == [False, False]


@pytest.mark.usefixtures("library")
def test_model_of_the_onnx_wheel_with_a_fixed_batch(cache: PlanCache) -> None:
    path = LIGHT / "light_squeezenet.onnx"
    axis = describe(ModelSource(path), cache).axis
    assert axis == BatchAxis(batched=True, fixed=1)
    assert is_plan(builder(path, cache, axis).plan(1).data)
    with pytest.raises(ModelError, match="batch size is 1, not 8"):
        builder(path, cache, axis).plan(8)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_makes_plans_smaller(cache: PlanCache, precision: str) -> None:
    path = default_model.path()
    full = builder(path, cache).plan(1).data
    half = builder(path, cache, ROWS, options(precision)).plan(1).data
    assert is_plan(half)
    assert len(half) < 0.7 * len(full)


@pytest.mark.usefixtures("library")
def test_plans_are_kept_apart_by_the_override_of_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tf32_override.VARIABLE, raising=False)
    rounded = builder(matmul_model(), None, ROWS, options(tf32=True))
    assert b"nvidia_tf32_override=-1" in rounded.plan(1).data
    allowed = rounded.key(1)
    exact = builder(matmul_model(), None, ROWS, options())
    assert b"nvidia_tf32_override=0" in exact.plan(1).data
    assert builder(matmul_model(), None, ROWS, options(tf32=True)).key(1) != allowed


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("value", ["0", "1"])
def test_an_override_that_the_user_set_stays(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(tf32_override.VARIABLE, value)
    plan = builder(matmul_model(), None, ROWS, options()).plan(1).data
    assert f"nvidia_tf32_override={value}".encode() in plan
    assert tf32_override.current() == value


@pytest.mark.usefixtures("library")
def test_precision_that_the_model_does_not_have_is_refused(cache: PlanCache) -> None:
    with pytest.raises(ModelError, match="no QuantizeLinear"):
        builder(matmul_model(), cache, ROWS, options("int8-qdq")).plan(1)
    assert cache.entries() == []


@pytest.mark.usefixtures("library")
def test_external_weights_are_found(tmp_path: Path, cache: PlanCache) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.load_from_string(matmul_model())
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    for precision in ("fp32", "fp16"):
        assert is_plan(builder(path, cache, ROWS, options(precision)).plan(4).data)


@pytest.mark.usefixtures("library")
def test_several_inputs_share_the_batch() -> None:
    assert is_plan(builder(several_model()).plan(4).data)


@pytest.mark.usefixtures("library")
def test_model_without_batch_axis_has_one_plan() -> None:
    axis = BatchAxis(batched=False)
    assert is_plan(builder(whole_model(), None, axis).plan(1).data)
    with pytest.raises(ModelError, match="only bucket is 1, not 2"):
        builder(whole_model(), None, axis).plan(2)


@pytest.mark.usefixtures("library")
def test_dynamic_plan_is_one_for_all_buckets(cache: PlanCache) -> None:
    plans = builder(matmul_model(), cache, ROWS, options(dynamic_batch=True))
    seen: list[Plan] = []
    (data,) = build_plans(plans, (1, 4, 8), seen.append).values()
    assert is_plan(data)
    assert [(plan.smallest, plan.bucket) for plan in seen] == [(1, 8)]
    static = builder(matmul_model(), cache).plan(8).data
    assert [b"dims={ 8 256 }" in plan for plan in (data, static)] == [False, True]
    assert plans.plan(8).data == data
    assert len(cache.entries()) == 2


@pytest.mark.usefixtures("library")
def test_model_with_one_batch_size_has_no_dynamic_plan() -> None:
    wanted = options(dynamic_batch=True)
    for model, axis, bucket in (
        (matmul_model(4), BatchAxis(batched=True, fixed=4), 4),
        (whole_model(), BatchAxis(batched=False), 1),
    ):
        plans = builder(model, None, axis, wanted)
        assert not plans.is_dynamic
        assert plans.key(bucket) == builder(model, None, axis).key(bucket)
        assert plans.plan(bucket).smallest == bucket


@pytest.mark.usefixtures("library")
def test_what_tensorrt_refuses_is_named(cache: PlanCache) -> None:
    node = helper.make_node("Unknown", ["x"], ["y"], domain="nobody", name="odd one")
    graph = helper.make_graph([node], "g", [tensor("x", ["n", 2])], [tensor("y", ["n", 2])])
    imports = [helper.make_opsetid("", 19), helper.make_opsetid("nobody", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    with pytest.raises(ModelError, match="odd one"):
        builder(model.SerializeToString(), cache).plan(1)
    assert cache.entries() == []


@pytest.mark.usefixtures("library")
def test_builds_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trtinfer")
    builder(matmul_model()).plan(4)
    assert "built the plan of model for batch 4 in" in caplog.text


# --- Dimensions that vary ---------------------------------------------------------------------


@pytest.mark.usefixtures("library")
def test_sizes_of_what_varies_have_to_be_given() -> None:
    with pytest.raises(ModelError, match=r"dimension 1 of input x \(\?, \?\) varies.*dimensions="):
        builder(varying_model()).plan(1)
    ranges = options(dimensions={"x": {1: (1, 64, 128)}})
    assert is_plan(builder(varying_model(), None, ROWS, ranges).plan(1).data)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"z": {1: (1, 1, 1)}}, "given for z, but the inputs are x"),
        ({"x": {0: (1, 1, 1)}}, r"dimension 0 of input x \(\?, \?\) is none"),
        ({"x": {1: (1, 1, 1), 2: (1, 1, 1)}}, "dimension 2 of input x"),
    ],
)
def test_sizes_that_fit_nothing_are_refused(dimensions, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        builder(varying_model(), None, ROWS, options(dimensions=dimensions)).plan(1)


@pytest.mark.usefixtures("library")
def test_input_that_decides_shapes_is_refused() -> None:
    model = build(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x", ["n", 4]), tensor("shape", [2], INT64)],
        [tensor("y", ["a", "b"], FLOAT)],
    )
    with pytest.raises(ModelError, match="input shape decides the shapes"):
        builder(model).plan(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"precision": "fp8"},
        {"workspace_bytes": -1},
        {"optimization_level": 6},
        {"dimensions": {"x": {1: (2, 1, 3)}}},
        {"dimensions": {"x": {1: (0, 1, 3)}}},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("dimensions", "dimension 1")):
        BuildOptions(**wrong)


# --- Keys -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("library")
def test_everything_that_a_plan_depends_on_is_in_its_key() -> None:
    ranges = {"x": {1: (1, 2, 3)}}
    variants = [
        builder(matmul_model()).key(1),
        builder(matmul_model()).key(2),
        builder(matmul_model(), None, ROWS, options(dynamic_batch=True)).key(2),
        builder(matmul_model() + b"\0").key(1),
        builder(matmul_model(), None, BatchAxis(batched=False)).key(1),
        *(
            builder(matmul_model(), None, ROWS, changed).key(1)
            for changed in (
                options("fp16"),
                options("fp16", keep_io_types=False),
                options("bf16"),
                options("int8-qdq"),
                options(tf32=True),
                options(workspace_bytes=1 << 30),
                options(optimization_level=5),
                options(dimensions=ranges),
                BuildOptions(compute_capabilities=(86,)),
                BuildOptions(compute_capabilities=(86, 89)),
                BuildOptions(compute_capabilities=(90,)),
            )
        ),
        builder(matmul_model()).runtime_cache_key(),
    ]
    texts = {json.dumps(key, sort_keys=True) for key in variants}
    assert len(texts) == len(variants)
    assert all("TensorRT for RTX 1." in text for text in texts)


@pytest.mark.usefixtures("library")
def test_name_and_place_of_a_model_are_not_in_its_key(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(matmul_model())
    assert builder(tmp_path / "other.onnx").key(1) == builder(matmul_model()).key(1)


def test_kernels_are_kept_beside_plans(library, cache: PlanCache) -> None:
    plans = builder(matmul_model(), cache)
    plan = plans.plan(1).data
    for kernels in (b"of bucket 1", b"of buckets 1 and 8"):
        assert cache.put(plans.runtime_cache_key(), kernels)
    assert cache.get(plans.runtime_cache_key()) == b"of buckets 1 and 8"
    assert cache.get(plans.key(1)) == plan


# --- Targets ----------------------------------------------------------------------------------


def test_capability_is_two_numbers() -> None:
    assert [parse_capability(text) for text in ("7.5", "8.9", "12.0", " 9.0 ")] == [75, 89, 120, 90]
    for text in ("", "8", "89", "8.", "8.10", "a.b", "-8.9", "8.9a"):
        with pytest.raises(ValueError, match="no compute capability"):
            parse_capability(text)


def test_several_gpus_can_be_built_for(library) -> None:
    assert find_target(library, [89, 86, 89]).compute_capabilities == (86, 89)
    assert find_target(library, [89, 86]).gpu == "8.6 8.9"


def test_gpu_that_is_no_target_is_left_open(library) -> None:
    target = find_target(library, [90])
    assert (target.gpu, target.compute_capabilities) == ("9.0", ())
    assert is_plan(
        builder(matmul_model(), None, ROWS, BuildOptions(compute_capabilities=(90,))).plan(1).data
    )


@pytest.mark.skipif(bool(_core.probe_cuda().devices), reason="there is a GPU")
def test_without_gpu_a_capability_has_to_be_named(library) -> None:
    with pytest.raises(BackendError, match=r"no GPU 0 .*name a compute capability"):
        find_target(library)


@pytest.mark.gpu
def test_gpu_at_hand_is_built_for(library) -> None:
    major, minor = _core.probe_cuda().devices[0].compute_capability
    assert find_target(library) == find_target(library, [10 * major + minor])
    plan = builder(matmul_model(), None, ROWS, BuildOptions()).plan(4).data
    engine = _core.TensorRtEngine(library, plan)
    x = next(tensor for tensor in engine.tensors if tensor.is_input)
    assert engine.profile_shapes(x.name).min == engine.profile_shapes(x.name).max == [4, 256]


# --- Descriptions -----------------------------------------------------------------------------


def test_description_is_kept(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource(several_model())
    found = describe(source, cache)
    assert found.inputs == (("a", (-1, 4)), ("b", (-1, 2)))
    assert found == describe(source)
    monkeypatch.setattr("trtinfer.model_description.library_path", lambda: "/absent")
    assert describe(ModelSource(several_model()), cache) == found
    with pytest.raises((BackendError, ModelError), match="/absent"):
        describe(source, cache, batched=True)  # another question


def test_recipe_decides_what_varies() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    shape = ["n", 3, "height", "width"]
    source = ModelSource(build([node], [tensor("x", shape)], [tensor("y", shape)]))
    description = describe(source, batched=True)
    assert description.dimensions_of((3, 224, 192)) == {"x": {2: (224,) * 3, 3: (192,) * 3}}
    with pytest.raises(ModelError, match=r"takes no rows of \(1, 224, 224\)"):
        description.dimensions_of((1, 224, 224))
    assert describe(ModelSource(matmul_model())).dimensions_of((256,)) == {}


@pytest.mark.parametrize(
    ("element_type", "name"),
    [
        (onnx.TensorProto.STRING, "object"),
        (onnx.TensorProto.DOUBLE, "float64"),
        (onnx.TensorProto.INT16, "int16"),
    ],
)
def test_values_that_engines_do_not_have_are_refused(element_type: int, name: str) -> None:
    with pytest.raises(ModelError, match=rf"no inputs or outputs like x: {name}\["):
        describe(ModelSource(identity_model(element_type)))


@pytest.mark.usefixtures("library")
def test_cpu_takes_over_with_the_types_of_the_plans() -> None:
    half = builder(matmul_model(), None, ROWS, options("fp16", keep_io_types=False))
    for same in (options(), options("fp16")):
        assert builder(matmul_model(), None, ROWS, same).model_for_cpu()() == matmul_model()
    native = _core.OnnxRuntimeModel(library_path(), half.model_for_cpu()(), 1, 1, {})
    assert [x.element_type for x in native.inputs] == [onnx.TensorProto.FLOAT16]


def test_plan_is_no_model_to_build() -> None:
    with pytest.raises(ModelError, match="a plan of TensorRT for RTX already; give the ONNX model"):
        describe(ModelSource(b"vtrt" + bytes(100)))


# --- Command line -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: model.onnx, and the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.onnx").write_bytes(matmul_model())
    return tmp_path


def run(*arguments: str) -> int:
    return main(["build", "model.onnx", "--compute-capability", rtx.CAPABILITY, *arguments])


@pytest.mark.usefixtures("library")
def test_command_fills_the_cache(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--max-batch-size", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["batch 1", "batch 2", "batch 4"]
    assert all("MB, built in" in line for line in lines[:3])
    assert lines[3].endswith(f"GPU 8.9, fp32: {folder}/cache/plans")
    assert run("--buckets", "4,1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", ")[2] for line in lines[:2]] == ["already there"] * 2
    assert len(lines) == 3


@pytest.mark.usefixtures("library")
def test_command_writes_plan_files(folder: Path) -> None:
    arguments = ("--buckets", "1,8", "--precision", "fp16", "--output", "out/plans")
    assert run(*arguments) == 0
    files = sorted((folder / "out" / "plans").iterdir())
    assert [file.name for file in files] == ["model-fp16-b1.plan", "model-fp16-b8.plan"]
    assert all(is_plan(file.read_bytes()) for file in files)
    assert not (folder / "cache").exists()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("arguments", "said"), [([], b"tf32=0"), (["--tf32"], b"tf32=1")])
def test_plan_says_whether_tf32_is_allowed(
    folder: Path, arguments: list[str], said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tf32_override.VARIABLE, raising=False)
    assert run("--buckets", "1", "--output", "plans", *arguments) == 0
    assert said in (folder / "plans" / "model-fp32-b1.plan").read_bytes()


@pytest.mark.usefixtures("library")
def test_command_builds_a_dynamic_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dynamic-batch", "--max-batch-size", "16", "--output", "out") == 0
    assert capsys.readouterr().out.startswith("batch 1 to 16: ")
    (file,) = (folder / "out").iterdir()
    assert file.name == "model-fp32-dynamic-b16.plan"
    assert is_plan(file.read_bytes())


@pytest.mark.usefixtures("library")
def test_command_takes_sizes(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(varying_model())
    assert run("--buckets", "1") == 2
    assert run("--buckets", "1", "--dimension", "x:1=1,64,128") == 0
    assert run("--buckets", "1", "--dimension", "x:1=64") == 0


@pytest.mark.usefixtures("library", "folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--buckets", "1,x"), "'x' is no whole number"),
        (("--buckets", "1,8", "--max-batch-size", "4"), "max_batch_size (4)"),
        (("--dimension", "x=3"), "INPUT:AXIS=MIN,OPT,MAX"),
        (("--dimension", "x:1=1,2"), "INPUT:AXIS=MIN,OPT,MAX"),
        (("--compute-capability", "89"), "'89' is no compute capability"),
        (("--tensorrt", "/absent"), "/absent"),
        (("--recipe", "torchvision"), "takes no rows of (3, 224, 224)"),
    ],
)
def test_command_says_what_is_wrong(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


def test_plans_are_not_written_over_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cannot write .*model-b1\.plan"):
        write_plans({1: b"plan"}, tmp_path / "file", "model")
