"""A server process: an address of its own, and an end that finishes what was accepted."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from fpn.errors import ConfigError
from fpn.serving.gate import Door
from fpn.serving.problems import RequestError

# Longest that the head of a request takes to come.
HEAD_SECONDS = 15.0
# How long a connection stays on which nothing is asked.
_IDLE_SECONDS = 30
# Once all is answered: how long a client may take to take it.
_LAST_SECONDS = 5


def bind(host: str, port: int) -> socket.socket:
    """The address, taken before models are loaded; nobody is listened to yet.

    Raises:
        ConfigError: it is taken, or not this machine's.
    """
    if not 0 <= port < 65536:
        raise ConfigError(f"--port {port}: expected 0 to 65535; 0 takes any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: is no address of this machine ({error.strerror})") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        remedy = "Choose another port; 0 takes any that is free."
        if error.errno == errno.EADDRNOTAVAIL:
            remedy = "Choose an address of this machine; 0.0.0.0 is all of them."
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}. {remedy}") from error
    return bound


class _StoppingServer(uvicorn.Server):
    """Sends new requests away at the first signal, and ends when those inside are answered; at the second one, now.

    Args:
        config: uvicorn's.
        door: of the application.
        listening: called once requests can come.
    """

    def __init__(self, config: uvicorn.Config, door: Door, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._door, self._listening = door, listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self._listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not as uvicorn does, which ends by the signal itself: what ends as asked has the status 0."""
        if self._door.stopping:
            self.should_exit = self.force_exit = True
        self._door.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn; called ten times a second."""
        if self._door.stopping and self._door.inside == 0:
            self.should_exit = True
        return await super().on_tick(counter)


class _ImpatientProtocol(H11Protocol):
    """HTTP/1.1 with a limit on how long the head of a request takes to come: who sends none must not keep a place."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._late is None:  # the next request of a connection has begun
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so as all else is, as JSON."""
        body = RequestError(
            400, msg, "Send HTTP/1.1 with a head of at most 16 KiB, in which all but ASCII is percent-encoded."
        ).response()
        head = h11.Response(
            status_code=400, headers=[*body.raw_headers, (b"connection", b"close")], reason=b"Bad Request"
        )
        events = (head, h11.Data(data=bytes(body.body)), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()


def run_app(app: FastAPI, bound: socket.socket, listening: Callable[[], None] = lambda: None) -> bool:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    Args:
        app: as `build_app` gives it.
        bound: as `bind` gives it.
        listening: called once requests can come.

    Returns:
        Whether all that was accepted is answered: a second signal does not wait for it.
    """
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what a client does wrong is no matter for the log
    config = uvicorn.Config(
        app,
        http=_ImpatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    _StoppingServer(config, app.state.door, listening).run(sockets=[bound])
    return bool(app.state.door.inside == 0)
