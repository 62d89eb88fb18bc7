"""Errors as clients of OpenAI's API expect them."""

from __future__ import annotations

import json

import pytest

from lime_edge import errors
from lime_edge.server.formats.api_errors import ApiError, internal, of_lime_error, of_validation, overloaded


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.UnknownSkillError("no skill"), 404, "not_found_error", "model_not_found"),
        (errors.ConfigError("bad", ["n is 0"]), 400, "invalid_request_error", "invalid_value"),
        (errors.SkillFormatError("bad"), 400, "invalid_request_error", "invalid_value"),
        (errors.FetchError("bad"), 400, "invalid_request_error", "invalid_value"),
        (errors.SkillTrustError("refused"), 403, "permission_error", "skill_refused"),
        (errors.SkillConflictError("changed"), 409, "conflict_error", "skill_changed"),
        (errors.MissingExtraError("x"), 501, "not_implemented_error", "not_installed"),
        (errors.StoreError("/secret/path"), 503, "unavailable_error", "store_unavailable"),
        (errors.OverloadedError("too many", 2.4), 429, "rate_limit_error", "overloaded"),
        (errors.ModelError("/secret/path"), 500, "server_error", "internal_error"),
        (errors.DeviceError("/secret/path"), 500, "server_error", "internal_error"),
    ],
)
def test_of_the_library(error: errors.LimeError, status: int, kind: str, code: str) -> None:
    found = of_lime_error(error)
    assert (found.status, found.body["error"]["type"], found.body["error"]["code"]) == (status, kind, code)
    assert "secret" not in found.message
    if status < 500:
        assert all(fault in found.message for fault in error.faults)


def test_retry_after_is_a_whole_number_of_seconds() -> None:
    assert overloaded("busy", 0.01).headers == {"Retry-After": "1"}
    assert of_lime_error(errors.OverloadedError("busy", 12.6)).response().headers["retry-after"] == "13"


def test_all_faults_of_a_body_and_never_a_long_value() -> None:
    found = of_validation(
        [
            {"loc": ("body", "messages", 0, "role"), "msg": "Field required", "input": {"content": "x" * 10**6}},
            {"loc": ("body", "n"), "msg": "Input should be a valid integer", "input": "many"},
        ]
    )
    assert found.param == "messages[0].role"
    assert "n: Input should be a valid integer; found 'many'" in found.message
    assert len(found.message) < 2000
    many = of_validation([{"loc": ("body", "n"), "msg": "no", "input": None}] * 1000)
    assert "and 960 more faults" in many.message
    assert of_validation([]).param is None


def test_the_document() -> None:
    error = ApiError(404, "no", "model", "model_not_found")
    expected = {"error": {"message": "no", "type": "not_found_error", "param": "model", "code": "model_not_found"}}
    assert json.loads(bytes(error.response().body)) == expected
    assert ApiError(418, "tea").body["error"]["type"] == "invalid_request_error"
    assert ApiError(507, "full").body["error"]["type"] == "server_error"
    assert internal().status == 500
