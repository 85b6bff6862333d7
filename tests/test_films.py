"""Films of a moving square: read with their times, written, cut short, turned, and with the sound of another."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fpn
from fpn import films
from fpn.errors import ConfigError, DataNotFoundError, ImageError, MissingExtraError
from fpn.films import Film, FilmWriter, add_sound

av = pytest.importorskip("av", reason="needs the extra video")


def frame(number: int, width: int = 64, height: int = 48) -> Image.Image:
    """Noise with a red square whose left edge is at 4 + 3 * number."""
    pixels = np.random.default_rng(number).integers(0, 60, (height, width, 3)).astype(np.uint8)
    pixels[10:26, 4 + 3 * number : 20 + 3 * number] = (220, 30, 30)
    return Image.fromarray(pixels)


def number_shown(image: Image.Image) -> int:
    """Which frame it is by the square's middle: encoders differ by a pixel or two at its edges."""
    red = np.asarray(image)[10:26, :, 0] > 140
    return round((np.nonzero(red)[1].mean() - 11.5) / 3)


def film(
    path: Path, count: int = 10, *, codec: str = "libx264", rate: int = 10, sound: str = "", **options: str
) -> Path:
    with av.open(str(path), "w", options=options) as made:
        images = made.add_stream(codec, rate=rate)
        images.width, images.height, images.pix_fmt = 64, 48, "yuv420p"
        heard: Any = made.add_stream(sound, rate=8000, layout="mono") if sound else None
        for number in range(count):
            made.mux(images.encode(av.VideoFrame.from_image(frame(number))))
        made.mux(images.encode())
        for part in range(8 if sound else 0):
            wave = (np.sin(np.arange(1024) / 5) * 8000).astype(np.int16)[None]
            tone = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            tone.sample_rate, tone.pts = 8000, 1024 * part
            made.mux(heard.encode(tone))
        if sound:
            made.mux(heard.encode())
    return path


def write(path: Path, times: Sequence[float], **size: int) -> Path:
    with FilmWriter(path, rate=Fraction(10)) as writer:
        for number, seconds in enumerate(times):
            writer.write(frame(number, **size), seconds)
    return path


def test_frames_come_in_order_with_their_times_and_numbers(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    told = Film(path)
    assert (told.rate, told.expected, told.has_sound) == (10, 10, False)
    frames = list(told)
    assert [each.number for each in frames] == list(range(10))
    assert [each.seconds for each in frames] == pytest.approx([0.1 * k for k in range(10)])
    assert [number_shown(each.image) for each in frames] == list(range(10))
    assert told.damage == ""


def test_each_third_frame_keeps_its_number_and_time(tmp_path: Path) -> None:
    frames = list(fpn.video_frames(film(tmp_path / "a.mp4"), every=3))
    assert [each.number for each in frames] == [0, 3, 6, 9]
    assert [each.seconds for each in frames] == pytest.approx([0.0, 0.3, 0.6, 0.9])
    assert Film(tmp_path / "a.mp4", every=3).expected == 4


def test_times_that_are_not_even_and_odd_sides_are_written_as_they_are(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.5, 0.52, 1.25]
    frames = list(Film(write(tmp_path / "b.mp4", times, width=65, height=47)))
    assert [each.seconds for each in frames] == pytest.approx(times, abs=1 / 60_000)
    assert frames[0].image.size == (66, 48)
    last = np.asarray(frames[0].image).astype(int)
    assert abs(last[:, 65] - last[:, 64]).mean() < 20  # its neighbour once more, but for the compression
    assert [number_shown(each.image) for each in frames] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("degrees", "place"), [(90, (3, 0)), (180, (2, 3)), (-90, (0, 2)), (0, (0, 0))])
