"""Errors as clients of OpenAI's API expect them: ``{"error": {"message", "type", "param", "code"}}`` and a status."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse

from lime_edge.common.strict_json import bounded, show
from lime_edge.errors import (
    ConfigError,
    FetchError,
    LimeError,
    MissingExtraError,
    OverloadedError,
    SkillConflictError,
    SkillError,
    SkillTrustError,
    StoreError,
    UnknownSkillError,
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    501: "not_implemented_error",
    503: "unavailable_error",
}
_FIELD = re.compile(r"(?!(str|int|float|bool)$)[a-z_]{1,64}")  # not the name of a type, of a part of a union
_TOO_LONG = "the prompts do not fit into the model's context"  # the runtime's message


class ApiError(Exception):
    """An answer with an error.

    Args:
        status: The HTTP status; the type of the error follows from it.
        message: For people: what was found, what was expected, what to do.
        param: The field of the request that is at fault.
        code: For programs.
        headers: Further headers, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON document."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)


def overloaded(message: str, seconds: float) -> ApiError:
    """Too many requests; the client may come back after some seconds."""
    return ApiError(429, message, code="overloaded", headers={"Retry-After": str(max(1, round(seconds)))})


def unknown_model(model: str, known: Sequence[str]) -> ApiError:
    """404, with the models that there are."""
    names = ", ".join(bounded([show(name) for name in known]))
    return ApiError(404, f"there is no model {show(model)}; expected one of {names}", "model", "model_not_found")


def of_lime_error(error: LimeError) -> ApiError:
    """What a client is told of an error of the library. Faults of the server itself are not told."""
    message = str(error)
    if isinstance(error, UnknownSkillError):
        return ApiError(404, message, "model", "model_not_found")
    if isinstance(error, OverloadedError):
        return overloaded(message, error.retry_after)
    if isinstance(error, SkillTrustError):
        return ApiError(403, message, code="skill_refused")
    if isinstance(error, SkillConflictError):
        return ApiError(409, message, code="skill_changed")
    if isinstance(error, MissingExtraError):
        return ApiError(501, "this server lacks an optional part that the request needs", code="not_installed")
    if isinstance(error, ConfigError) and error.message == _TOO_LONG:
        return ApiError(400, message, "messages", "context_length_exceeded")
    if isinstance(error, ConfigError | SkillError | FetchError):
        return ApiError(400, message, code="invalid_value")
    if isinstance(error, StoreError):
        return ApiError(503, "the store of skills cannot be used at the moment", code="store_unavailable")
    return internal()


def internal() -> ApiError:
    """An error of the server; the log says what happened."""
    return ApiError(500, "the server failed to answer this request; its log says why", code="internal_error")


def of_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """400 with every fault that pydantic found in a body."""
    faults = [f"{_place(error['loc'])}: {error['msg']}; found {show(error.get('input'))}" for error in errors]
    param = _place(errors[0]["loc"]) if errors else None
    return ApiError(400, "\n  - ".join(["the request is invalid", *bounded(faults)]), param, "invalid_value")


def _place(location: Sequence[Any]) -> str:
    """messages[0].content; without the word body, and without the alternatives of a union."""
    text = ""
    for part in location[1:] if location and location[0] == "body" else location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _FIELD.fullmatch(str(part)):
            text += f".{part}"
    return text.lstrip(".") or "body"
