"""A request's log record is one JSON object a line where Ray writes JSON, without a user."""

from __future__ import annotations

import json
import logging

import pytest
from ray._common.formatters import JSONFormatter

from recsys.serving.logs import log_access
from recsys.serving.security.principal import Principal

SECRET = "alice-7731"


def test_the_fields_are_json_where_ray_writes_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "recsys.serving.access")
    state = {
        "request_id": "r-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "principal": Principal("shop", frozenset({"read"})),
        "model_version": "abc",
    }
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/v1/items/{SECRET}",
        "query_string": SECRET.encode(),
        "state": state,
    }
    log_access(scope, 404, 0.01234)
    [record] = caplog.records
    line = JSONFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["request"] == {
        "request_id": "r-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "method": "GET",
        "route": None,
        "status": 404,
        "ms": 12.3,
        "key": "shop",
        "refused": None,
        "model_version": "abc",
    }
    assert SECRET not in line
    assert record.getMessage() == "GET None 404 12.3 ms"
