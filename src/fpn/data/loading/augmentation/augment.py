"""All random changes in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fpn.data.dataset import Sample
from fpn.data.loading.augmentation.chances import Chances
from fpn.data.loading.augmentation.compositing import Partners, copy_paste, mix_up, mosaic
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.data.loading.augmentation.geometric import crop_around, flip, jitter, rotate, zoom
from fpn.data.loading.augmentation.photometric import blur, jpeg, noise, recolour
from fpn.errors import ConfigError

Step = Callable[[Sample, AugmentationConfig, Chances], Sample]

# In this order, on one image each: a mosaic is moved as a whole, what is mixed or pasted in was moved by itself, and
# colours, blur, noise and JPEG come last, on all of it.
GEOMETRIC: tuple[Step, ...] = (jitter, zoom, crop_around, rotate, flip)
PHOTOMETRIC: tuple[Step, ...] = (recolour, blur, noise, jpeg)


class Augment:
    """Changes a labelled image at random; boxes, masks, keypoints and ignore flags follow.

    Attributes:
        config: which changes, how often and how strongly.
    """

    config: AugmentationConfig

    def __init__(self, config: AugmentationConfig | None = None, /, **settings: Any) -> None:
        """From settings as a whole, or by name: `Augment(mosaic=0.5)`.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        self.config = AugmentationConfig(**settings) if config is None else config

    @property
    def wants_masks(self) -> bool:
        """Whether objects should come with their masks, where the data has them."""
        return self.config.copy_paste > 0

    @property
    def wants_partners(self) -> bool:
        """Whether some images come together with others."""
        return max(self.config.mosaic, self.config.mix_up, self.config.copy_paste) > 0

    def __call__(self, sample: Sample, random: torch.Generator, partners: Partners | None = None) -> Sample:
        """Another version of the sample.

        Args:
            sample: left as it is.
            random: where all chances come from, see `random_for`.
            partners: the images that may come together with it.

        Raises:
            ConfigError: there are none, and mosaic, mix-up or copy-paste needs them.
        """
        chances = Chances.drawn(random)
        if self.wants_partners:
            if partners is None:
                raise ConfigError("mosaic, mix-up and copy-paste need other images: give partners")
            sample = mosaic(sample, self.config, chances, partners)
        sample = self.moved(sample, chances)
        if self.wants_partners and partners is not None:
            sample = mix_up(sample, self.config, chances, partners, prepare=self.moved)
            sample = copy_paste(sample, self.config, chances, partners, prepare=self.moved)
        for step in PHOTOMETRIC:
            sample = step(sample, self.config, chances)
        return sample

    def moved(self, sample: Sample, chances: Chances) -> Sample:
        """The sample after its jitter, zoom, crop, turn and flips."""
        for step in GEOMETRIC:
            sample = step(sample, self.config, chances)
        return sample
