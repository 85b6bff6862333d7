"""The body of a request, bounded in size and time, and the images in it. Nothing that it names is ever opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from fpn.image_io import ImageBytes
from fpn.serving.problems import RequestError
from fpn.serving.service import DetectionService
from fpn.serving.settings import ServerSettings

_FORM = "multipart/form-data"
# What an image's bytes may call themselves: curl --data-binary says that they are a form.
_BYTES = ("", "application/octet-stream", "application/x-www-form-urlencoded", "binary/octet-stream")
_NAME_LENGTH = 200
_GONE = 499  # nginx's number of it, which nobody reads but who counts

T = TypeVar("T")
HOW_TO_SEND = (
    "Send an image's bytes (curl --data-binary @photo.jpg), or several files as a form (curl -F image=@photo.jpg)."
)


class _InMemory(MultiPartParser):
    """A form whose files stay in memory, since bodies are bounded: nothing of a request gets onto the disk."""

    spool_max_size = 2**62


class BodyReader:
    """Reads the bodies of requests.

    Attributes:
        held: bytes of all bodies that are in memory now.

    Args:
        settings: the limits.
        service: knows when there will be room again.
    """

    def __init__(self, settings: ServerSettings, service: DetectionService) -> None:
        self._settings, self._service = settings, service
        self.held = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """All of a body, held for as long as the `with` lasts.

        Raises:
            RequestError: 408, 413, 429; 499, the client left, or sent what is no HTTP, before it was complete.
        """
        with _Held(self) as held:
            chunks = [chunk async for chunk in self._chunks(request, held)]
            yield b"".join(chunks)

    @asynccontextmanager
    async def images(self, request: Request) -> AsyncIterator[list[tuple[str, ImageBytes]]]:
        """The images of a body with their names, held for as long as the `with` lasts.

        Raises:
            RequestError: 400, 408, 413, 415, 422, 429.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == _FORM:
            with _Held(self) as held:
                yield await self._form(request, held)
        elif kind in _BYTES or kind.startswith("image/"):
            async with self.body(request) as data:
                yield [("image", ImageBytes(data))] if data else []
        else:
            raise RequestError(415, f"the body is {kind!r:.100}, which is no image", HOW_TO_SEND)

    async def _form(self, request: Request, held: _Held) -> list[tuple[str, ImageBytes]]:
        most = self._settings.max_images
        try:
            # Closed here, whatever the parser leaves unread: its timeout would cancel what this task does next.
            async with aclosing(self._chunks(request, held)) as chunks:
                parser = _InMemory(request.headers, chunks, max_files=most, max_fields=most, max_part_size=2**16)
                form = await parser.parse()
        except MultiPartException as error:
            if "Too many files" in error.message:
                raise RequestError(413, f"more than {most} files in one request", "Send several requests.") from error
            raise RequestError(400, f"the form can't be read: {error.message}", HOW_TO_SEND) from error
        try:
            return [await _file_of_form(field, value) for field, value in form.multi_items()]
        finally:
            await form.close()

    async def _chunks(self, request: Request, held: _Held) -> AsyncGenerator[bytes, None]:
        """A body as it comes."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.body_seconds):
                async for chunk in request.stream():
                    held.add(len(chunk))
                    if held.count > settings.max_bytes:
                        raise body_too_large(settings)
                    if self.held > settings.max_received:
                        raise self._service.too_busy(f"{self.held >> 20} MiB of images are held already")
                    yield chunk
        except TimeoutError:
            raise RequestError(
                408,
                f"the body did not come within {settings.body_seconds:g} s",
                "Send a smaller image, or try again over a faster connection.",
                {"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise RequestError(_GONE, "the body was not sent to its end", "Send it again.") from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; once the client is gone, nothing more is done for it.

    Args:
        request: whose body was read to its end.
        work: what it waits for.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RequestError(_GONE, "the client is gone", "Wait longer for an answer.")
        return working.result()
    finally:
        for each in (working, leaving):
            each.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _file_of_form(field: str, value: UploadFile | str) -> tuple[str, ImageBytes]:
    if isinstance(value, str):
        raise RequestError(
            422,
            f"the form's field {field!r:.100} is a text, not a file",
            "curl needs an @ before a file's name: -F image=@photo.jpg. Settings stand in the address: ?score=0.5",
        )
    name = (value.filename or field)[:_NAME_LENGTH]
    return name, ImageBytes(await value.read(), name)


class _Held:
    """Bytes of one body, counted among all that are held until the `with` ends."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader, self.count = reader, 0

    def add(self, count: int) -> None:
        self.count += count
        self._reader.held += count

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.held -= self.count


def body_too_large(settings: ServerSettings) -> RequestError:
    """413."""
    return RequestError(
        413,
        f"the body has more than {settings.max_bytes} bytes",
        "Send a smaller image, or fewer at once. The server's limit is --max-bytes.",
    )
