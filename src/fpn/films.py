"""Films, a frame at a time: read, written, and given the sound of another. PyAV (FFmpeg) does the work."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from fpn.errors import ConfigError, DataNotFoundError, ImageError, MissingExtraError, OutputError
from fpn.image_io import MAX_PIXELS
from fpn.shapes import Size

FILM_SUFFIXES = frozenset(
    (
        ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
        ".webm", ".wmv",
    )
)  # fmt: skip
# What the drawn film's times are counted in: 24, 25, 29.97, 30, 50 and 60 frames a second are whole numbers of it, and
# MPEG-4 takes no finer one.
_TICKS = 60_000
# The better first. H.264 is what browsers play; PyAV's own builds have it.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_QUARTERS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
# A file is read, and no address in it followed: playlists can name others.
_NOTHING_ELSE = {"protocol_whitelist": "none"}
_USUAL_RATE = Fraction(25)
# A film without a count has about as many frames as its duration says.
_MOSTLY = 0.9


@dataclass(frozen=True, slots=True)
class FilmFrame:
    """One frame.

    Attributes:
        image: RGB, upright, as players turn it.
        number: of the frame, counted from 0, also where others are left out.
        seconds: after the film's first frame, by the film's own clock.
    """

    image: Image.Image
    number: int
    seconds: float


class Film:
    """A film, read from its first frame on; only a frame at a time is in memory.

    Attributes:
        path: of the file.
        every: each n-th frame is handed out, beginning with the first.
        rate: frames a second, on average; 25 where the file does not say.
        expected: frames that will be handed out, by what the file says of itself; None: it says nothing.
        has_sound: whether it has a track of sound.
        start: when its first frame is shown, in seconds by its clock; known once that is read.
        damage: what could not be read, once all was; "" where nothing was wrong.
        sizes: number and size of the first frame handed out, and of each that has another size than the one before.
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int = 1, max_pixels: int = MAX_PIXELS) -> None:
        """Args:
            path: a file; the kind of film is told by its content.
            every: hand out each n-th frame.
            max_pixels: of a frame, height times width.

        Raises:
            MissingExtraError: PyAV is not installed.
            DataNotFoundError: no such file.
            ImageError: it is no film, has no images, or larger ones.
            ConfigError: `every` is below 1.
        """
        if every < 1:
            raise ConfigError(f"every {every}: expected 1 (each frame) or more")
        self.path, self.every = Path(path), every
        self.damage, self.start = "", 0.0
        self.sizes: list[tuple[int, Size]] = []
        self._max_pixels = max_pixels
        with _opened(self.path) as film:
            if not film.streams.video:
                raise ImageError(f"{self.path}: has {_instead(film)}. Give a film.")
            stream = film.streams.video[0]
            if stream.codec_context is None:
                raise ImageError(f"{self.path}: PyAV has no decoder for its kind of images. Convert it, say to H.264.")
            self._refuse_large(stream.width, stream.height)
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
            self.has_sound = bool(film.streams.audio)
            self._said = int(stream.frames)  # 0: the file has no such number
            total = self._said or (round(film.duration / 1e6 * self.rate) if film.duration else 0)
        self.expected = -(-total // every) if total else None

    def __iter__(self) -> Iterator[FilmFrame]:
        """The frames in the order in which they are shown. A film that breaks off ends there, and `damage` says so.

        Raises:
            ImageError: not one frame could be read, or one has too many pixels.
        """
        self.sizes = []
        number, before, broken, clock = 0, -1.0, 0, _Clock(self.rate)
        with _opened(self.path) as film:
            for frame in self._decoded(film):
                if frame is None:
                    broken += 1
                    continue
                seconds = clock.seconds(frame)
                if number == 0:
                    self.start = seconds
                if number % self.every == 0:
                    before = max(seconds - self.start, before + 1 / _TICKS)
                    self._refuse_large(frame.width, frame.height)
                    image = _upright(frame)
                    size = Size(image.height, image.width)
                    if not self.sizes or self.sizes[-1][1] != size:
                        self.sizes.append((number, size))
                    yield FilmFrame(image, number, before)
                number += 1
        if number == 0:
            raise ImageError(f"{self.path}: not one frame can be read. Copy or download it again.")
        self._tell(number, broken)

    def _refuse_large(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise ImageError(
                f"{self.path}: its frames have {width} x {height} pixels, more than {self._max_pixels} "
                "(--max-pixels, max_pixels)"
            )

    def _decoded(self, film: Any) -> Iterator[Any]:
        """Frames; None for what can't be decoded. What breaks the file itself ends it."""
        import av

        stream = film.streams.video[0]
        stream.thread_type = "AUTO"
        packets = film.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError, OSError) as ending:
                if not isinstance(ending, StopIteration):
                    self.damage = f"breaks off ({ending.strerror})"
                return
            try:
                yield from packet.decode()
            except (av.error.FFmpegError, OSError):
                yield None

    def _tell(self, read: int, broken: int) -> None:
        parts = [self.damage] if self.damage else []
        if broken:
            parts.append(f"{broken} pieces can't be decoded")
        about = (self.expected or 0) * self.every
        if parts or read < (self._said or _MOSTLY * about):
            parts.append(f"{read} of {self._said or f'about {about}'} frames could be read")
        self.damage = ", ".join(parts)


def video_frames(path: str | os.PathLike[str], *, every: int = 1) -> Iterator[FilmFrame]:
    """The frames of a film in the order in which they are shown, one at a time.

    Args:
        path: a file.
        every: hand out each n-th frame, beginning with the first.

    Raises:
        MissingExtraError, DataNotFoundError, ImageError, ConfigError: as `Film`, at once.
    """
    return iter(Film(path, every=every))


class FilmWriter:
    """Writes frames of one size as an .mp4: H.264 where PyAV has it, else MPEG-4. Use it in `with`.

    Attributes:
        encoder: its name.
    """

    def __init__(self, path: str | os.PathLike[str], *, rate: Fraction) -> None:
        """Args:
            path: the file, which is replaced; give a temporary name.
            rate: frames a second, for players that ask; each frame has its own time.

        Raises:
            MissingExtraError: PyAV is not installed.
            OutputError: it can't be written, or PyAV has no encoder.
        """
        av = require_pyav(Path(path))
        found = next((name for name in _ENCODERS if name in av.codecs_available), None)
        if found is None:
            raise OutputError(f"{path}: this PyAV can encode none of {', '.join(_ENCODERS)}. Take it from PyPI.")
        self.path, self.encoder = Path(path), found
        self._film = av.open(str(path), "w", format="mp4")
        self._stream = self._film.add_stream(found, rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if found == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        self._last = -1

    def write(self, image: Image.Image, seconds: float) -> None:
        """Add a frame.

        Args:
            image: RGB, of the size of the first one; odd sides get their last row or column twice, as no player takes
                odd ones.
            seconds: when it is shown.
        """
        from av import VideoFrame

        even = _even(image)
        if self._last < 0:
            self._stream.width, self._stream.height = even.size
        elif even.size != (self._stream.width, self._stream.height):
            even = even.resize((self._stream.width, self._stream.height))
        frame = VideoFrame.from_image(even)
        self._last = max(round(seconds * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._film.mux(self._stream.encode(frame))

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._last >= 0:
            self._film.mux(self._stream.encode())
        self._film.close()


def add_sound(silent: Path, source: Path, target: Path, *, start: float) -> bool:
    """Write a film's images with another one's sound, both as they are; whether its kind of sound fits into an .mp4.

    Args:
        silent: whose images are taken.
        source: whose first track of sound is taken.
        target: the file, which is replaced.
        start: seconds of the source's clock that are 0 in `silent`; earlier sound is left out.
    """
    import av

    with av.open(str(silent)) as seen, _opened(source) as heard, av.open(str(target), "w", format="mp4") as film:
        images, sound = seen.streams.video[0], heard.streams.audio[0]
        try:
            tracks = {images: film.add_stream_from_template(images), sound: film.add_stream_from_template(sound)}
            film.start_encoding()
        except (av.error.FFmpegError, ValueError):
            return False
        skipped = round(start / sound.time_base)
        try:
            both = heapq.merge(_timed(seen.demux(images)), _timed(heard.demux(sound), skipped), key=_seconds)
            for packet in both:  # by time, so that a player needs not look for either
                packet.stream = tracks[packet.stream]
                film.mux(packet)
        except av.error.FFmpegError:
            return False
    return True


def _timed(packets: Iterator[Any], skipped: int | None = None) -> Iterator[Any]:
    """Those with a time, from `skipped` on, which becomes 0; a source that breaks off ends there."""
    import av

    try:
        for packet in packets:
            if packet.dts is None or (skipped is not None and packet.dts < skipped):
                continue
            if skipped:
                packet.pts, packet.dts = packet.pts - skipped, packet.dts - skipped
            yield packet
    except av.error.FFmpegError:
        return


def _seconds(packet: Any) -> Fraction:
    return Fraction(packet.dts * packet.time_base)


class _Clock:
    """Seconds of frames, also of those that have no time of their own."""

    def __init__(self, rate: Fraction) -> None:
        self._step, self._next = float(1 / rate), 0.0

    def seconds(self, frame: Any) -> float:
        """By the film's clock, or one step after the frame before."""
        now = self._next if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        self._next = now + self._step
        return now


def require_pyav(path: Path) -> Any:
    """PyAV.

    Raises:
        MissingExtraError: it is not installed; `path`: the film that is asked for.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError(f"{path}: films are read by PyAV. pip install 'fpn[video]' brings it.") from None
    return av


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    av = require_pyav(path)
    if not path.exists():
        raise DataNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ImageError(f"{path}: is a folder; name a film in it")
    with ExitStack() as opened:
        try:
            film = opened.enter_context(av.open(opened.enter_context(path.open("rb")), options=_NOTHING_ELSE))
        except PermissionError:
            raise ImageError(f"{path}: no permission to read it") from None
        except (av.error.FFmpegError, ValueError, OSError) as error:
            if not path.stat().st_size:
                raise ImageError(f"{path}: is empty, 0 bytes. Copy or download it again.") from None
            raise ImageError(
                f"{path}: is no film that can be read ({getattr(error, 'strerror', None) or error}). One that was cut "
                "short may have lost its table of contents: copy or download it again."
            ) from None
        yield film


def _instead(film: Any) -> str:
    kinds = ", ".join(sorted({stream.type for stream in film.streams}))
    return f"no images, only {kinds}" if kinds else "neither images nor sound, as if its recording never began"


def _upright(frame: Any) -> Image.Image:
    image: Image.Image = frame.to_image()
    turn = _QUARTERS.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


def _even(image: Image.Image) -> Image.Image:
    width, height = (side + side % 2 for side in image.size)
    if (width, height) == image.size:
        return image
    larger = Image.new("RGB", (width, height))
    for right in range(width - image.width + 1):  # the last row and column shine through
        for down in range(height - image.height + 1):
            larger.paste(image, (width - image.width - right, height - image.height - down))
    return larger
