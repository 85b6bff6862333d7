from __future__ import annotations

import numpy as np
import pytest

from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.data.loading.augmentation.photometric import blur, jpeg, noise

from .given import chances, labelled

HALF = [[50, 0, 100, 60]]


def values(sample):
    return np.asarray(sample.image).astype(np.int64)


def test_a_blur_softens_an_edge_and_leaves_what_is_far_from_it():
    sample = labelled(HALF)
    changed = values(blur(sample, AugmentationConfig(blur=1.0, blur_sigma=(2.0, 2.0)), chances()))[30, :, 0]
    assert changed[:40].tolist() == [0] * 40
    assert changed[60:].tolist() == [255] * 40
    # One standard deviation before the edge a Gaussian's integral is 0.16 of the step, one behind 0.84.
    assert changed[48] == pytest.approx(0.2 * 255, abs=15)
    assert (np.diff(changed) >= 0).all()


def test_noise_has_the_deviation_that_was_asked_for_and_no_bias():
    sample = labelled([], ground=128)
    changed = values(noise(sample, AugmentationConfig(noise=1.0, noise_sigma=(10.0, 10.0)), chances())) - 128
    # 18 000 values: the mean within 0.3, the deviation within 3 %.
    assert abs(changed.mean()) < 0.3
    assert 9.7 < changed.std() < 10.3
    assert len(set(changed[..., 0].ravel().tolist()) - set(changed[..., 1].ravel().tolist())) < 20
    assert not (changed[..., 0] == changed[..., 1]).all()


def test_noise_stays_within_black_and_white():
    dark, bright = (
        values(noise(labelled([], ground=ground), AugmentationConfig(noise=1.0, noise_sigma=(60.0, 60.0)), chances()))
        for ground in (0, 255)
    )
    assert dark.min() == 0
    assert dark.mean() < 60
    assert bright.max() == 255
    assert bright.mean() > 195


def test_a_jpeg_of_worse_quality_leaves_more_traces():
    sample = labelled([[13, 7, 41, 29]])

    def error(quality):
        config = AugmentationConfig(jpeg=1.0, jpeg_quality=(quality, quality))
        return np.abs(values(jpeg(sample, config, chances())) - values(sample)).mean()

    assert error(95.0) < error(50.0) < error(5.0)
    assert error(95.0) < 2


@pytest.mark.parametrize(("step", "name"), [(blur, "blur"), (noise, "noise"), (jpeg, "jpeg")])
def test_each_comes_as_often_as_asked_and_leaves_objects_alone(step, name):
    sample = labelled(HALF, ink=200)
    config = AugmentationConfig(**{name: 0.5})
    changed = [step(sample, config, chances(index)) for index in range(60)]
    assert 18 < sum(each.image is not sample.image for each in changed) < 42
    assert all(each.targets is sample.targets for each in changed)
    assert all(each.image.size == (100, 60) and each.image.mode == "RGB" for each in changed)
    assert step(sample, AugmentationConfig(), chances()) is sample
