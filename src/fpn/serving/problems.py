"""What is wrong with a request, as JSON: what, and what helps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fpn.errors import ConfigError
from fpn.serving.queries import KNOWN_QUERIES
from fpn.suggestions import nearest

SCORE_REMEDY = 'Give a number from 0 to 1, or "calibrated".'
# By the type of pydantic's error, in place of its own words.
_REMEDIES = {
    "int_parsing": "Give a whole number.",
    "int_from_float": "Give a whole number.",
    "float_parsing": "Give a number.",
    "bool_parsing": "Give true or false.",
}


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
    remedy = SCORE_REMEDY if name == "score" else _REMEDIES.get(first["type"], f"{first['msg']}.")
    return RequestError(422, f"query {name}={first.get('input')!s:.100}", remedy).response()


def refuse_odd_query(request: Request, known: Collection[str], elsewhere: str = "") -> None:
    """What is said in an address has to be known, and said once: else it would be ignored, or half of it.

    Args:
        request: whose address.
        known: what may be said.
        elsewhere: where settings stand instead.

    Raises:
        RequestError: 422.
    """
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            listed = f"Known: {', '.join(known)}." if known else elsewhere
            raise RequestError(422, f"unknown query {name!r:.100}", nearest(name, known).strip() or listed)
        if count > 1:
            raise RequestError(422, f"{name!r:.100} stands {count} times in the address", "Say it once.")


async def _not_there(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path:.200}"
    if error.status_code == 405:
        # What may be asked with GET may be asked with HEAD: the gate sees to it.
        allowed = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
        problem = RequestError(405, f"{where}: no such method here", f"Allowed: {allowed}.", {"Allow": allowed})
    elif error.status_code == 404:
        remedy = f"{_nearest_address(request)} GET /openapi.json lists what is. Images: POST /predict."
        problem = RequestError(404, f"{where}: nothing is here", remedy.strip())
    else:
        problem = RequestError(error.status_code, f"{where}: {error.detail}", "See docs/serving.md.", error.headers)
    return problem.response()


def _nearest_address(request: Request) -> str:
    """The address that differs from a request's by slashes and case alone, or is written nearly so."""
    plain = re.sub("/+", "/", request.url.path).rstrip("/") or "/"
    routes = request.app.routes
    for each in (plain, plain.lower()):
        if any(route.path_regex.match(each) for route in routes):
            return f"Did you mean {each!r:.100}?"
    return nearest(plain, [route.path for route in routes if "{" not in route.path]).strip()


def unexpected(error: Exception) -> RequestError:
    """500, for an error of ours; the log says more than the answer."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return RequestError(500, f"the server failed ({type(error).__name__})", "Try again; the server's log says more.")
