"""The application: what is where, and what it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from fpn.serving.answers import coco_answer, json_answer
from fpn.serving.gate import Door, Gate, is_known
from fpn.serving.inference_protocol import add_protocol
from fpn.serving.metrics import ServerMetrics
from fpn.serving.models import ServedModel, ServedModels
from fpn.serving.page import add_page
from fpn.serving.problems import RequestError, answer_problems, refuse_odd_query
from fpn.serving.queries import KNOWN_QUERIES, PredictQuery
from fpn.serving.receiving import HOW_TO_SEND, BodyReader, unless_gone
from fpn.serving.service import DetectionService, named_model, raise_if_none_was_read
from fpn.serving.settings import ServerSettings
from fpn.version import __version__

_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"image": {"type": "array", "items": _FILE}}}
# What the body of a request for detections is, which no signature says.
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": _FILE}, "multipart/form-data": {"schema": _FORM}},
    }
}


def build_app(models: ServedModels, settings: ServerSettings | None = None) -> FastAPI:
    """An ASGI application that finds objects in images.

    Its `state.service` is the `DetectionService`, and `state.bodies` the `BodyReader`.

    Args:
        models: as `open_models` gives them.
        settings: batches, limits and access; None: the defaults.
    """
    settings = settings or ServerSettings()
    metrics = ServerMetrics()
    service = DetectionService(models, settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.close)

    # Its pages of documentation would load scripts from elsewhere.
    # An address with a slash too many is answered with the right one, not sent there without a word.
    app = FastAPI(
        title="fpn", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.service, app.state.bodies = service, BodyReader(settings, service)
    app.state.door = Door()
    answer_problems(app)
    app.add_middleware(Gate, settings=settings, metrics=metrics, door=app.state.door)
    _add_predict(app, models, service, app.state.bodies)
    _add_health(app, models, metrics, settings)
    add_protocol(app, models, service, app.state.bodies)
    add_page(app, models, service, app.state.bodies)
    return app


def _add_predict(app: FastAPI, models: ServedModels, service: DetectionService, bodies: BodyReader) -> None:
    @app.post("/predict", summary="Find objects in an image's bytes, or in the files of a form.", openapi_extra=_BODY)
    async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> JSONResponse:
        refuse_odd_query(request, KNOWN_QUERIES)
        model = named_model(models, query.model)
        tiling = query.tiling()
        async with bodies.images(request) as images:
            if not images:
                raise RequestError(400, "no image came", HOW_TO_SEND)
            looking = service.answer(images, model, score=query.score, tiling=tiling)
            answers = await unless_gone(request, looking)
        raise_if_none_was_read(answers)
        if query.format == "coco":
            return JSONResponse(await service.in_pool(coco_answer, answers))
        return JSONResponse(await service.in_pool(json_answer, answers, model.name))


def _add_health(app: FastAPI, models: ServedModels, metrics: ServerMetrics, settings: ServerSettings) -> None:
    @app.get("/health", summary="Whether the server works, and with which models.")
    async def health(request: Request) -> JSONResponse:
        if app.state.door.stopping:
            return JSONResponse({"status": "stopping"}, 503)
        if not is_known(request.headers.get("authorization", ""), settings.token):
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "ok", "models": {name: model_state(model) for name, model in models.items()}})

    @app.get("/metrics", summary="What was counted, for Prometheus.")
    async def count() -> Response:
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def model_state(model: ServedModel) -> dict[str, Any]:
    """What /health says of a model."""
    now = model.now
    state = {
        "file": model.path.name,
        "network": str(now.predictor.info),
        "classes": list(now.predictor.classes),
        "loaded": now.at.isoformat(timespec="seconds"),
        "number": now.number,
    }
    return state if model.fault is None else {**state, "fault": model.fault}