def test_frames_are_turned_counterclockwise_as_players_do(degrees: int, place: tuple[int, int]) -> None:
    image = Image.new("RGB", (4, 3))
    image.putpixel((0, 0), (255, 0, 0))
    upright = films._upright(SimpleNamespace(rotation=degrees, to_image=lambda: image))
    assert [tuple(each) for each in np.argwhere(np.asarray(upright)[..., 0] == 255)] == [place]  # row, column


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, 47)), (180, (47, 63)), (270, (63, 0))])
def test_a_phones_film_is_read_upright(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    # Its matrix says how players turn it clockwise: the upper left corner comes to the upper right one, and so on.
    path, one = film(tmp_path / "a.mp4", 3), 1 << 16
    before, usual, behind = path.read_bytes().rpartition(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    x, y = {90: (48, 0), 180: (64, 48), 270: (0, 64)}[degrees]
    matrix = (cosine * one, sine * one, 0, -sine * one, cosine * one, 0, x * one, y * one, 1 << 30)
    (tmp_path / "b.mp4").write_bytes(before + struct.pack(">9i", *matrix) + behind)
    assert usual, "the track's own; that of the whole film stands before it"
    plain, (first, *_) = next(iter(Film(path))).image, Film(tmp_path / "b.mp4")
    assert first.image.size == ((64, 48) if degrees == 180 else (48, 64))
    assert first.image.getpixel(corner[::-1]) == plain.getpixel((0, 0))


def test_a_film_whose_frames_change_size_says_where(tmp_path: Path) -> None:
    both = tmp_path / "both.ts"
    for number, (width, height) in enumerate(((64, 48), (96, 80))):
        with av.open(str(tmp_path / f"{number}.ts"), "w") as made:
            images = made.add_stream("mpeg2video", rate=10)
            images.width, images.height, images.pix_fmt = width, height, "yuv420p"
            for k in range(4):
                made.mux(images.encode(av.VideoFrame.from_image(frame(k, width, height))))
            made.mux(images.encode())
    both.write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    told = Film(both)
    frames = list(told)
    assert {each.image.size for each in frames} == {(64, 48), (96, 80)}
    assert [size for _, size in told.sizes] == [(48, 64), (80, 96)]
    assert frames[told.sizes[1][0]].image.size == (96, 80)
    with pytest.raises(ImageError, match="its frames have 96 x 80 pixels, more than 4000"):
        list(Film(both, max_pixels=4000))


def test_a_film_that_breaks_off_gives_what_can_be_read_and_says_so(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mp4", 20, movflags="faststart").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    told = Film(tmp_path / "half.mp4")
    frames = list(told)
    assert 3 < len(frames) < 20
    assert [number_shown(each.image) for each in frames[:3]] == [0, 1, 2]
    assert f"{len(frames)} of 20 frames could be read" in told.damage


def test_what_is_no_film_is_refused_with_what_it_is(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its table of contents was at the end
    with pytest.raises(ImageError, match=r"cut\.mp4: is no film that can be read .* copy or download it again"):
        Film(tmp_path / "cut.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ImageError, match=r"empty\.mp4: is empty, 0 bytes"):
        Film(tmp_path / "empty.mp4")
    with av.open(str(tmp_path / "begun.mp4"), "w") as made:
        made.add_stream("libx264", rate=10)
        made.start_encoding()
    with pytest.raises(ImageError, match=r"begun\.mp4: has neither images nor sound"):
        Film(tmp_path / "begun.mp4")
    with pytest.raises(DataNotFoundError, match=r"no\.mp4: no such file"):
        fpn.video_frames(tmp_path / "no.mp4")
    with pytest.raises(ImageError, match="is a folder"):
        Film(tmp_path)
    with av.open(str(tmp_path / "song.wav"), "w") as made:
        heard = made.add_stream("pcm_s16le", rate=8000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        tone.sample_rate = 8000
        made.mux(heard.encode(tone))
    with pytest.raises(ImageError, match=r"song\.wav: has no images, only audio"):
        Film(tmp_path / "song.wav")
    with pytest.raises(ImageError, match=r"its frames have 64 x 48 pixels, more than 3071 \(--max-pixels"):
        Film(tmp_path / "a.mp4", max_pixels=3071)
    with pytest.raises(ConfigError, match="every 0: expected 1"):
        Film(tmp_path / "a.mp4", every=0)


def test_no_file_beside_it_is_opened_for_a_playlist(tmp_path: Path) -> None:
    film(tmp_path / "a.ts", codec="mpeg4")
    listed = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\na.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(listed)
    with pytest.raises(ImageError, match="no film that can be read"):
        list(Film(tmp_path / "list.mp4"))


def test_sound_goes_along_unless_an_mp4_has_no_place_for_it(tmp_path: Path) -> None:
    source, silent = film(tmp_path / "a.mkv", sound="aac"), write(tmp_path / "b.mp4", [0.1 * k for k in range(10)])
    assert Film(source).has_sound
    assert add_sound(silent, source, tmp_path / "c.mp4", start=0.0)
    with av.open(str(tmp_path / "c.mp4")) as both:
        images, sound = both.streams
        assert (images.codec_context.name, images.frames, sound.codec_context.name) == ("h264", 10, "aac")
        assert float(sound.duration * sound.time_base) == pytest.approx(8 * 1024 / 8000, abs=0.13)
    assert add_sound(silent, source, tmp_path / "d.mp4", start=0.5)
    with av.open(str(tmp_path / "d.mp4")) as both:
        assert float(both.streams.audio[0].duration * both.streams.audio[0].time_base) < 0.7
    odd = film(tmp_path / "odd.mkv", sound="pcm_u8")
    assert not add_sound(silent, odd, tmp_path / "e.mp4", start=0.0)


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"films are read by PyAV\. pip install 'fpn\[video\]' brings it"):
        Film("a.mp4")
