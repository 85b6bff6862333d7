"""From the images of a request to what was found in them: read by threads, looked at in batches, all bounded."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from fpn.detectors.operating_point import Score, choose_score, sure_ones
from fpn.detectors.prediction import preparing
from fpn.detectors.tile_merging import merge_tiles
from fpn.detectors.tiling import Tiling
from fpn.errors import ConfigError, ImageError
from fpn.image_io import CUT_SHORT, ImageBytes, ImageWarning, image_size, read_image
from fpn.ops.tiles import Tile, tile_places
from fpn.preprocessing.preprocessor import Prepared
from fpn.runtime.unheard import unheard
from fpn.serving.batching import MicroBatcher
from fpn.serving.metrics import ServerMetrics
from fpn.serving.models import LoadedModel, ServedModel, ServedModels
from fpn.serving.problems import RequestError
from fpn.serving.settings import ServerSettings
from fpn.shapes import Size, in_pixels
from fpn.structures import Detections, Thresholds
from fpn.suggestions import nearest

# What comes in a request: an image file, or pixels (H, W, 3) uint8.
Sent: TypeAlias = ImageBytes | np.ndarray

# Images of more pixels (48 MB as RGB) are held by as few requests at once as there are readers.
_LARGE = 2**24

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What became of one image.

    Attributes:
        name: as the request calls it.
        loaded: the model that looked at it.
        found: in pixels of the upright image, sure ones only; or what is wrong with it.
        size: of the upright image; None: it could not be read.
        warnings: what was odd about it.
    """

    name: str
    loaded: LoadedModel
    found: Detections | RequestError
    size: Size | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodedImage:
    """An image of a request, upright, and what was odd about it."""

    image: Image.Image
    warnings: tuple[str, ...]

    @property
    def size(self) -> Size:
        """Of the image."""
        return Size(self.image.height, self.image.width)


@dataclass
class _Lane:
    """One model's way through the server."""

    batcher: MicroBatcher
    room: asyncio.Semaphore
    seconds_an_image: float = 0.1

    def note(self, images: int, seconds: float) -> None:
        self.seconds_an_image += 0.2 * (seconds / images - self.seconds_an_image)


