"""Section `pixels`: how an image becomes what the network sees."""

from __future__ import annotations

from typing import Literal, TypedDict

from pydantic import Field, field_validator

from fpn.sections import Number, Positive, Section

Resize = Literal["pillow", "torch", "opencv", "opencv_8bit", "square", "centred_64"]


class Sizing(TypedDict):
    """Keyword arguments of `resize` and `network_frame`."""

    method: Resize
    short_side: int
    long_side: int | None


class PixelsConfig(Section):
    """From original to network pixels, and back."""

    pixel_range: tuple[float, float] | None = Field(
        default=None,
        description="Values that become black and white in images of more than 8 bits, such as 0 and 4095; training "
        "sets it from the data. None: 0 and 65535 for 16 bits, an image's own least and most for others.",
    )
    channel_order: Literal["rgb", "bgr"] = Field(
        default="rgb", description="Order of the colour channels that the network sees."
    )
    value_range: Positive[float] = Field(default=1.0, description="Pixel value of white before mean and std: 1 or 255.")
    mean: tuple[Number, Number, Number] | None = Field(
        default=None,
        description="Subtracted a channel, in units of `value_range`, in the network's channel order; None: as the "
        "backbone's ImageNet weights were trained.",
    )
    std: tuple[Positive[float], Positive[float], Positive[float]] | None = Field(
        default=None, description="Divided by, a channel, after the mean; None: as `mean`."
    )
    short_side: Positive[int] = Field(
        default=800, description="The shorter side of an image is scaled to this many pixels ..."
    )
    long_side: Positive[int] | None = Field(
        default=1333, description="... unless the longer side would exceed this one, in pixels; None: no limit."
    )
    resize: Resize = Field(
        default="pillow",
        description="How pixels are resampled. `pillow`: 8-bit, antialiased bilinear. `torch`: float, not antialiased, "
        "size rounded down. `opencv`: float, sampled at exactly 1/scale. `opencv_8bit`: 8-bit, not antialiased. "
        "`square`: 8-bit by truncation, then padded at all sides to a square of `long_side` (matterport); "
        "`centred_64`: to multiples of 64.",
    )
    size_multiple: Positive[int] = Field(default=32, description="Padded sides are multiples of this; 1: no padding.")
    pad_before_mean: bool = Field(
        default=False,
        description="True: padding is black before the mean is subtracted, so the network sees -mean there; False: it "
        "sees 0.",
    )
    whole_pixels: bool = Field(
        default=False,
        description="True: detections leave rounded to whole pixels, half to even, and those without an area are "
        "dropped.",
    )

    @field_validator("pixel_range")
    @classmethod
    def _ascends(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError("expected the value of black and a higher one of white")
        return value

    @property
    def sizing(self) -> Sizing:
        """What decides the size of an image inside the network, as `resize` and `network_frame` take it."""
        return {"method": self.resize, "short_side": self.short_side, "long_side": self.long_side}
