"""The bare replay of an engine, which benches compare with."""

from __future__ import annotations

import models
import numpy as np
import pytest

from trtinfer import ModelError, _core, tensorrt_library

pytestmark = pytest.mark.gpu

ROWS = np.random.default_rng(0).random((4, 256), np.float32)


@pytest.fixture(scope="module")
def engine() -> _core.TensorRtEngine:
    library = tensorrt_library.find()
    if not library.can_build:
        pytest.skip(library.build_reason)
    builder = _core.TensorRtBuilder(library)
    builder.parse(models.matmul_model())
    plan, _ = builder.build({"x": _core.TensorRtShapeRange(*([4, 256],) * 3)})
    return _core.TensorRtEngine(library, plan)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("transfers", [False, True])
@pytest.mark.parametrize("lanes", [1, 2])
def test_replays_what_the_model_says(engine, lanes, transfers, in_turn):
    replay = _core.EngineReplay(engine, [ROWS], lanes=lanes, transfers=transfers, in_turn=in_turn)
    alone = replay.time_alone(50)
    assert len(alone) == 50
    assert 0 < min(alone) <= max(alone) < 1
    assert 0 < replay.time_saturated(50) < 1
    got = np.frombuffer(replay.outputs()[0], np.float32).reshape(4, 16)
    expected = ROWS @ models.WEIGHTS
    assert np.abs(got - expected).max() <= 1e-3 * np.ptp(expected)


@pytest.mark.parametrize("inputs", [[], [ROWS[:3]], [ROWS.astype(np.float64)]])
def test_inputs_of_another_size_are_an_error(engine, inputs):
    with pytest.raises(ModelError, match="4096 bytes"):
        _core.EngineReplay(engine, inputs)
