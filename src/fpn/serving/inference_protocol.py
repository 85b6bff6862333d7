"""The Open Inference Protocol, version 2: what clients of Triton, KServe and their like speak."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fpn.serving.models import ServedModel, ServedModels
from fpn.serving.problems import RequestError, refuse_odd_query
from fpn.serving.receiving import BodyReader, unless_gone
from fpn.serving.service import DetectionService, named_model
from fpn.serving.tensors import INPUT, output_kinds, read_inference, to_tensors
from fpn.version import __version__


def add_protocol(app: FastAPI, models: ServedModels, service: DetectionService, bodies: BodyReader) -> None:
    """Everything under /v2."""
    _add_infer(app, models, service, bodies)

    @app.get("/v2", summary="What this server is.")
    async def about() -> dict[str, Any]:
        return {"name": "fpn", "version": __version__, "extensions": [], "models": list(models)}

    @app.get("/v2/health/live", summary="Whether it runs.")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Whether it takes requests: 503 once it is stopping.")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2/models/{name}", summary="What a model takes and gives.")
    async def describe(name: str) -> dict[str, Any]:
        return _description(named_model(models, name))

    @app.get("/v2/models/{name}/ready", summary="Whether a model is there.")
    async def model_ready(name: str) -> dict[str, Any]:
        return {"name": named_model(models, name).name, "ready": True}


def _add_infer(app: FastAPI, models: ServedModels, service: DetectionService, bodies: BodyReader) -> None:
    @app.post("/v2/models/{name}/infer", summary="Find objects in image files (BYTES) or pixels (UINT8).")
    async def infer(name: str, request: Request) -> JSONResponse:
        refuse_odd_query(request, (), elsewhere='Settings stand in the JSON: "parameters": {"score": 0.5}.')
        model = named_model(models, name)
        if "inference-header-content-length" in request.headers:
            raise RequestError(415, "tensors as binary data are not taken", "Send them as JSON.")
        async with bodies.body(request) as data:
            asked = await service.in_pool(read_inference, data, service.settings)
            looking = service.answer(asked.images, model, score=asked.score, tiling=None)
            answers = await unless_gone(request, looking)
        for number, each in enumerate(answers):
            if isinstance(each.found, RequestError):
                error, where = each.found, f"{INPUT}[{number}]: "
                raise RequestError(error.status, where + error.what.removeprefix(where), error.remedy)
        tensors = await service.in_pool(to_tensors, answers, asked.outputs)
        loaded = answers[0].loaded
        about = {"model_name": model.name, "model_version": str(loaded.number)}
        return JSONResponse(about | ({} if asked.id is None else {"id": asked.id}) | {"outputs": tensors})


def _description(model: ServedModel) -> dict[str, Any]:
    predictor = model.now.predictor
    outputs = output_kinds(predictor.tasks)
    return {
        "name": model.name,
        "versions": [str(model.now.number)],
        "platform": f"fpn_{model.path.suffix.removeprefix('.')}",
        "inputs": [
            {"name": INPUT, "datatype": "BYTES", "shape": [-1], "parameters": {"content": "image files, in base64"}},
            {"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3], "parameters": {"content": "RGB pixels"}},
        ],
        "outputs": [{"name": name, "datatype": kind, "shape": list(shape)} for name, (kind, shape) in outputs.items()],
        "parameters": {"classes": list(predictor.classes), "category_ids": list(predictor.classes.ids)},
    }