@dataclass
class DetectionService:
    """Finds objects in images of requests.

    Args:
        models: what finds them.
        settings: how, and how many at once.
        metrics: what is counted.
    """

    models: ServedModels
    settings: ServerSettings
    metrics: ServerMetrics
    waiting: int = 0
    _lanes: dict[str, _Lane] = field(default_factory=dict)
    _pool: ThreadPoolExecutor | None = None

    def __post_init__(self) -> None:
        self._large = asyncio.Semaphore(self.settings.readers)

    def start(self) -> None:
        """Begin to work; call it where an event loop runs."""
        self._pool = ThreadPoolExecutor(self.settings.readers, thread_name_prefix="fpn-reader")
        for name in self.models:
            self._lanes[name] = self._make_lane(name)
            self._lanes[name].batcher.start()
        self.models.changed = self.metrics.reloaded
        self.models.start()

    def close(self) -> None:
        """Finish what was accepted, and end."""
        self.models.close()
        for lane in self._lanes.values():
            lane.batcher.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _make_lane(self, name: str) -> _Lane:
        def done(images: int, seconds: float) -> None:
            self.metrics.batch(name, images, seconds)
            self._lanes[name].note(images, seconds)

        settings = self.settings
        batcher = MicroBatcher(name, batch_size=settings.batch_size, wait=settings.wait_ms / 1000, done=done)
        return _Lane(batcher, asyncio.Semaphore(settings.ahead))

    async def in_pool(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Have one of the reading threads do what would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *given, **named))

    @contextmanager
    def accepted(self, images: int, model: ServedModel) -> Iterator[None]:
        """Inside the `with`, so many images count as waiting.

        Raises:
            RequestError: 413, more than a request may have; 429, there is no place for them now.
        """
        if images > self.settings.max_images:
            raise RequestError(
                413, f"{images} images in one request", f"At most {self.settings.max_images}: send several requests."
            )
        if self.waiting + images > max(self.settings.queue, images if self.waiting == 0 else 0):
            raise self.too_busy(f"{self.waiting} images wait already, of {self.settings.queue}", model)
        self.waiting += images
        self.metrics.queue.set(self.waiting)
        try:
            yield
        finally:
            self.waiting -= images
            self.metrics.queue.set(self.waiting)

    def too_busy(self, what: str, model: ServedModel | None = None) -> RequestError:
        """429, with the seconds after which there should be room again."""
        lane = self._lanes[(model or self.models.first).name]
        seconds = max(1, math.ceil(self.waiting * lane.seconds_an_image))
        return RequestError(429, what, f"Try again in {seconds} s.", {"Retry-After": str(seconds)})

    async def answer(
        self, images: Sequence[tuple[str, Sent]], model: ServedModel, *, score: Score, tiling: Tiling | None
    ) -> list[Answer]:
        """What is in some images, one answer an image in their order.

        Raises:
            RequestError: they are not looked at: too many (413), no room (429), or it takes too long (504).
        """
        score = self.settings.score if score is None else score
        with self.accepted(len(images), model):
            try:
                async with asyncio.timeout(self.settings.seconds), asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._answer(n, i, model, score, tiling)) for n, i in images]
            except TimeoutError:
                raise RequestError(
                    504,
                    f"not done within {self.settings.seconds:g} s",
                    "Send fewer or smaller images, or larger tiles; or try again when the server has less to do.",
                ) from None
        return [task.result() for task in tasks]

    async def _answer(self, name: str, sent: Sent, model: ServedModel, score: Score, tiling: Tiling | None) -> Answer:
        loaded, lane = model.now, self._lanes[model.name]
        try:
            chosen = _operating_point(score, loaded)
            if tiling is None:
                size, warnings, found = await self._look(sent, loaded, lane)
            else:
                size, warnings, found = await self._look_at_tiles(sent, loaded, lane, tiling)
        except RequestError as problem:
            return Answer(name, loaded, problem)
        self.metrics.images.labels(model.name).inc()
        return Answer(name, loaded, sure_ones(found, chosen), size, warnings)

    async def _look(self, sent: Sent, loaded: LoadedModel, lane: _Lane) -> tuple[Size, tuple[str, ...], Detections]:
        large = await self.in_pool(_count_pixels, sent, self.settings) > _LARGE
        async with self._large if large else nullcontext(), lane.room:
            prepared, warnings = await self.in_pool(_read_and_prepare, sent, loaded, self.settings)
            found = await asyncio.wrap_future(lane.batcher.submit(prepared, loaded.predictor))
        return prepared.frame.original, warnings, found

    async def _look_at_tiles(
        self, sent: Sent, loaded: LoadedModel, lane: _Lane, tiling: Tiling
    ) -> tuple[Size, tuple[str, ...], Detections]:
        """As `fpn.predict_tiled` does, but that tiles of other images, too, may be in a batch."""
        async with self._large:
            return await self._look_at_each_tile(sent, loaded, lane, tiling)

    async def _look_at_each_tile(
        self, sent: Sent, loaded: LoadedModel, lane: _Lane, tiling: Tiling
    ) -> tuple[Size, tuple[str, ...], Detections]:
        decoded = await self.in_pool(decode_image, sent, loaded, self.settings, tiling)
        places = tile_places(decoded.size, tiling.side, tiling.overlap)
        if tiling.whole and len(places) > 1:
            places.append(Tile(0, 0, *decoded.size))

        async def look(place: Tile) -> tuple[Tile, Detections]:
            async with lane.room:
                prepared = await self.in_pool(_prepare_tile, decoded.image, place, loaded)
                return place, await asyncio.wrap_future(lane.batcher.submit(prepared, loaded.predictor))

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look(place)) for place in places]
        merged = await self.in_pool(
            merge_tiles, [task.result() for task in tasks], decoded.size, vote=tiling.merge == "vote"
        )
        return decoded.size, decoded.warnings, merged


