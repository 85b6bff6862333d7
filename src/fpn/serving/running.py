"""A server process: an address of its own, and an end that finishes what was accepted."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from fpn.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """The address, taken before models are loaded; nobody is listened to yet.

    Raises:
        ConfigError: it is taken, or not this machine's.
    """
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
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror}. Choose another port; 0 takes any that is free."
        ) from error
    return bound


def run_app(app: FastAPI, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on")
    uvicorn.Server(config).run(sockets=[bound])
