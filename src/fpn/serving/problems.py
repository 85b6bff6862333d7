"""What is wrong with a request, as JSON: what, and what helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fpn.errors import ConfigError
from fpn.serving.queries import KNOWN_QUERIES
from fpn.suggestions import nearest


class RequestError(Exception):
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
    app.add_exception_handler(RequestError, _own)
    app.add_exception_handler(ConfigError, _wrong_setting)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _not_there)


async def _own(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return error.response()


async def _wrong_setting(_: Request, error: Exception) -> JSONResponse:
    return RequestError(422, str(error), "See docs/serving.md for what may be asked.").response()


async def _wrong_query(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][1]) if len(first["loc"]) > 1 else str(first["loc"])
    if first["type"] == "extra_forbidden":
        remedy = nearest(name, KNOWN_QUERIES).strip() or f"Known: {', '.join(KNOWN_QUERIES)}."
        return RequestError(422, f"unknown query {name!r:.100}", remedy).response()
    given = first.get("input")
    return RequestError(422, f"query {name}={given!s:.100}", f"{first['msg']}.").response()


async def _not_there(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path:.200}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        problem = RequestError(405, f"{where}: no such method here", f"Allowed: {allowed}.", error.headers)
    elif error.status_code == 404:
        problem = RequestError(
            404, f"{where}: nothing is here", "GET /openapi.json lists what is. Images: POST /predict."
        )
    else:
        problem = RequestError(error.status_code, f"{where}: {error.detail}", "See docs/serving.md.", error.headers)
    return problem.response()


def unexpected(error: Exception) -> RequestError:
    """500, for an error of ours; the log says more than the answer."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return RequestError(500, f"the server failed ({type(error).__name__})", "Try again; the server's log says more.")