def decode_image(
    sent: Sent, loaded: LoadedModel, settings: ServerSettings, tiling: Tiling | None = None
) -> DecodedImage:
    """An image of a request, upright; its size is known and allowed before any pixel is decoded.

    Raises:
        RequestError: 413, it is too large; 422, it can't be read.
    """
    pixel_range = loaded.predictor.preprocessor.config.pixel_range
    try:
        with unheard(ImageWarning):
            size = Size(
                *(image_size(sent, max_bytes=settings.max_bytes) if isinstance(sent, ImageBytes) else sent.shape[:2])
            )
            _check_size(size, sent, settings, tiling)
            image = read_image(
                sent, pixel_range=pixel_range, max_pixels=settings.max_pixels, max_bytes=settings.max_bytes
            )
    except ImageError as error:
        too_large = isinstance(error.__cause__, Image.DecompressionBombError)
        raise RequestError(
            413 if too_large else 422,
            str(error),
            "Send a whole JPEG, PNG, WebP, BMP, TIFF, GIF, PPM or AVIF file (curl: --data-binary, not -d).",
        ) from error
    cut = image.info.get(CUT_SHORT)
    return DecodedImage(image, () if cut is None else (f"the file is cut short: {cut}",))


def _check_size(size: Size, sent: Sent, settings: ServerSettings, tiling: Tiling | None) -> None:
    count = size.height * size.width
    what = f"{sent if isinstance(sent, ImageBytes) else 'image'}: {size.width} x {size.height}"
    if count > settings.max_pixels:
        raise RequestError(
            413, f"{what} is {in_pixels(count)}", f"At most {in_pixels(settings.max_pixels)}: make it smaller."
        )
    if tiling is not None:
        tiles = len(tile_places(size, tiling.side, tiling.overlap))
        if tiles > settings.max_tiles:
            raise RequestError(
                413, f"{what} would be {tiles} tiles", f"At most {settings.max_tiles}: ask for larger tiles."
            )


def _operating_point(score: Score, loaded: LoadedModel) -> float | Thresholds:
    try:
        return choose_score(score, loaded.predictor.thresholds)
    except ConfigError as error:
        raise RequestError(422, str(error), "Give score= a number from 0 to 1.") from error


def _count_pixels(sent: Sent, settings: ServerSettings) -> int:
    """By the header alone; 0 of what can't be read, which is told when it is decoded."""
    if not isinstance(sent, ImageBytes):
        return int(sent.shape[0] * sent.shape[1])
    try:
        with unheard(ImageWarning):
            return math.prod(image_size(sent, max_bytes=settings.max_bytes))
    except ImageError:
        return 0


def _read_and_prepare(sent: Sent, loaded: LoadedModel, settings: ServerSettings) -> tuple[Prepared, tuple[str, ...]]:
    decoded = decode_image(sent, loaded, settings)
    return preparing(loaded.predictor).prepare(decoded.image), decoded.warnings


def _prepare_tile(image: Image.Image, place: Tile, loaded: LoadedModel) -> Prepared:
    return preparing(loaded.predictor).prepare(image.crop(place.box))


def named_model(models: ServedModels, name: str | None) -> ServedModel:
    """The model of that name, or the first one.

    Raises:
        RequestError: 404, there is none.
    """
    if name is None:
        return models.first
    if name not in models:
        what = f"no model is called {name!r:.100}.{nearest(name, models)}"
        raise RequestError(404, what, f"There are: {', '.join(models)}.")
    return models[name]


def raise_if_none_was_read(answers: Sequence[Answer]) -> None:
    """Where no image could be read, the first one's error is the whole answer."""
    errors = [each.found for each in answers if isinstance(each.found, RequestError)]
    if len(errors) == len(answers):
        raise errors[0]
