"""What is wrong with a request, as JSON: what, and what helps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fpn.errors import ConfigError
from fpn.serving.queries import KNOWN_QUERIES
from fpn.suggestions import nearest

logger = logging.getLogger("fpn.serving")


class HttpProblem(Exception):
    """A request that is not answered as it was asked.

    Attributes:
        status: HTTP's number of it.
        what: what is wrong.
        remedy: what helps.
        headers: that go with the answer.
    """

    def __init__(self, status: int, what: str, remedy: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what)
        self.status, self.what, self.remedy = status, what, remedy
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {"error": self.what, "remedy": self.remedy}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.to_json(), self.status, self.headers)


def answer_problems(app: FastAPI) -> None:
    """Have every error of the application answered as JSON of one shape."""
    app.add_exception_handler(HttpProblem, _own)
    app.add_exception_handler(ConfigError, _wrong_setting)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _not_there)
    app.add_exception_handler(Exception, _unexpected)


def _own(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HttpProblem)
    return error.response()


def _wrong_setting(_: Request, error: Exception) -> JSONResponse:
    return HttpProblem(422, str(error), "See docs/serving.md for what may be asked.").response()


def _wrong_query(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][1]) if len(first["loc"]) > 1 else str(first["loc"])
    if first["type"] == "extra_forbidden":
        remedy = nearest(name, KNOWN_QUERIES).strip() or f"Known: {', '.join(KNOWN_QUERIES)}."
        return HttpProblem(422, f"unknown query {name!r:.100}", remedy).response()
    given = first.get("input")
    return HttpProblem(422, f"query {name}={given!s:.100}", f"{first['msg']}.").response()


def _not_there(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path:.200}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        problem = HttpProblem(405, f"{where}: no such method here", f"Allowed: {allowed}.", error.headers)
    elif error.status_code == 404:
        problem = HttpProblem(
            404, f"{where}: nothing is here", "GET /openapi.json lists what is. Images: POST /predict."
        )
    else:
        problem = HttpProblem(error.status_code, f"{where}: {error.detail}", "See docs/serving.md.", error.headers)
    return problem.response()


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """An error of ours, which the server starlette wraps around all others writes to the log."""
    logger.error("%s %s failed: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return HttpProblem(
        500, f"the server failed ({type(error).__name__})", "Try again; the server's log says more."
    ).response()
