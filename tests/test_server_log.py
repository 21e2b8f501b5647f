"""The logging extension: kinds of messages on and off by themselves, requests when verbose."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
from models import matmul_model
from serving import Served, serving

logger = logging.getLogger("trtinfer")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving({"m": matmul_model()}, tmp_path, grpc_port=0) as served:
        yield served


def change(served: Served, **settings: Any) -> dict[str, Any]:
    status, answer = served.ask_json("POST", "/v2/logging", settings)
    assert status == 200
    assert isinstance(answer, dict)
    return answer


def test_a_kind_is_off_by_itself(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    answer = change(served, log_info=True, log_error=False)
    assert (answer["log_info"], answer["log_warning"], answer["log_error"]) == (True, True, False)
    logger.info("one")
    logger.warning("two")
    logger.error("three")
    change(served, log_info=False, log_error=True)
    logger.info("four")
    logger.error("five")
    assert caplog.messages == ["one", "two", "five"]


def test_every_request_is_logged_when_verbose(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.ask("GET", "/v2")
    assert change(served, log_verbose_level=1)["log_verbose_level"] == 1
    served.ask("GET", "/v2/nothing")
    with tritonclient.grpc.InferenceServerClient(served.grpc_address) as client:
        assert client.is_server_live()
        client.update_log_settings({"log_verbose_level": 0})
    served.ask("GET", "/v2")
    assert caplog.messages == ["POST /v2/logging: 200", "GET /v2/nothing: 404", "ServerLive: OK"]


def test_both_protocols_tell_the_same(served: Served) -> None:
    answer = change(served, log_warning=False, log_verbose_level=3)
    with tritonclient.grpc.InferenceServerClient(served.grpc_address) as client:
        told = client.get_log_settings(as_json=True)["settings"]
    assert {name: next(iter(value.values()), None) for name, value in told.items()} == answer


def test_a_body_of_a_question_changes_no_setting(served: Served) -> None:
    before = served.ask_json("GET", "/v2/logging")
    assert served.ask_json("GET", "/v2/logging", {"log_verbose_level": 9}) == before
    assert served.ask_json("GET", "/v2/logging") == before


def test_the_logger_is_left_as_it_was(tmp_path: Path) -> None:
    before = logger.level, list(logger.filters)
    with serving({"m": matmul_model()}, tmp_path) as served:
        change(served, log_verbose_level=1, log_error=False)
        assert logger.level == logging.DEBUG
    assert (logger.level, list(logger.filters)) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"log_info": 1},
        {"log_verbose_level": -1},
        {"log_verbose_level": True},
        {"log_verbose_level": 1 << 32},
        {"log_file": "/tmp/elsewhere"},
        {"log_format": "ISO8601"},
        {"unknown": True},
        {"log_info": False, "log_error": "no"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_change_nothing(served: Served, settings: dict[str, Any]) -> None:
    before = served.ask_json("GET", "/v2/logging")
    assert served.ask_json("POST", "/v2/logging", settings)[0] == 400
    assert served.ask_json("GET", "/v2/logging") == before
