from __future__ import annotations

import asyncio
import copy
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

if TYPE_CHECKING:
    from fpn.detectors import TwoStageDetector

Serve = Callable[..., Any]


def png(height: int = 64, width: int = 64, seed: int = 0) -> bytes:
    """An image file of noise."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def loaded(small: TwoStageDetector) -> Any:
    """The small detector as a server has it."""
    from fpn.inference.optimize import optimize

    return optimize(small)


class Hold:
    """Keeps a detector from looking until it may go."""

    def __init__(self, loaded: Any) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        self.predictor = copy.copy(loaded)
        self.predictor.detect = self._detect
        self._inner = loaded

    def _detect(self, images: Any) -> Any:
        self.began.set()
        assert self.go.wait(60)
        return self._inner.detect(images)


@pytest.fixture
def app_of(loaded: Any, tmp_path: Path) -> Callable[..., Any]:
    """An application of some models and settings; models are called first, second, ..."""

    def make(*models: Any, **settings: Any) -> Any:
        from fpn.serving import ServerSettings, build_app
        from fpn.serving.models import ServedModel, ServedModels

        path = tmp_path / "model.safetensors"
        path.touch()
        named = zip(("first", "second"), models or (loaded,), strict=False)
        served = [ServedModel(name, path, lambda _, each=each: each) for name, each in named]
        return build_app(ServedModels(served), ServerSettings(**settings))

    return make


@pytest.fixture
def serve(app_of: Callable[..., Any]) -> Serve:
    """A client of a server with such models and settings."""

    @contextmanager
    def begin(*models: Any, **settings: Any) -> Iterator[TestClient]:
        with TestClient(app_of(*models, **settings)) as client:
            yield client

    return begin


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address, with a / at its end, of a server of this process that has an application."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


async def talk(
    app: Any, path: str, body: list[bytes], *, headers: dict[str, str] | None = None, wait: float = 0
) -> Any:
    """One POST, a part of the body after the other; at its end nothing comes for `wait` seconds, or it is the end.

    Returns:
        Status, headers and body of the answer, as they were sent.
    """
    parts, sent = list(body), []

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.sleep(wait)
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts) or wait > 0}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": raw,
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:])
