"""Changes of colours that leave objects where they are: brightness and its like, blur, noise, traces of JPEG."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageFilter, ImageStat

from fpn.data.dataset import Sample
from fpn.data.loading.augmentation.chances import Chances, Draws
from fpn.data.loading.augmentation.config import AugmentationConfig

# How bright each of red, green and blue looks (ITU-R BT.601), and two axes of colour without brightness.
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
# The standard normal distribution in 256 steps of equal weight: a random byte draws one of them.
_NORMAL = np.array([NormalDist().inv_cdf((step + 0.5) / 256) for step in range(256)])


def recolour(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Change hue, saturation, contrast and brightness."""
    if config.colour == 0:
        return sample
    image = sample.image
    mean = float(_LUMA @ ImageStat.Stat(image.reduce(8)).mean)
    matrix, shift = _colour_map(config.colour, chances.draws, mean)
    # (3, 3) and (3,) -> twelve numbers, row by row
    return replace(sample, image=image.convert("RGB", tuple(np.column_stack([matrix, shift]).ravel().tolist())))


def blur(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Blur, as a lens does that is out of focus."""
    random = chances.of("blur")
    if random.random() >= config.blur:
        return sample
    sigma = float(random.uniform(*config.blur_sigma))
    return replace(sample, image=sample.image.filter(ImageFilter.GaussianBlur(sigma)))


def noise(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Add to each value what a normal distribution draws.

    Of 256 steps, by random bytes: 6 ms at 640 x 480, where drawing floats takes 14.
    """
    random = chances.of("noise")
    if random.random() >= config.noise:
        return sample
    steps = np.rint(_NORMAL * random.uniform(*config.noise_sigma)).astype(np.int16)
    values = np.asarray(sample.image)
    drawn = np.frombuffer(random.bytes(values.size), dtype=np.uint8).reshape(values.shape)
    noisy = steps.take(drawn)
    noisy += values
    return replace(sample, image=Image.fromarray(noisy.clip(0, 255, out=noisy).astype(np.uint8)))


def jpeg(sample: Sample, config: AugmentationConfig, chances: Chances) -> Sample:
    """Compress and decompress."""
    random = chances.of("jpeg")
    if random.random() >= config.jpeg:
        return sample
    packed = io.BytesIO()
    sample.image.save(packed, "JPEG", quality=round(random.uniform(*config.jpeg_quality)))
    return replace(sample, image=Image.open(packed).convert("RGB"))


def _colour_map(strength: float, draws: Draws, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Hue, saturation, contrast and brightness as one linear map of RGB (matrix, shift).

    One pass over the pixels takes 1 ms at 640 x 480, where torchvision's four take 35, hue by way of HSV almost all of
    them.
    """
    turn = 0.1 * strength * 2 * math.pi * (2 * draws.hue - 1)
    cosine, sine = math.cos(turn), math.sin(turn)
    hue = np.linalg.inv(_TO_YIQ) @ [[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]] @ _TO_YIQ
    # Saturation may change most: people notice it least.
    saturation = _factor(0.6 * strength, draws.saturation)
    grey = np.outer(np.ones(3), _LUMA)
    contrast, brightness = _factor(0.4 * strength, draws.contrast), _factor(0.4 * strength, draws.brightness)
    matrix = brightness * contrast * ((1 - saturation) * grey + saturation * hue)
    return matrix, np.full(3, brightness * (1 - contrast) * mean)


def _factor(strength: float, drawn: float) -> float:
    return 1 + strength * (2 * drawn - 1)
