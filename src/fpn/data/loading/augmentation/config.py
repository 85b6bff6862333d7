"""The settings of random changes, one flat table. Imports no torch, so that `--help` stays fast."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from fpn.sections import CheckedSettings

Range = tuple[float, float]
# Between which bounds the two ends of each range must lie.
_BOUNDS: Mapping[str, Range] = {
    "scale": (0.1, 10.0),
    "jitter": (0.05, 10.0),
    "crop_sides": (0.1, 1.0),
    "mosaic_scale": (0.1, 10.0),
    "mix_up_share": (0.0, 1.0),
    "blur_sigma": (0.0, 100.0),
    "noise_sigma": (0.0, 255.0),
    "jpeg_quality": (1.0, 95.0),
}


class AugmentationConfig(CheckedSettings):
    """Which random changes training makes to its images, how often and how strongly. Lengths are those of the image.

    Raises:
        ConfigError: an unknown name, or a value out of range.
    """

    flip: float = Field(default=0.5, ge=0, le=1, description="Probability of a left-right flip.")
    vertical_flip: float = Field(
        default=0.0, ge=0, le=1, description="Probability of an upside-down flip. 0.5 suits cells and aerial images."
    )
    rotate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability of a turn by 90, 180 or 270 degrees, each as likely. 0.75 suits what has no up. Wide "
        "and tall images then share batches, which costs padding.",
    )
    scale: Range = Field(
        default=(1.0, 1.0),
        description="Least and greatest factor of a random zoom, such as 0.8 1.25; above 1 a part around an object is "
        "cut out, below 1 the image lies on a larger ground, of 1 / factor times its sides. 0.1 to 10. 1 1: none.",
    )
    jitter: Range = Field(
        default=(1.0, 1.0),
        description="Large-scale jitter: least and greatest factor by which the image is resized before it is cut or "
        "filled up to its own size, all as likely; 0.05 to 10. 0.1 2 is for long runs (Ghiasi et al. 2021, "
        "arXiv:2012.07177), 0.5 1.5 for short ones. 1 1: none.",
    )
    crop: float = Field(
        default=0.0, ge=0, le=1, description="Probability of cutting out a part that holds one object as a whole."
    )
    crop_sides: Range = Field(
        default=(0.3, 1.0),
        description="Least and greatest width and height of that part, as shares of the image's, drawn apart; from 0.1 "
        "(0.3 to 1: SSD, Liu et al. 2016, arXiv:1512.02325). It grows where its object needs more.",
    )
    min_visible: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Least share of an object's area that a cut, or what is pasted over it, must leave; an object with "
        "less is ignored, neither example nor background.",
    )

    mosaic: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability of an image made of four, parts of three others beside its own (YOLOv4, Bochkovskiy "
        "et al. 2020, arXiv:2004.10934).",
    )
    mosaic_scale: Range = Field(
        default=(0.5, 1.0),
        description="Least and greatest size of the four, as a factor of the one at which each would fill the image; "
        "never so small that a quarter stays empty. 0.1 to 10.",
    )
    mix_up: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that another image shines through, with its objects (Zhang et al. 2019, "
        "arXiv:1902.04103).",
    )
    mix_up_share: Range = Field(
        default=(0.4, 0.6), description="Least and greatest weight of that other image's colours, 0 to 1."
    )
    copy_paste: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that objects of another image are pasted in, cut out along their masks, or as boxes "
        "with a soft edge where the data has none (Ghiasi et al. 2021, arXiv:2012.07177).",
    )
    copy_paste_objects: int = Field(
        default=10, ge=1, le=1000, description="Most objects that are pasted at once; one to this many, all as likely."
    )

    colour: float = Field(
        default=0.0, ge=0, le=1, description="Strength of random brightness, contrast and saturation. 0: none."
    )
    blur: float = Field(default=0.0, ge=0, le=1, description="Probability of a Gaussian blur.")
    blur_sigma: Range = Field(
        default=(0.1, 2.0),
        description="Least and greatest standard deviation of the blur, in pixels, 0 to 100 (0.1 to 2: SimCLR, Chen et "
        "al. 2020, arXiv:2002.05709).",
    )
    noise: float = Field(default=0.0, ge=0, le=1, description="Probability of Gaussian noise on each value.")
    noise_sigma: Range = Field(
        default=(2.0, 12.0),
        description="Least and greatest standard deviation of the noise, in values of 0 to 255: 2 is a camera in "
        "daylight, 12 one at night.",
    )
    jpeg: float = Field(default=0.0, ge=0, le=1, description="Probability of the traces of a JPEG's compression.")
    jpeg_quality: Range = Field(
        default=(30.0, 90.0), description="Worst and best quality of that JPEG, 1 to 95 on Pillow's scale."
    )

    @model_validator(mode="after")
    def _rise(self) -> AugmentationConfig:
        for name, (least, most) in _BOUNDS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name} {low:g} {high:g}: expected least and greatest, from {least:g} to {most:g}")
        return self

    @property
    def zoom(self) -> float:
        """How many times larger than without changes a part of an image may be shown."""
        cut = 1 / self.crop_sides[0] if self.crop else 1.0
        tiles = max(1.0, self.mosaic_scale[1]) if self.mosaic else 1.0
        return self.scale[1] * max(1.0, self.jitter[1]) * cut * tiles
