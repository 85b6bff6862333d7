"""`fpn serve`: models behind HTTP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.terminal import say, say_error, say_note, say_warning

if TYPE_CHECKING:
    from fpn.serving import ServerSettings
    from fpn.serving.models import ServedModels
    from fpn.structures import Thresholds

# Addresses that other machines don't reach.
_OWN = ("127.0.0.1", "localhost", "::1")


def run(
    models: Annotated[tuple[str, ...], Parameter(name="MODELS"), paths.MODELS] = (),
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: Annotated[str | None, Parameter(env_var="FPN_TOKEN")] = None,
    score: float | Literal["calibrated"] | None = None,
    batch_size: int = 4,
    wait_ms: float = 5.0,
    queue: int = 64,
    max_bytes: int = 2**25,
    max_pixels: int = 2**26,
    max_images: int = 16,
    max_tiles: int = 256,
    seconds: float = 60.0,
    body_seconds: float = 30.0,
    max_detections: Annotated[int | None, bounds.FROM_1] = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
) -> int:
    """Run a server that finds objects in images sent over HTTP.

    POST /predict takes an image's bytes or a form of several files, and answers with JSON. /v2 is the Open Inference
    Protocol, /metrics is for Prometheus, /health is for health checks; docs/serving.md describes all of it. When a
    model's file changes, the new one is loaded. SIGTERM or Ctrl-C finishes what was accepted, and ends the server.

    Args:
        models: Model files of any kind that fpn predict takes. NAME=FILE names one; else its name is its file's.
        host: Address to listen at. 0.0.0.0: all addresses of this machine; then also give a --token.
        port: Port to listen at. 0: any that is free.
        token: What requests have to send, as `Authorization: Bearer TOKEN`, for all but /health and the page itself,
            which asks for it. Or set FPN_TOKEN, which does not show in lists of processes.
        score: Give detections with at least this score, unless the request has its own. calibrated: with at least
            their class's own threshold. None: calibrated if the model is, else all that it reports.
        batch_size: Most images that go through the network together.
        wait_ms: Longest time that an image waits for others, in milliseconds.
        queue: Most images that are accepted and not yet answered; beyond that, requests get 429.
        max_bytes: Largest body of a request, in bytes.
        max_pixels: Largest image, height times width.
        max_images: Most images of a request.
        max_tiles: Most tiles of an image.
        seconds: Longest time for a request once its body has arrived; then it gets 504.
        body_seconds: Longest time for a body to arrive; then the request gets 408.
        max_detections: Most detections of an image. None: the model's own setting.
        precision: Number format of the network's arithmetic. auto: bf16 where the processor multiplies it in hardware,
            else float32. An exported file keeps the format in which it was proven; only OpenVINO's also takes bf16.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
    """
    from fpn.cli.devices import check_device
    from fpn.serving import ServerSettings, build_app, open_models
    from fpn.serving.models import name_models
    from fpn.serving.running import bind, run_app

    settings = ServerSettings(
        batch_size=batch_size,
        wait_ms=wait_ms,
        score=score,
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_images=max_images,
        max_tiles=max_tiles,
        seconds=seconds,
        body_seconds=body_seconds,
        token=token,
    )
    name_models(models)
    chosen = check_device(device)
    with bind(host, port) as bound:
        opened = open_models(
            models,
            device=None if chosen is None else str(chosen),
            precision=precision,
            max_detections=max_detections,
        )
        app = build_app(opened, settings)
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{bound.getsockname()[1]}"
        _show_log()
        if host not in _OWN and token is None:
            say_warning(f"whoever reaches {host} may use this server: give a --token")
        finished = run_app(app, bound, lambda: _tell(address, opened, settings))
    if not finished:
        say_error("stopped at once: requests that were accepted have no answer")
        return 1
    say("stopped: all that was accepted is answered")
    return 0


def _tell(address: str, models: ServedModels, settings: ServerSettings) -> None:
    """Where it listens, to what, and within which limits."""
    from fpn.shapes import in_pixels

    say(f"listening at {address} (Ctrl-C or SIGTERM stops it)")
    for name, model in models.items():
        predictor = model.now.predictor
        counted = f"{len(predictor.classes)} classes" if len(predictor.classes) > 1 else f"class {predictor.classes[0]}"
        say(f"  model    {name}: {predictor.info}; {counted}; {_from_which_score(predictor.thresholds, settings)}")
    say(f"  batches  of up to {settings.batch_size} images, which wait for {settings.wait_ms:g} ms at most")
    say(
        f"  limits   {settings.max_bytes / 2**20:g} MiB and {settings.max_images} images a request, "
        f"{in_pixels(settings.max_pixels)} an image, {settings.queue} images waiting, {settings.seconds:g} s"
    )
    say(f"  access   {'whoever reaches it' if settings.token is None else 'with the token'}")
    bearer = "" if settings.token is None else " -H 'Authorization: Bearer TOKEN'"
    say(f"  page     {address}/")
    every = any(_gives_all(model.now.predictor.thresholds, settings) for model in models.values())
    place = f"'{address}/predict?score=0.5'" if every else f"{address}/predict"
    say(f"  try      curl{bearer} --data-binary @photo.jpg {place}")


def _gives_all(thresholds: Thresholds | None, settings: ServerSettings) -> bool:
    """Whether a request that names no score gets unsure detections, too."""
    return settings.score is None and thresholds is None


def _from_which_score(thresholds: Thresholds | None, settings: ServerSettings) -> str:
    if isinstance(settings.score, float):
        return f"detections from {settings.score:g} on"
    return (
        "all detections, unsure ones too"
        if thresholds is None
        else f"detections from each class's threshold on ({thresholds.goal})"
    )


def _show_log() -> None:
    """What the server has to say while it runs, in our own form."""
    logger = logging.getLogger("fpn.serving")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Lines()]


class _Lines(logging.Handler):
    """Messages as warnings, or as notes where nothing is wrong."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging`."""
        (say_warning if record.levelno >= logging.WARNING else say_note)(self.format(record))
