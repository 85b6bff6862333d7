"""The rule gives the numbers that its description gives; without this no other test here means anything."""

import numpy as np
import pytest

from parity.golden import rule
from parity.golden.cases import cases, entries, parse_slice

SALT = "public/"


def test_conv1_starts_as_written():
    conv1 = rule.weight(SALT, "conv1.weight", (64, 3, 7, 7))
    np.testing.assert_allclose(conv1.ravel()[:4], [-0.03230361, -0.05540656, -0.11351453, 0.03237467], rtol=1e-6)
    assert conv1.sum(dtype=np.float64) == pytest.approx(8.489988, rel=1e-6)


def test_norms_start_as_written():
    np.testing.assert_allclose(rule.weight(SALT, "bn1.weight", (64,))[:3], [1.0289049, 0.67346954, 0.9778129])
    mean = rule.weight(SALT, "bn1.running_mean", (64,))
    np.testing.assert_allclose(mean[:3], [0.14316463, -0.05461726, -0.11492901])


def test_a_keras_kernel_has_its_fan_in_first():
    kernel = rule.weight(SALT, "conv1/kernel:0", (7, 7, 3, 64))
    np.testing.assert_allclose(kernel.ravel()[:3], [-0.04315495, -0.03688834, 0.13901153], rtol=1e-6)


def test_a_factor_multiplies():
    scale = rule.weight(SALT, "layer1.0.bn3.weight", (256,), [(r"bn3\.weight$", 0.3)])
    np.testing.assert_allclose(scale[:3], [0.36817977, 0.15353502, 0.28855690])


def test_an_input_starts_as_written():
    pixels = rule.normal(SALT, "input:minimal:64", (1, 3, 64, 64), 1.0)
    np.testing.assert_allclose(pixels.ravel()[:3], [-1.4743665, -0.49287555, 0.97520614])


def test_a_stored_slice_is_an_index():
    assert parse_slice("[:, ::32, ::2, ::2]") == (slice(None), *(slice(None, None, n) for n in (32, 2, 2)))
    assert parse_slice("[..., ::16]") == (Ellipsis, slice(None, None, 16))
    assert parse_slice("[:200]") == (slice(None, 200),)


def test_the_weights_of_a_whole_model_have_the_stated_digest():
    [case] = cases("minimal_fpn_64")
    state = rule.weights(case.salt, entries("minimal_fpn.json"), case.factors)
    assert rule.sha256(state) == case.meta["weights_sha256"]
