"""What every request goes through first: who may come in, how much may come, and what is counted."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from contextlib import suppress
from dataclasses import dataclass

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fpn.serving.metrics import ServerMetrics
from fpn.serving.page import PAGE_PATHS
from fpn.serving.problems import RequestError, unexpected
from fpn.serving.receiving import body_too_large
from fpn.serving.settings import ServerSettings

logger = logging.getLogger("fpn.serving")

# What may be asked without a token.
OPEN_PATHS = frozenset({"/health"}) | PAGE_PATHS
# What is still taken of a body that was refused, so that the client reads the answer rather than a broken connection.
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 2**26


@dataclass
class Door:
    """Whether requests come in, and how many are inside.

    Attributes:
        stopping: new ones are sent away.
        inside: requests that came in and have no complete answer yet.
    """

    stopping: bool = False
    inside: int = 0


def is_known(authorization: str, token: str | None) -> bool:
    """Whether a request may ask everything; how long that takes to say does not depend on how near a guess is.

    Args:
        authorization: the header of that name, as HTTP's latin-1.
        token: that it has to hold; None: none is needed.
    """
    if token is None:
        return True
    kind, _, given = authorization.partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode())


class Gate:
    """The outermost part of the application.

    Args:
        app: what is inside.
        settings: token and limits.
        metrics: counts answers.
        door: open or not.
    """

    def __init__(self, app: ASGIApp, *, settings: ServerSettings, metrics: ServerMetrics, door: Door) -> None:
        self._app, self._settings, self._metrics, self._door = app, settings, metrics, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # as GET: the server of HTTP below leaves the body out
            scope = {**scope, "method": "GET"}
        began = time.monotonic()
        exchange = _Exchange(scope, receive, send, self._settings.body_seconds)
        self._door.inside += 1
        try:
            await self._answer(scope, exchange)
        finally:
            self._door.inside -= 1
            path = _counted_as(scope)
            self._metrics.requests.labels(path, exchange.status).inc()
            self._metrics.latency.labels(path).observe(time.monotonic() - began)

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            self._check(scope)
            await self._app(scope, exchange.receive, exchange.send)
        except RequestError as error:
            await error.response()(scope, exchange.receive, exchange.send)
        except Exception as error:
            if isinstance(error, TimeoutError) and exchange.status:
                logger.warning("%s: the client does not take its answer", scope["path"][:200])
            else:
                logger.exception("%s %s failed", scope["method"], scope["path"][:200])
            if exchange.status:
                raise
            await unexpected(error).response()(scope, exchange.receive, exchange.send)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._door.stopping and scope["path"] != "/health":
            raise RequestError(
                503,
                "the server is stopping",
                "Try another one, or again later.",
                {"Retry-After": "5", "Connection": "close"},
            )
        if self._settings.token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"authorization", b"").decode("latin-1")
            if not is_known(given, self._settings.token):
                raise RequestError(
                    401,
                    "the token is wrong" if given else "no token was sent",
                    "Send the header Authorization: Bearer TOKEN, with the --token of the server.",
                    {"WWW-Authenticate": "Bearer"},
                )
        _refuse_encoded(scope)
        if int(headers.get(b"content-length", b"0")) > self._settings.max_bytes:
            raise body_too_large(self._settings)


def _refuse_encoded(scope: Scope) -> None:
    """A body that is compressed on its way would be taken for what it holds, or unpack to any size."""
    given = (value.decode("latin-1").strip().lower() for name, value in scope["headers"] if name == b"content-encoding")
    if named := ", ".join(each for each in given if each not in ("", "identity")):
        raise RequestError(
            415,
            f"the body is encoded: Content-Encoding {named!r:.100}",
            "Send it as it is, without Content-Encoding.",
            {"Accept-Encoding": "identity"},
        )


def _counted_as(scope: Scope) -> str:
    """The path that a request is counted under, also where it was refused before anything looked for one."""
    route = scope.get("route")
    if route is None:
        matching = (each for each in scope["app"].routes if each.matches(scope)[0] is not Match.NONE)
        route = next(matching, None)
    return getattr(route, "path", "other")


class _Exchange:
    """One request and its answer.

    Attributes:
        status: of the answer; 0: it has not begun.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        self._receive, self._send, self._seconds = receive, send, seconds
        self.status = 0
        names: dict[bytes, bytes] = dict(scope["headers"])
        self._more = names.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in names

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._more = False
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on; TimeoutError: the client does not take it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._more:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        elif self._more and not message.get("more_body", False):
            await self._send_in_time({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send_in_time(message)

    async def _send_in_time(self, message: Message) -> None:
        async with asyncio.timeout(self._seconds):
            await self._send(message)

    async def _linger(self) -> None:
        """Take what still comes of a body, for a while: else the connection would be reset, and the answer lost."""
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_LINGER_SECONDS, self._seconds)):
                while self._more and left > 0:
                    left -= len((await self.receive()).get("body", b""))
