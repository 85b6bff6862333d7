"""The page: its files, what it has to know of the models, and the look into them that it asks for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from fpn.serving.inside import look_inside, why_not
from fpn.serving.models import LoadedModel, ServedModel, ServedModels
from fpn.serving.problems import RequestError, refuse_odd_query
from fpn.serving.receiving import HOW_TO_SEND, BodyReader, unless_gone
from fpn.serving.service import DetectionService, Sent, decode_image, named_model
from fpn.version import __version__

_FILES = Path(__file__).with_name("page_files")
# What is served besides index.html, and as what: a request chooses among these names and opens nothing else.
_KINDS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "drawing.js": "text/javascript; charset=utf-8",
    "pyramid.js": "text/javascript; charset=utf-8",
}
# The text of the page, which is no secret: it is what asks for the token.
PAGE_PATHS = frozenset({"/", *(f"/page/{name}" for name in _KINDS)})
# Nothing comes from elsewhere, nothing written into the page runs, and no other page may frame it.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI, models: ServedModels, service: DetectionService, bodies: BodyReader) -> None:
    """`GET /` and the files behind it, `GET /inside` and `POST /inside`.

    Args:
        app: that they are added to.
        models: what is served.
        service: keeps the limits.
        bodies: reads images of requests.
    """
    texts = {name: (_FILES / name).read_bytes() for name in ("index.html", *_KINDS)}
    _add_files(app, texts)
    # One at a time: maps of all levels are in memory meanwhile, and detecting for others goes on beside it.
    looking = asyncio.Semaphore(1)

    @app.get("/inside", summary="What the page has to know of the models.")
    async def describe() -> dict[str, Any]:
        return {"fpn": __version__, "models": [describe_model(each) for each in models.values()]}

    @app.post("/inside", summary="Levels, anchors, proposals, and where each detection of one image comes from.")
    async def look(request: Request, model: str | None = None) -> Response:
        refuse_odd_query(request, ("model",))
        served = named_model(models, model)
        async with bodies.images(request) as images:
            if not images:
                raise RequestError(400, "no image came", HOW_TO_SEND)
            if len(images) > 1:
                what = f"{len(images)} images in one request"
                raise RequestError(413, what, "Look into a model with one image at a time.")
            with service.accepted(1, served):
                await unless_gone(request, _take_turn(looking, service.settings.seconds))
                try:
                    text = await asyncio.to_thread(_look, images[0][1], served.now, service)
                finally:
                    looking.release()
        return Response(text, media_type="application/json")


def describe_model(model: ServedModel) -> dict[str, Any]:
    """What the page has to know of a model."""
    predictor = model.now.predictor
    thresholds, skeleton = predictor.thresholds, predictor.skeleton
    return {
        "name": model.name,
        "kind": predictor.recipe.kind,
        "network": str(predictor.info),
        "classes": [
            {"name": name, "id": number} for name, number in zip(predictor.classes, predictor.classes.ids, strict=True)
        ],
        "class_free": predictor.class_free,
        "thresholds": None if thresholds is None else {"scores": thresholds.scores, "goal": thresholds.goal},
        "skeleton": None if skeleton is None else {"names": skeleton.names, "edges": skeleton.edges},
        "note": why_not(predictor),
    }


def _add_files(app: FastAPI, texts: dict[str, bytes]) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(texts["index.html"], media_type="text/html; charset=utf-8", headers=_HEADERS)

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in _KINDS:
            raise RequestError(404, f"/page/{name!s:.100}: nothing is here", "The page itself is at /.")
        return Response(texts[name], media_type=_KINDS[name], headers=_HEADERS)


async def _take_turn(looking: asyncio.Semaphore, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await looking.acquire()
    except TimeoutError:
        raise RequestError(
            504, f"others looked into models for {seconds:g} s", "Try again when the server has less to do."
        ) from None


def _look(sent: Sent, loaded: LoadedModel, service: DetectionService) -> bytes:
    """The answer, as JSON."""
    image = decode_image(sent, loaded, service.settings).image
    return json.dumps(look_inside(loaded.predictor, image).to_json(), allow_nan=False).encode()
